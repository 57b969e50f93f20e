"""1x1 convolution of the normalised and activated concatenation on the CPU: a kernel, then torch.

Torch's products of matrices are as fast as any there; what is saved is the concatenation before the norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from connsearch.kernels.concat_norm_act.cpu import concat_norm_act, concat_norm_act_backward
from connsearch.kernels.norm_act.reference import accumulated


def norm_act_conv(
    sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str, weight_OK: Tensor
) -> Tensor:
    """Return y[o] = sum_k w[o, k] act(scale h + shift)[k]: B O H W."""
    a = concat_norm_act(sources, scale_K, shift_K, act)
    return conv2d(a, weight_OK.to(a.dtype)[:, :, None, None])


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
    """Add to the gradients of the sources; return gradients of norm weight K, norm bias K and weight O K."""
    scale_K = accumulated(norm_weight_K) * accumulated(rstd_K)
    shift_K = accumulated(norm_bias_K) - accumulated(mean_K) * scale_K
    a = concat_norm_act(sources, scale_K, shift_K, act)
    filters = weight_OK.to(a.dtype)[:, :, None, None]
    grad_a, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_y, a, filters, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    params = (mean_K, rstd_K, norm_weight_K, norm_bias_K)
    dots_K, sums_K = concat_norm_act_backward(grad_a, sources, *params, act, sinks)
    return dots_K, sums_K, accumulated(grad_weight[:, :, 0, 0])
