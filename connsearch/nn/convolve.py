"""Convolutions with constant weights, as fast as the device has them: packed beforehand, activation included."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.nn.folding import Affine, Run, folded
from connsearch.spec.ops import Shape

PACKED_OP = "_convolution_pointwise"  # of torch.ops.mkldnn: a convolution of oneDNN and what follows it


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is a convolution that nothing is added to."""
    return (
        type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def conv_run(conv: nn.Conv2d, then: Affine | None, act: str, shape: Shape) -> Run:
    """Return act(a conv(x) + b) as a function of x.

    Args:
        conv: The convolution.
        then: The a and b that follow it, or None.
        act: The activation that follows: "none" or "relu".
        shape: The shape of one image of x.
    """
    weight, bias = folded(conv, then)
    if packs(weight.device.type, weight.dtype):
        return _packed_run(conv, weight, bias, act, shape)
    return _plain_run(conv, weight, bias, act)


@cache
def packs(device: str, dtype: torch.dtype) -> bool:
    """Return whether torch can pack weights of a type for oneDNN, and run them.

    >>> packs("meta", torch.float32)
    False
    """
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, PACKED_OP) or not hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _plain_run(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, act: str) -> Run:
    stride, padding, dilation, groups = conv.stride, conv.padding, conv.dilation, conv.groups
    if weight.dtype != torch.float64:
        weight = weight.contiguous(memory_format=torch.channels_last)

    def run(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    return run if act == "none" else lambda x: run(x).relu_()


def _packed_run(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, act: str, shape: Shape) -> Run:
    assert not isinstance(conv.padding, str)
    padding, stride, dilation = list(conv.padding), list(conv.stride), list(conv.dilation)
    groups, convolve = conv.groups, getattr(torch.ops.mkldnn, PACKED_OP).default
    sizes = [1, *shape]  # the packing that is best for one image is as good for many
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
        weight.to_mkldnn(), padding, stride, dilation, groups, sizes
    )

    def run(x: Tensor) -> Tensor:
        found: Tensor = convolve(x, packed, bias, padding, stride, dilation, groups, act, [], "")
        return found

    return run
