"""Registries of stems, units, transitions, heads and other lines: functions that return operations in a row.

Each takes the channels it reads and the width it is asked for; keyword-only arguments are the
parameters that a specification can set. What a unit gives out depends on its width alone, never on
what it reads, so that all layers of a block agree. Channels may be symbols (see `cost.symbolic`):
combine them with `+` and `*` only.

The entries are in `units` (units), `ends` (stems, transitions, heads) and `lines` (what parts of a given
graph are made of besides units: shortcuts, joins, slices, changes of resolution).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.ops import (
    ACTIVATIONS,
    NORMS,
    OPERATIONS,
    Act,
    Chain,
    Conv,
    DepthwiseConv,
    Norm,
)

ChainRule = Callable[..., Chain]

STEMS: Registry[ChainRule] = Registry("stem")
UNITS: Registry[ChainRule] = Registry("unit")
TRANSITIONS: Registry[ChainRule] = Registry("transition")
HEADS: Registry[ChainRule] = Registry("head")
LINES: Registry[ChainRule] = Registry("line")


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
    if not isinstance(ops, tuple) or not OPERATIONS.issuperset(map(type, ops)):
        raise SpecError(f"{registry.kind} {ref.label!r} must return a tuple of operations, got {ops!r}")
    if not ops and registry is not LINES:
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
    odd(kernel)
    for channels in (in_channels, out_channels):
        if groups < 1 or (isinstance(channels, int) and channels % groups):
            raise SpecError(f"{channels} channels do not divide into {groups} groups: change width or groups")
    return Conv(in_channels, out_channels, kernel, groups=groups)


def odd(kernel: int) -> None:
    """Check that a kernel has a middle.

    Raises:
        SpecError: if it is even or below 1.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise SpecError(f"kernel must be odd and at least 1, got {kernel}")


def positive(**params: int) -> None:
    """Check that parameters are at least 1.

    Raises:
        SpecError: naming one that is not.
    """
    for name, value in params.items():
        if value < 1:
            raise SpecError(f"{name} must be at least 1, got {value}")


def ordered(in_channels: int, out_channels: int, conv: Conv, norm: str, activation: str, order: str) -> Chain:
    """Return norm-act-conv (order = pre) or conv-norm-act (order = post).

    Raises:
        SpecError: if the order, the norm or the activation is unknown.
    """
    if order == "pre":
        return (*norm_act(in_channels, norm, activation), conv)
    if order == "post":
        return (conv, *norm_act(out_channels, norm, activation))
    raise SpecError(f"unknown order {order!r}. {did_you_mean(order, ('pre', 'post'))}")
