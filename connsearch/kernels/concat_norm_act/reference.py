"""Batch normalisation and activation of a concatenation that is never made, in plain PyTorch.

Shapes: N sources B C_i H W, together K = sum of C_i channels, in the order of the sources. Statistics of
a source do not depend on its readers: they are given. act: "none" or "relu".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.norm_act.reference import accumulated, let_through, norm_act


def concat_norm_act(sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str) -> Tensor:
    """Return act(scale [h_1, ..., h_N] + shift): B K H W, in the sources' dtype.

    The kernel must read each source once and write each channel once.
    """
    return norm_act(torch.cat(list(sources), dim=1), scale_K, shift_K, act)


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

    With n = (h - mean) rstd and m = grad_y where act lets through: sink_i += weight rstd m, and sum(m n),
    sum(m). What reaches h by way of the statistics is left to `add_affine`, once for all readers. The
    kernel must read grad_y, sources and sinks once and write the sinks once.
    """
    rstd, weight, bias = (accumulated(t)[:, None, None] for t in (rstd_K, weight_K, bias_K))
    n_BKHW = (accumulated(torch.cat(list(sources), dim=1)) - accumulated(mean_K)[:, None, None]) * rstd
    grad = accumulated(grad_y)
    if act == "relu":
        grad = let_through(grad, n_BKHW * weight + bias)
    shares = torch.split(grad * weight * rstd, [h.shape[1] for h in sources], dim=1)
    for sink, share in zip(sinks, shares, strict=True):
        sink.add_(share)
    return (grad * n_BKHW).sum(dim=(0, 2, 3)), grad.sum(dim=(0, 2, 3))


def add_affine(sink: Tensor, source: Tensor, slope_C: Tensor, shift_C: Tensor) -> None:
    """Do sink += slope source + shift, B C H W, in place. The kernel must read two maps and write one."""
    share = accumulated(slope_C)[:, None, None] * accumulated(source) + accumulated(shift_C)[:, None, None]
    sink.add_(share)
