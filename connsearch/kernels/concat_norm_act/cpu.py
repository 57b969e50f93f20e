"""Batch normalisation of several sources at once, compiled for the CPU. The contract is in `reference.py`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.maps import Form, Job, act_code, form_of, new_map, some, vector


def concat_norm_act(sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str) -> Tensor:
    """Return act(scale [h_1, ..., h_N] + shift), B K H W. Reads each source once."""
    form = form_of(some("sources", sources))
    widths = array("q", [h.shape[1] for h in sources])
    K = sum(widths)
    scale, shift = vector("the scale", scale_K, K, form), vector("the shift", shift_K, K, form)
    y = new_map(sources[0], form, K)
    job = Job(form, len(sources), K)
    job.add_written("the outcome", y, K)
    for source, width in zip(sources, widths, strict=True):
        job.add("a source", source, width)
    job.run("concat_norm_act", "concat_norm_act", widths.buffer_info()[0], scale, shift, act_code(act))
    return y


def concat_norm_act_backward(
    grad_y: Tensor,
    sources: Sequence[Tensor],
    mean_K: Tensor,
    rstd_K: Tensor,
    weight_K: Tensor,
    bias_K: Tensor,
    act: str,
    sinks: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Add this reader's share to the gradients of its sources; return gradients of weight K and bias K.

    Reads grad_y, sources and sinks once, writes the sinks once.
    """
    form = form_of(some("sources", sources))
    if len(sinks) != len(sources):
        raise KernelError(f"{len(sources)} sources need as many sinks, got {len(sinks)}")
    widths = array("q", [h.shape[1] for h in sources])
    K = sum(widths)
    params = _params(form, K, mean_K, rstd_K, weight_K, bias_K)
    grad_weight, grad_bias = torch.empty(2, K, dtype=form.sums)
    job = Job(form, len(sources), K)
    job.add("the gradient", grad_y, K)
    for source, width in zip(sources, widths, strict=True):
        job.add("a source", source, width)
    for sink, width in zip(sinks, widths, strict=True):
        job.add_written("a sink", sink, width)
    function, code = "concat_norm_act_backward", act_code(act)
    job.run("concat_norm_act", function, widths.buffer_info()[0], *params, code, grad_weight, grad_bias)
    return grad_weight, grad_bias


def _params(form: Form, K: int, *vectors: Tensor) -> list[Tensor]:
    names = ("the mean", "1 / deviation", "the weight", "the bias")
    return [vector(name, t, K, form) for name, t in zip(names, vectors, strict=True)]


def add_affine(sink: Tensor, source: Tensor, slope_C: Tensor, shift_C: Tensor) -> None:
    """Do sink += slope source + shift, B C H W, in place. Reads two maps, writes one."""
    form = form_of(sink)
    C = form.shape[1]
    slope, shift = vector("the slope", slope_C, C, form), vector("the shift", shift_C, C, form)
    job = Job(form, 1)
    job.add_written("the sink", sink)
    job.add("the source", source)
    job.run("concat_norm_act", "add_affine", slope, shift)
