"""Stems, units, transitions and heads: registered functions that return a straight line of operations.

Each takes the channels it reads and the width it is asked for; keyword-only arguments are the
parameters that a specification can set. What a unit gives out depends on its width alone, never on
what it reads, so that all layers of a block agree. Channels may be symbols (see `cost.symbolic`):
combine them with `+` and `*` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.ops import (
    ACTIVATIONS,
    NORMS,
    Act,
    Chain,
    Conv,
    DepthwiseConv,
    GlobalPool,
    Linear,
    Norm,
    Pool,
)

ChainRule = Callable[..., Chain]

STEMS: Registry[ChainRule] = Registry("stem")
UNITS: Registry[ChainRule] = Registry("unit")
TRANSITIONS: Registry[ChainRule] = Registry("transition")
HEADS: Registry[ChainRule] = Registry("head")


def register_unit(name: str) -> Callable[[ChainRule], ChainRule]:
    """Register `unit(in_channels, width, *, ...) -> tuple of operations`, resolution kept.

    Raises:
        SpecError: if the name is taken.
    """
    return UNITS.register(name)


def list_units() -> list[str]:
    """Return the names of all registered units.

    >>> "bottleneck" in list_units()
    True
    """
    return sorted(UNITS)


def chain(registry: Registry[ChainRule], ref: Ref, in_channels: int, width: int) -> Chain:
    """Return the operations of a registered stem, unit, transition or head.

    Raises:
        SpecError: if a parameter has a value that the entry does not take.
    """
    params: dict[str, Any] = registry.bind(ref)
    ops = registry[ref.name](in_channels, width, **params)
    if not ops:
        raise SpecError(f"{registry.kind} {ref.label!r} has no operation")
    return ops


@entry_cache
def unit_channels(unit: Ref, width: int) -> int:
    """Return how many channels a unit of this width gives out."""
    for op in reversed(chain(UNITS, unit, width, width)):
        if isinstance(op, Conv):
            return op.out_channels
        if isinstance(op, Norm | DepthwiseConv):
            return op.channels
    raise SpecError(f"unit {unit.label!r} has no convolution")


def norm_act(channels: int, norm: str, activation: str) -> Chain:
    """Return a normalisation and an activation.

    Raises:
        SpecError: if one of them is unknown.
    """
    if norm not in NORMS:
        raise SpecError(f"unknown norm {norm!r}. {did_you_mean(norm, NORMS)}")
    if activation not in (*ACTIVATIONS, "none"):
        raise SpecError(
            f"unknown activation {activation!r}. {did_you_mean(activation, (*ACTIVATIONS, 'none'))}"
        )
    first = () if norm == "none" else (Norm(norm, channels),)
    return first + (() if activation == "none" else (Act(activation),))


def grouped(in_channels: int, out_channels: int, kernel: int, groups: int) -> Conv:
    """Return a convolution in groups.

    Raises:
        SpecError: if the kernel is even or the channels do not divide by the groups.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise SpecError(f"kernel must be odd and at least 1, got {kernel}")
    for channels in (in_channels, out_channels):
        if groups < 1 or (isinstance(channels, int) and channels % groups):
            raise SpecError(f"{channels} channels do not divide into {groups} groups: change width or groups")
    return Conv(in_channels, out_channels, kernel, groups=groups)


def _positive(**params: int) -> None:
    for name, value in params.items():
        if value < 1:
            raise SpecError(f"{name} must be at least 1, got {value}")


# ---- units ---------------------------------------------------------------------------------------------


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
    _positive(expansion=expansion)
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
    _positive(expansion=expansion)
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
    _positive(inner=inner)
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
    _positive(expansion=expansion)
    out_channels = width * expansion
    middle = grouped(in_channels, out_channels, kernel, groups)
    if order == "pre":
        return (*norm_act(in_channels, norm, activation), middle)
    if order == "post":
        return (middle, *norm_act(out_channels, norm, activation))
    raise SpecError(f"unknown order {order!r}. {did_you_mean(order, ('pre', 'post'))}")


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
    _positive(expansion=expansion)
    grouped(1, 1, kernel, 1)  # checks the kernel
    return (
        *norm_act(in_channels, norm, activation),
        DepthwiseConv(in_channels, kernel),
        Conv(in_channels, width * expansion, 1),
    )


# ---- stems, transitions, heads -----------------------------------------------------------------------


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
