"""1x1 convolution of the normalised and activated concatenation, in plain PyTorch, slow on purpose.

Shapes: N sources B C_i H W, together K channels; O outputs. The normalised map, a = act(scale
[h_1, ..., h_N] + shift), has the sources' dtype, as has the weight that multiplies it; products are summed
in float32, of float64 maps float64. act: "none" or "relu".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.concat_norm_act.reference import concat_norm_act, concat_norm_act_backward
from connsearch.kernels.norm_act.reference import accumulated


def norm_act_conv(
    sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str, weight_OK: Tensor
) -> Tensor:
    """Return y[o] = sum_k w[o, k] a[k]: B O H W, in the sources' dtype.

    Writes a, of K channels, and reads it again. The kernel must read each source once and write y.
    """
    a = concat_norm_act(sources, scale_K, shift_K, act)
    return torch.einsum("bkhw,ok->bohw", accumulated(a), accumulated(weight_OK.to(a.dtype))).to(a.dtype)


def norm_act_conv_backward(
    grad_y: Tensor,
    sources: Sequence[Tensor],
    mean_K: Tensor,
    rstd_K: Tensor,
    norm_weight_K: Tensor,
    norm_bias_K: Tensor,
    act: str,
    weight_OK: Tensor,
    sinks: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Add to the gradients of the sources; return gradients of norm weight K, norm bias K and weight O K.

    As `concat_norm_act_backward`, what reaches sources by way of the statistics is left to `add_affine`. a is
    computed again. The kernels must read grad_y and sources twice, sinks once, and write the sinks once.
    """
    scale_K = accumulated(norm_weight_K) * accumulated(rstd_K)
    shift_K = accumulated(norm_bias_K) - accumulated(mean_K) * scale_K
    a = concat_norm_act(sources, scale_K, shift_K, act)
    grad_a = torch.einsum("bohw,ok->bkhw", accumulated(grad_y), accumulated(weight_OK.to(a.dtype)))
    grad_weight = torch.einsum("bohw,bkhw->ok", accumulated(grad_y), accumulated(a))
    params = (mean_K, rstd_K, norm_weight_K, norm_bias_K)
    dots_K, sums_K = concat_norm_act_backward(grad_a, sources, *params, act, sinks)
    return dots_K, sums_K, grad_weight
