"""Weighted sums that are begun ahead, compiled for the CPU. The contract is in `reference.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.maps import Form, Job, form_of, matrix, some, vector
from connsearch.kernels.weighted_sum.into import sum_norm_act

AT_ONCE = 4  # sums of the same maps that a compiled kernel makes: so many accumulators stay in registers


def begin_sums(sources: Sequence[Tensor], weight_KLC: Tensor, sums: Sequence[Tensor]) -> None:
    """Write sum_i w_ki h_i to each of K maps. Reads each source once for 4 of them."""
    form, n = form_of(some("sources", sources)), len(sources)
    if weight_KLC.shape != (len(sums), n, form.shape[1]):
        wanted, got = (len(sums), n, form.shape[1]), tuple(weight_KLC.shape)
        raise KernelError(f"the weight must be {wanted}, got {got}")
    for k in range(0, len(sums), AT_ONCE):
        some_sums = sums[k : k + AT_ONCE]
        rows = weight_KLC[k : k + AT_ONCE].flatten(0, 1)
        weight = matrix("the weight", rows, len(rows), form)
        job = Job(form, n)
        for total in some_sums:
            job.add_written("a sum", total)
        job.add_all("a source", sources)
        job.run("weighted_sum", "begin_sums", len(some_sums), weight)


def finish_sum(begun: Tensor, sources: Sequence[Tensor], weight_LC: Tensor, bias_C: Tensor | None) -> None:
    """Make x of begun. Reads begun and each source once."""
    form = form_of(begun)
    weight = _with_begun(weight_LC, len(sources), form)
    bias = None if bias_C is None else vector("the bias", bias_C, form.shape[1], form)
    job = Job(form, len(weight))
    job.add_written("the sum", begun)
    job.add_all("a source", [begun, *sources])
    job.run("weighted_sum", "weighted_sum", weight, 1, bias)


def finish_sum_norm_act(
    begun: Tensor,
    sources: Sequence[Tensor],
    weight_LC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make x of begun; return y = act(BN(x)), mean C and variance C. Reads begun and each source once."""
    form = form_of(begun)
    weight = _with_begun(weight_LC, len(sources), form)
    maps = [begun, *sources]
    return sum_norm_act(begun, form, maps, weight, bias_C, norm_weight_C, norm_bias_C, eps, act)


def _with_begun(weight_LC: Tensor, n: int, form: Form) -> Tensor:
    """Return weights of n sources after that of what is begun, which is one."""
    weight = matrix("the weight", weight_LC, n, form)
    return torch.cat([weight.new_ones(1, form.shape[1]), weight])
