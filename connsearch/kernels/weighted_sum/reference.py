"""Weighted sums of sources and the gradients of their sources, in plain PyTorch, slow on purpose.

Shapes: L sources, R readers of one source, B C H W maps; a weight is L (B or 1) (C or 1): one for each
source, for each source and channel, or for each source and image. Sums are float32, of float64 maps float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.norm_act.reference import accumulated, norm_act_train


def weighted_sum(sources: Sequence[Tensor], weight_LBC: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """Return sum_i w_i h_i + b: B C H W, in the sources' dtype.

    Reads L maps and an accumulator L times, writes it L times. The kernel must move L + 1 maps.
    """
    total = torch.zeros_like(accumulated(sources[0]))
    for w_BC, h_BCHW in zip(weight_LBC, sources, strict=True):
        total = total + accumulated(w_BC)[:, :, None, None] * accumulated(h_BCHW)
    if bias_C is not None:
        total = total + accumulated(bias_C)[:, None, None]
    return total.to(sources[0].dtype)


def weighted_sum_norm_act(
    sources: Sequence[Tensor],
    weight_LBC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x = sum_i w_i h_i + b, y = act(BN(x)) with the statistics of x, and these: mean C, variance C.

    The kernel must read L maps and write two.
    """
    x = weighted_sum(sources, weight_LBC, bias_C)
    return x, *norm_act_train(x, norm_weight_C, norm_bias_C, eps, act)


def pull(
    grads: Sequence[Tensor], weight_RBC: Tensor, source: Tensor, extra: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of a source, and those of the weights by which R readers weigh it.

    With g_j the gradient of what reader j computes: extra + sum_j w_j g_j, B C H W, and sum(g_j h) over the
    axes where the weight is 1 and over pixels, R (B or 1) (C or 1). The kernel must read R + 1 maps (and
    extra) and write one.
    """
    total = torch.zeros_like(accumulated(source)) if extra is None else accumulated(extra)
    summed = [axis for axis in (0, 1) if weight_RBC.shape[axis + 1] == 1] + [2, 3]
    dots = []
    for w_BC, g_BCHW in zip(weight_RBC, grads, strict=True):
        total = total + accumulated(w_BC)[:, :, None, None] * accumulated(g_BCHW)
        dot = (accumulated(g_BCHW) * accumulated(source)).sum(dim=summed, keepdim=True)
        dots.append(dot[:, :, 0, 0])
    return total.to(source.dtype), torch.stack(dots)


def pull_normalized(
    grads: Sequence[Tensor],
    weight_RC: Tensor,
    source: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    extra: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of a source that R readers weigh after normalising it by its own statistics.

    Reader j computes ... + w_j n + b_j with n = (h - mean) rstd. Returned are the gradient B C H W of h
    (through mean and rstd, which are those of the batch, too; `extra` is added), of w_j: sum(g_j n), R C,
    and of b_j: sum(g_j), R C. The kernel must read R + 1 maps (and extra) and write one.
    """
    count = source.numel() // source.shape[1]
    mean, rstd = accumulated(mean_C)[:, None, None], accumulated(rstd_C)[:, None, None]
    n_BCHW = (accumulated(source) - mean) * rstd
    dots = torch.stack([(accumulated(g) * n_BCHW).sum(dim=(0, 2, 3)) for g in grads])
    sums = torch.stack([accumulated(g).sum(dim=(0, 2, 3)) for g in grads])
    weight_RC = accumulated(weight_RC)
    total = torch.zeros_like(n_BCHW)
    for w_C, g_BCHW in zip(weight_RC, grads, strict=True):
        total = total + w_C[:, None, None] * accumulated(g_BCHW)
    constant, slope = (weight_RC * sums).sum(0) / count, (weight_RC * dots).sum(0) / count
    total = rstd * (total - constant[:, None, None] - slope[:, None, None] * n_BCHW)
    if extra is not None:
        total = total + accumulated(extra)
    return total.to(source.dtype), dots, sums
