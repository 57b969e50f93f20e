"""Units: what a layer computes. Each keeps the resolution, unless it is asked for a stride."""

from __future__ import annotations

from connsearch.spec.chains import (
    grouped,
    norm_act,
    ordered,
    positive,
    register_unit,
)
from connsearch.spec.ops import (
    Chain,
    Conv,
    DepthwiseConv,
)


@register_unit("basic")
def basic(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    expansion: int = 1,
    groups: int = 1,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-kxk (w), norm-act-kxk (expansion w): the pre-activation basic unit of ResNet-v2."""
    positive(expansion=expansion)
    return (
        *norm_act(in_channels, norm, activation),
        grouped(in_channels, width, kernel, 1),
        *norm_act(width, norm, activation),
        grouped(width, width * expansion, kernel, groups),
    )


@register_unit("bottleneck")
def bottleneck(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    expansion: int = 2,
    groups: int = 1,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-1x1 (w), norm-act-kxk (w), norm-act-1x1 (expansion w): ResNet-v2, DelugeNet."""
    positive(expansion=expansion)
    return (
        *norm_act(in_channels, norm, activation),
        grouped(in_channels, width, 1, 1),
        *norm_act(width, norm, activation),
        grouped(width, width, kernel, groups),
        *norm_act(width, norm, activation),
        grouped(width, width * expansion, 1, 1),
    )


@register_unit("dense_bottleneck")
def dense_bottleneck(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    inner: int = 4,
    groups: int = 1,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-1x1 (inner w), norm-act-kxk (w): the unit of DenseNet-B; the width is the growth rate."""
    positive(inner=inner)
    return (
        *norm_act(in_channels, norm, activation),
        grouped(in_channels, width * inner, 1, 1),
        *norm_act(width * inner, norm, activation),
        grouped(width * inner, width, kernel, groups),
    )


@register_unit("conv")
def conv(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    expansion: int = 1,
    groups: int = 1,
    activation: str = "relu",
    norm: str = "batch",
    order: str = "pre",
) -> Chain:
    """norm-act-kxk (order = pre: DenseNet's plain unit) or kxk-norm-act (order = post)."""
    positive(expansion=expansion)
    out_channels = width * expansion
    middle = grouped(in_channels, out_channels, kernel, groups)
    return ordered(in_channels, out_channels, middle, norm, activation, order)


@register_unit("separable")
def separable(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    expansion: int = 1,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-depthwise kxk, 1x1 (expansion w): the depthwise-separable convolution, pre-activation."""
    positive(expansion=expansion)
    grouped(1, 1, kernel, 1)  # checks the kernel
    return (
        *norm_act(in_channels, norm, activation),
        DepthwiseConv(in_channels, kernel),
        Conv(in_channels, width * expansion, 1),
    )
