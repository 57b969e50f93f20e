"""Convolutions with constant weights, packed beforehand where torch can, activation included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.kernels.convolve import cpu as kernel
from connsearch.kernels.convolve.reference import Before
from connsearch.kernels.dispatch import choose
from connsearch.nn.folding import Affine, Run, folded
from connsearch.spec.ops import Shape

PACKED_OP = "_convolution_pointwise"  # of torch.ops.mkldnn: a convolution of oneDNN and what follows it
PACK = "mkldnn_reorder_conv2d_weight"  # of torch._C._nn


def conv_run(conv: nn.Conv2d, then: Affine | None, act: str, shape: Shape) -> Run:
    """Return act(a conv(x) + b) as a function of x.

    Args:
        conv: The convolution.
        then: The a and b that follow it, or None.
        act: The activation that follows: "none" or "relu".
        shape: The shape of one image of x.
    """
    weight, bias = folded(conv, then)
    if (
        conv.stride == (1, 1)
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and _compiled(conv, [shape.channels])
    ):
        if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
            return _pointwise_run(None, weight, bias, act)
        if conv.kernel_size == (3, 3) and conv.padding == (1, 1):
            packed = kernel.pack_3x3(weight)
            return lambda x: kernel.conv3x3(x, packed, bias, act)
    if packs(weight.device.type, weight.dtype):
        return _packed_run(conv, weight, bias, act, shape)
    return _plain_run(conv, weight, bias, act)


def joined_run(
    before: Before, conv: nn.Conv2d, then: Affine | None, act: str, channels: Sequence[int]
) -> Run | None:
    """Return act(a conv(before(sources)) + b) as a function of the sources, None if no kernel does that.

    Args:
        before: What is done to the sources.
        conv: A 1x1 convolution.
        then: The a and b that follow it, or None.
        act: The activation that follows.
        channels: Of each source.
    """
    return _pointwise_run(before, *folded(conv, then), act) if _compiled(conv, channels) else None


def _compiled(conv: nn.Conv2d, channels: Sequence[int]) -> bool:
    """Return whether this package's kernels compute on what a convolution's weights are."""
    device, dtype = conv.weight.device.type, conv.weight.dtype
    if device != "cpu" or dtype != torch.float32 or choose(device, dtype).backend != "cpu":
        return False
    return kernel.fits(channels, conv.out_channels)


def _pointwise_run(before: Before | None, weight: Tensor, bias: Tensor | None, act: str) -> Run:
    packed = kernel.pack_pointwise(weight[:, :, 0, 0])
    return lambda *sources: kernel.pointwise(sources, before, packed, bias, act)


@cache
def packs(device: str, dtype: torch.dtype) -> bool:
    """Return whether torch can pack weights of a type for oneDNN, and run them.

    >>> packs("meta", torch.float32)
    False
    """
    if device != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch has no types there
        return False
    if not hasattr(torch.ops.mkldnn, PACKED_OP) or not hasattr(torch._C._nn, PACK):
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
    packed = getattr(torch._C._nn, PACK)(weight.to_mkldnn(), padding, stride, dilation, groups, sizes)

    def run(x: Tensor) -> Tensor:
        found: Tensor = convolve(x, packed, bias, padding, stride, dilation, groups, act, [], "")
        return found

    return run
