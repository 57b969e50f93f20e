"""Stems, transitions between blocks, and heads."""

from __future__ import annotations

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref
from connsearch.spec.chains import (
    HEADS,
    STEMS,
    TRANSITIONS,
    chain,
    grouped,
    norm_act,
    odd,
    positive,
)
from connsearch.spec.ops import (
    Chain,
    Conv,
    GlobalPool,
    Linear,
    Pool,
)


@STEMS.register("conv")
def conv_stem(
    in_channels: int,
    width: int,
    *,
    kernel: int = 3,
    channels: int = 0,
    bias: bool = False,
    activation: str = "none",
    norm: str = "none",
) -> Chain:
    """kxk - [norm - act], for small images: a bare convolution unless asked for more.

    channels: how many it gives out, in place of the width.
    """
    positive(channels=channels or 1)
    out_channels = channels or width
    first = grouped(in_channels, out_channels, kernel, 1)._replace(bias=bias)
    return (first, *norm_act(out_channels, norm, activation))


@STEMS.register("imagenet")
def imagenet_stem(in_channels: int, width: int, *, expansion: int = 1, activation: str = "relu") -> Chain:
    """7x7 / 2 - norm - act - 3x3 / 2 maximum [- a bare 1x1 (expansion w)]: the stem for large images."""
    positive(expansion=expansion)
    return (
        Conv(in_channels, width, 7, stride=2),
        *norm_act(width, "batch", activation),
        Pool("max", 3, 2, 1),
        *((Conv(width, width * expansion, 1),) if expansion > 1 else ()),
    )


@TRANSITIONS.register("conv")
def conv_transition(
    in_channels: int, width: int, *, kernel: int = 3, activation: str = "none", norm: str = "batch"
) -> Chain:
    """norm - [act] - kxk / 2: DelugeNet's transition (no activation)."""
    odd(kernel)
    return (*norm_act(in_channels, norm, activation), Conv(in_channels, width, kernel, stride=2))


@TRANSITIONS.register("pool")
def pool_transition(
    in_channels: int,
    width: int,
    *,
    kind: str = "avg",
    bias: bool = False,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm - act - 1x1 - 2x2 average or maximum: DenseNet's transition, Log-DenseNet's carry."""
    if kind not in ("avg", "max"):
        raise SpecError(f"unknown pool {kind!r}. {did_you_mean(kind, ('avg', 'max'))}")
    middle = Conv(in_channels, width, 1, bias=bias)
    return (*norm_act(in_channels, norm, activation), middle, Pool(kind))


@HEADS.register("flat")
def flat_head(
    in_channels: int,
    width: int,
    *,
    kernel: int = 2,
    stride: int = 2,
    cells: int = 9,
    activation: str = "relu",
    norm: str = "batch",
) -> Chain:
    """norm - act - kxk / stride average - linear of all that is left, `cells` pixels of each channel.

    The head that SparseNet's published figures for large images need: 7x7 pixels become 3x3.
    """
    positive(kernel=kernel, stride=stride, cells=cells)
    pool = Pool("avg", kernel, stride)
    return (*norm_act(in_channels, norm, activation), pool, Linear(in_channels * cells, width))


@HEADS.register("pixels")
def pixel_head(in_channels: int, width: int, *, activation: str = "relu", norm: str = "batch") -> Chain:
    """norm - act - 1x1 with a bias: the logits of each pixel, for dense prediction."""
    return (*norm_act(in_channels, norm, activation), Conv(in_channels, width, 1, bias=True))


@HEADS.register("pool")
def pool_head(in_channels: int, width: int, *, activation: str = "relu", norm: str = "batch") -> Chain:
    """norm - act - mean over all pixels - linear."""
    return (*norm_act(in_channels, norm, activation), GlobalPool(), Linear(in_channels, width))


def predicts_pixels(head: Ref) -> bool:
    """Return whether a head gives out logits for each pixel, not for each image.

    >>> predicts_pixels(HEADS.ref("pixels")), predicts_pixels(HEADS.ref("pool"))
    (True, False)
    """
    return not any(isinstance(op, GlobalPool | Linear) for op in chain(HEADS, head, 1, 1))
