"""Batch normalisation and activation in plain PyTorch, slow on purpose.

Shapes: maps B C H W, C a value for each channel. Statistics and sums are float32, of float64 maps float64;
maps come out in their own dtype. act: "none" or "relu".
"""

from __future__ import annotations

import torch
from torch import Tensor


def accumulated(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that sums are computed in."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def activate(x: Tensor, act: str) -> Tensor:
    """Return max(x, 0), or x."""
    return x.clamp_min(0) if act == "relu" else x


def let_through(grad: Tensor, z: Tensor) -> Tensor:
    """Return the gradient where max(z, 0) lets it through. As in torch, where z is NaN it does."""
    return grad.masked_fill(z <= 0, 0)


def batch_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean C and variance C (divided by the count) of the values of a channel.

    The kernel must read one map, once.
    """
    var_C, mean_C = torch.var_mean(accumulated(x), dim=(0, 2, 3), correction=0)
    return mean_C, var_C


def norm_act(x: Tensor, scale_C: Tensor, shift_C: Tensor, act: str) -> Tensor:
    """Return act(scale x + shift), B C H W. The kernel must read one map and write one."""
    scale, shift = accumulated(scale_C)[:, None, None], accumulated(shift_C)[:, None, None]
    return activate(accumulated(x) * scale + shift, act).to(x.dtype)


def norm_act_train(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y = act((x - mean) / sqrt(var + eps) weight + bias), B C H W, with mean C and variance C of x.

    Reads the map twice. The kernel must read it once, if a channel fits into a cache, and write one.
    """
    mean_C, var_C = batch_stats(x)
    scale_C = accumulated(weight_C) * (var_C + eps).rsqrt()
    centred = accumulated(x) - mean_C[:, None, None]  # first: a mean may be much larger than the spread
    y = centred * scale_C[:, None, None] + accumulated(bias_C)[:, None, None]
    return activate(y, act).to(x.dtype), mean_C, var_C


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B C H W, through the statistics of the batch too), weight C and bias C.

    rstd = 1 / sqrt(var + eps). What `act` let through is computed again from x. The kernel must read two
    maps and write one.
    """
    count = x.numel() // x.shape[1]
    rstd, weight, bias = (accumulated(t)[:, None, None] for t in (rstd_C, weight_C, bias_C))
    n_BCHW = (accumulated(x) - accumulated(mean_C)[:, None, None]) * rstd
    grad = accumulated(grad_y)
    if act == "relu":
        grad = let_through(grad, n_BCHW * weight + bias)
    sums_C, dots_C = grad.sum(dim=(0, 2, 3)), (grad * n_BCHW).sum(dim=(0, 2, 3))
    through = grad - (sums_C[:, None, None] + n_BCHW * dots_C[:, None, None]) / count
    return (rstd * weight * through).to(x.dtype), dots_C, sums_C
