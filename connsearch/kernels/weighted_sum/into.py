"""A weighted sum and its norm, compiled for the CPU, written to a map that is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.maps import Form, Job, act_code, new_map, vector


def sum_norm_act(
    x: Tensor,
    form: Form,
    sources: Sequence[Tensor],
    weight: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Write x = sum_i w_i h_i + b; return y = act(BN(x)), mean C and variance C of x.

    Args:
        x: B C H W; it may be one of the sources.
        form: Of all maps.
        weight: L 1 C or L C, dense.
    """
    C = form.shape[1]
    bias = None if bias_C is None else vector("the bias", bias_C, C, form)
    norm_weight = vector("the norm's weight", norm_weight_C, C, form)
    norm_bias = vector("the norm's bias", norm_bias_C, C, form)
    y = new_map(x, form)
    mean_C, var_C = torch.empty(C, dtype=form.sums), torch.empty(C, dtype=form.sums)
    job = Job(form, len(sources))
    job.add_written("the sum", x)
    job.add_written("the outcome", y)
    job.add_all("a source", sources)
    norm = norm_weight, norm_bias, eps, act_code(act), mean_C, var_C
    job.run("weighted_sum", "weighted_sum_norm_act", weight, bias, *norm)
    return y, mean_C, var_C
