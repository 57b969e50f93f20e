"""Lines of parts: what nodes of a given graph compute that are no units, such as shortcuts and joins."""

from __future__ import annotations

from connsearch.errors import SpecError, did_you_mean
from connsearch.spec.chains import (
    LINES,
    grouped,
    norm_act,
    odd,
    ordered,
    positive,
)
from connsearch.spec.ends import pool_transition
from connsearch.spec.ops import (
    Chain,
    Conv,
    Deconv,
    Pool,
    Position,
    Slice,
    Subsample,
    Upsample,
)


@LINES.register("identity")
def identity(in_channels: int, width: int) -> Chain:
    """Nothing: the node gives out the aggregation of its sources, two at least; a stem, the image."""
    return ()


@LINES.register("norm_act")
def norm_act_line(in_channels: int, width: int, *, activation: str = "relu", norm: str = "batch") -> Chain:
    """norm - act: a pre-activation that several nodes read, or with norm = none what follows a sum."""
    return norm_act(in_channels, norm, activation)


@LINES.register("projection")
def projection(
    in_channels: int,
    width: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    extra: int = 0,
    activation: str = "none",
    norm: str = "none",
    order: str = "post",
) -> Chain:
    """kxk / stride - [norm - act] (order = post), or [norm - act] - kxk / stride (order = pre).

    It gives out `extra` channels beside the width.
    """
    positive(stride=stride)
    if extra < 0:
        raise SpecError(f"extra must be at least 0, got {extra}")
    out_channels = width + extra
    middle = grouped(in_channels, out_channels, kernel, 1)._replace(stride=stride)
    return ordered(in_channels, out_channels, middle, norm, activation, order)


LINES.register("transition")(pool_transition)


@LINES.register("zero_pad")
def zero_pad(in_channels: int, width: int, *, stride: int = 2) -> Chain:
    """Every stride-th pixel and channels of zeros: ResNet's shortcut of option A."""
    positive(stride=stride)
    if isinstance(in_channels, int) and isinstance(width, int) and width < in_channels:
        raise SpecError(f"zero_pad adds channels: cannot make {width} of {in_channels}")
    return (Subsample(in_channels, width, stride),)


@LINES.register("slice")
def slice_channels(
    in_channels: int, width: int, *, start: int = 0, stop: int = 1, in_widths: bool = False
) -> Chain:
    """The channels start .. stop - 1; a negative number counts from the end, stop = 0 is the end.

    in_widths: start and stop count multiples of the width, in place of channels.
    """
    step = width if in_widths else 1
    first = start * step if start >= 0 else in_channels - -start * step
    last = stop * step if stop > 0 else in_channels - -stop * step
    if isinstance(in_channels, int) and not 0 <= first < last <= in_channels:
        raise SpecError(f"no channels {first} .. {last} of {in_channels}")
    return (Slice(first, last),)


@LINES.register("pool")
def pool(
    in_channels: int, width: int, *, kind: str = "max", kernel: int = 2, stride: int = 2, padding: int = 0
) -> Chain:
    """The maximum or average over windows of kernel x kernel pixels."""
    positive(kernel=kernel, stride=stride)
    if kind not in ("max", "avg"):
        raise SpecError(f"unknown pool {kind!r}. {did_you_mean(kind, ('max', 'avg'))}")
    if not 0 <= padding <= kernel // 2:
        raise SpecError(f"padding must lie between 0 and half the kernel, {kernel // 2}, got {padding}")
    return (Pool(kind, kernel, stride, padding),)


@LINES.register("upsample")
def upsample(in_channels: int, width: int, *, scale: int = 2, kind: str = "bilinear") -> Chain:
    """Maps scale times as large, without weights."""
    positive(scale=scale)
    if kind not in ("bilinear", "nearest"):
        raise SpecError(f"unknown upsample {kind!r}. {did_you_mean(kind, ('bilinear', 'nearest'))}")
    return (Upsample(kind, scale),)


@LINES.register("deconv")
def deconv(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    stride: int = 2,
    keep: bool = False,
    bias: bool = False,
    activation: str = "none",
    norm: str = "none",
) -> Chain:
    """[norm - act] - transposed kxk, stride times as large; keep: as many channels as it reads."""
    odd(kernel)
    positive(stride=stride)
    if kernel < stride:
        raise SpecError(f"kernel must be at least the stride, {stride}, or holes are left; got {kernel}")
    out = in_channels if keep else width
    return (*norm_act(in_channels, norm, activation), Deconv(in_channels, out, kernel, stride, bias))


@LINES.register("patches")
def patches(in_channels: int, width: int, *, size: int = 4, rows: int = 8, columns: int = 8) -> Chain:
    """size x size / size with a bias, then a learned position for each of rows x columns patches."""
    positive(size=size, rows=rows, columns=columns)
    cut = Conv(in_channels, width, size, stride=size, bias=True, padding=0)
    return (cut, Position(width, rows, columns))
