"""Weighted sums of sources and their gradients, compiled for the CPU. The contract is in `reference.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.maps import Job, form_of, matrix, new_map, some, vector, weights
from connsearch.kernels.norm_act.cpu import norm_act_train
from connsearch.kernels.weighted_sum.into import sum_norm_act


def weighted_sum(sources: Sequence[Tensor], weight_LBC: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """Return sum_i w_i h_i + b, B C H W. Reads each source once."""
    form = form_of(some("sources", sources))
    job = Job(form, len(sources))
    weight = weights(weight_LBC, len(sources), form)
    bias = None if bias_C is None else vector("the bias", bias_C, form.shape[1], form)
    out = new_map(sources[0], form)
    job.add_written("the sum", out)
    job.add_all("a source", sources)
    job.run("weighted_sum", "weighted_sum", weight, weight.shape[1], bias)
    return out


def weighted_sum_norm_act(
    sources: Sequence[Tensor],
    weight_LBC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x = sum_i w_i h_i + b, y = act(BN(x)), mean C and variance C of x. Reads each source once."""
    form = form_of(some("sources", sources))
    weight = weights(weight_LBC, len(sources), form)
    if weight.shape[1] != 1:
        x = weighted_sum(sources, weight_LBC, bias_C)
        return x, *norm_act_train(x, norm_weight_C, norm_bias_C, eps, act)
    x = new_map(sources[0], form)
    return x, *sum_norm_act(x, form, sources, weight, bias_C, norm_weight_C, norm_bias_C, eps, act)


def pull(
    grads: Sequence[Tensor], weight_RBC: Tensor, source: Tensor, extra: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of a source, B C H W, and of its readers' weights, R (B or 1) (C or 1).

    Reads each gradient, source and extra once. The gradient has the layout of the source.
    """
    some("gradients", grads)
    form = form_of(source)
    job = Job(form, len(grads))
    weight = weights(weight_RBC, len(grads), form)
    out, dots = new_map(source, form), torch.empty_like(weight)
    job.add_written("the gradient", out)
    job.add("the source", source)
    job.add("extra", extra)
    job.add_all("a gradient", grads)
    job.run("weighted_sum", "pull", weight, weight.shape[1], dots)
    return out, dots if weight_RBC.shape[2] == dots.shape[2] else dots.sum(dim=2, keepdim=True)


def pull_normalized(
    grads: Sequence[Tensor],
    weight_RC: Tensor,
    source: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    extra: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of a source that is normalised before it is weighed, sum(g_j n) and sum(g_j), R C.

    Reads each gradient and extra once, source again from a cache. The gradient has the layout of the source;
    beside it, channels last of 16 bits need a second map for the time.
    """
    some("gradients", grads)
    form, R = form_of(source), len(grads)
    C = form.shape[1]
    job = Job(form, R)
    weight = matrix("the weight", weight_RC, R, form)
    mean, rstd = vector("the mean", mean_C, C, form), vector("1 / deviation", rstd_C, C, form)
    out, dots, sums = new_map(source, form), torch.empty_like(weight), torch.empty_like(weight)
    job.add_written("the gradient", out)
    job.add("the source", source)
    job.add("extra", extra)
    rest = torch.empty_like(out) if form.last and form.dtype.itemsize == 2 else None
    job.add("what does not fit the gradient", rest)
    job.add_all("a gradient", grads)
    job.run("weighted_sum", "pull_normalized", weight, mean, rstd, dots, sums)
    return out, dots, sums
