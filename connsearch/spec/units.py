"""Units: what a layer computes. Each keeps the resolution, unless it is asked for a stride."""

from __future__ import annotations

from connsearch.errors import SpecError, did_you_mean
from connsearch.spec.chains import (
    grouped,
    norm_act,
    odd,
    ordered,
    positive,
    register_unit,
)
from connsearch.spec.ops import (
    Attention,
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
    stride: int = 1,
    preactivated: bool = False,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-kxk / stride (w), norm-act-kxk (expansion w): the pre-activation basic unit of ResNet-v2.

    preactivated: without the first norm-act, for a unit that reads what another node has activated.
    """
    positive(expansion=expansion, stride=stride)
    return (
        *(() if preactivated else norm_act(in_channels, norm, activation)),
        grouped(in_channels, width, kernel, 1)._replace(stride=stride),
        *norm_act(width, norm, activation),
        grouped(width, width * expansion, kernel, groups),
    )


@register_unit("bottleneck")
def bottleneck(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    inner: int = 1,
    expansion: int = 2,
    groups: int = 1,
    stride: int = 1,
    stride_at: str = "middle",
    extra: int = 0,
    preactivated: bool = False,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm-act-1x1 (inner w), norm-act-kxk (inner w), norm-act-1x1 (expansion w): ResNet-v2, DelugeNet.

    extra: channels given out beside those, as dual path networks concatenate them.
    preactivated: without the first norm-act, for a unit that reads what another node has activated.

    Raises:
        SpecError: if a number is too small, channels do not divide into the groups, the kernel is even, or
            `stride_at`, the norm or the activation is unknown.
    """
    if extra < 0:
        raise SpecError(f"extra must be at least 0, got {extra}")
    first, middle, last = _narrow(in_channels, width, kernel, inner, expansion, groups, stride, stride_at)
    last = last._replace(out_channels=width * expansion + extra)
    return (
        *(() if preactivated else norm_act(in_channels, norm, activation)),
        first,
        *norm_act(width * inner, norm, activation),
        middle,
        *norm_act(width * inner, norm, activation),
        last,
    )


@register_unit("post_bottleneck")
def post_bottleneck(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    inner: int = 1,
    expansion: int = 4,
    groups: int = 1,
    stride: int = 1,
    stride_at: str = "middle",
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """1x1-norm-act (inner w), kxk-norm-act (inner w), 1x1-norm (expansion w): ResNet-v1, ResNeXt.

    The activation that follows the sum with the shortcut is the join's.
    """
    first, middle, last = _narrow(in_channels, width, kernel, inner, expansion, groups, stride, stride_at)
    return (
        first,
        *norm_act(width * inner, norm, activation),
        middle,
        *norm_act(width * inner, norm, activation),
        last,
        *norm_act(width * expansion, norm, "none"),
    )


def _narrow(
    in_channels: int,
    width: int,
    kernel: int,
    inner: int,
    expansion: int,
    groups: int,
    stride: int,
    stride_at: str,
) -> tuple[Conv, Conv, Conv]:
    """Return 1x1 (inner w), kxk (inner w), 1x1 (expansion w); the first or the middle one has the stride."""
    positive(inner=inner, expansion=expansion, stride=stride)
    if stride_at not in ("first", "middle"):
        raise SpecError(f"unknown stride_at {stride_at!r}. {did_you_mean(stride_at, ('first', 'middle'))}")
    first = grouped(in_channels, width * inner, 1, 1)
    middle = grouped(width * inner, width * inner, kernel, groups)
    last = grouped(width * inner, width * expansion, 1, 1)
    if stride_at == "first":
        return first._replace(stride=stride), middle, last
    return first, middle._replace(stride=stride), last


@register_unit("post_basic")
def post_basic(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    expansion: int = 1,
    groups: int = 1,
    stride: int = 1,
    norm_inside: bool = True,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """kxk / stride-norm-act (w), kxk-norm (expansion w): the basic unit of ResNet-v1.

    The activation that follows the sum with the shortcut is the join's. norm_inside = false: no norm
    between the convolutions, as in residual networks of exponential linear units.
    """
    positive(expansion=expansion, stride=stride)
    return (
        grouped(in_channels, width, kernel, 1)._replace(stride=stride),
        *norm_act(width, norm if norm_inside else "none", activation),
        grouped(width, width * expansion, kernel, groups),
        *norm_act(width * expansion, norm, "none"),
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
    bias: bool = False,
    activation: str = "relu",
    norm: str = "batch",
    order: str = "pre",
) -> Chain:
    """norm-act-kxk (order = pre: DenseNet's plain unit) or kxk-norm-act (order = post)."""
    positive(expansion=expansion)
    out_channels = width * expansion
    middle = grouped(in_channels, out_channels, kernel, groups)._replace(bias=bias)
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
    odd(kernel)
    return (
        *norm_act(in_channels, norm, activation),
        DepthwiseConv(in_channels, kernel),
        Conv(in_channels, width * expansion, 1),
    )


@register_unit("act_separable")
def act_separable(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    expansion: int = 1,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """act-depthwise kxk / stride, 1x1 (expansion w)-norm: the node of randomly wired networks."""
    positive(stride=stride, expansion=expansion)
    odd(kernel)
    return (
        *norm_act(in_channels, "none", activation),
        DepthwiseConv(in_channels, kernel, stride),
        Conv(in_channels, width * expansion, 1),
        *norm_act(width * expansion, norm, "none"),
    )


@register_unit("attention")
def attention(in_channels: int, width: int, *, heads: int = 1, norm: str = "channel") -> Chain:
    """norm-1x1 (3 w), attention between all pixels, 1x1 (w), with biases: a transformer's first half.

    Raises:
        SpecError: if the width does not divide into the heads, or the norm is unknown.
    """
    positive(heads=heads)
    if isinstance(width, int) and width % heads:
        raise SpecError(f"{width} channels do not divide into {heads} heads: change width or heads")
    return (
        *norm_act(in_channels, norm, "none"),
        Conv(in_channels, 3 * width, 1, bias=True),
        Attention(width, heads),
        Conv(width, width, 1, bias=True),
    )


@register_unit("mlp")
def mlp(
    in_channels: int, width: int, *, inner: int = 4, activation: str = "gelu", norm: str = "channel"
) -> Chain:
    """norm-1x1 (inner w)-act-1x1 (w), with biases: a transformer's second half, pixel by pixel."""
    positive(inner=inner)
    return (
        *norm_act(in_channels, norm, "none"),
        Conv(in_channels, width * inner, 1, bias=True),
        *norm_act(width * inner, "none", activation),
        Conv(width * inner, width, 1, bias=True),
    )
