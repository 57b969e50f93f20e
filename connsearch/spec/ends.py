"""Stems, transitions between blocks, and heads."""

from __future__ import annotations

from connsearch.spec.chains import (
    HEADS,
    STEMS,
    TRANSITIONS,
    grouped,
    norm_act,
)
from connsearch.spec.ops import (
    Chain,
    Conv,
    GlobalPool,
    Linear,
    Pool,
)


@STEMS.register("conv")
def conv_stem(in_channels: int, width: int, *, kernel: int = 3) -> Chain:
    """A bare kxk convolution, for small images."""
    return (grouped(in_channels, width, kernel, 1),)


@STEMS.register("imagenet")
def imagenet_stem(in_channels: int, width: int, *, activation: str = "relu") -> Chain:
    """7x7 / 2 - norm - act - 3x3 / 2 maximum: the stem for large images."""
    return (
        Conv(in_channels, width, 7, stride=2),
        *norm_act(width, "batch", activation),
        Pool("max", 3, 2, 1),
    )


@TRANSITIONS.register("conv")
def conv_transition(
    in_channels: int, width: int, *, kernel: int = 3, activation: str = "none", norm: str = "batch"
) -> Chain:
    """norm - [act] - kxk / 2: DelugeNet's transition (no activation)."""
    grouped(1, 1, kernel, 1)  # checks the kernel
    return (*norm_act(in_channels, norm, activation), Conv(in_channels, width, kernel, stride=2))


@TRANSITIONS.register("pool")
def pool_transition(in_channels: int, width: int, *, activation: str = "relu", norm: str = "batch") -> Chain:
    """norm - act - 1x1 - 2x2 average: DenseNet's transition, Log-DenseNet's carry."""
    return (*norm_act(in_channels, norm, activation), Conv(in_channels, width, 1), Pool("avg"))


@HEADS.register("pool")
def pool_head(in_channels: int, width: int, *, activation: str = "relu", norm: str = "batch") -> Chain:
    """norm - act - mean over all pixels - linear."""
    return (*norm_act(in_channels, norm, activation), GlobalPool(), Linear(in_channels, width))
