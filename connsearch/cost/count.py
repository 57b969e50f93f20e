"""Counting: what each operation, aggregation and node of a plan costs, for one image.

Everything is written with `+`, `*` and exact `//` only, so that channels may be symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import mul
from typing import NamedTuple

from connsearch.cost.symbolic import Poly, total
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Owned, rule_of
from connsearch.spec.ops import (
    Act,
    Attention,
    Conv,
    Deconv,
    DepthwiseConv,
    Linear,
    Norm,
    Op,
    Position,
    Shape,
    output_shape,
)
from connsearch.spec.plan import Line, NetworkPlan, NodePlan


class Tally(NamedTuple):
    """Sums of the additive quantities, in the order of the fields of `Cost`."""

    params: int = 0
    conv_macs: int = 0
    linear_macs: int = 0
    aggregation_macs: int = 0
    norm_elements: int = 0
    source_elements: int = 0
    add_elements: int = 0


@entry_cache
def line_tally(line: Line) -> Tally:
    """Return what a line of operations costs."""
    tallies, shape = [], line.in_shape
    for op in line.chain:
        after = output_shape(op, shape)
        counted = _count_op(op, shape, after)
        if counted is not None:
            tallies.append(counted)
        shape = after
    return add_tallies(tallies)


def _count_op(op: Op, before: Shape, after: Shape) -> Tally | None:
    """Return what an operation costs, or None for one that costs nothing."""
    if isinstance(op, Act):
        return None
    pixels = after.height * after.width
    if isinstance(op, Norm):
        return Tally(2 * op.channels, norm_elements=before.size)
    if isinstance(op, Conv):
        weights = op.in_channels * op.out_channels * (op.kernel * op.kernel) // op.groups
        return Tally(weights + (op.out_channels if op.bias else 0), weights * pixels)
    if isinstance(op, Deconv):  # every input pixel is weighted into k x k output pixels
        weights = op.in_channels * op.out_channels * (op.kernel * op.kernel)
        inputs = before.height * before.width
        return Tally(weights + (op.out_channels if op.bias else 0), weights * inputs)
    if isinstance(op, DepthwiseConv):
        weights = op.channels * (op.kernel * op.kernel)
        return Tally(weights, weights * pixels)
    if isinstance(op, Linear):
        weights = op.in_features * op.out_features
        return Tally(weights + op.out_features, linear_macs=weights)
    if isinstance(op, Position):
        return Tally(before.size, add_elements=before.size)
    if isinstance(op, Attention):  # two products over channels or pixels for each pair of pixels
        return Tally(linear_macs=2 * op.channels * (pixels * pixels))
    return None


def add_tallies(tallies: Iterable[Tally], counts: Sequence[int] = ()) -> Tally:
    """Return the sum; if counts are given, of so many of each."""
    tallies = list(tallies)
    if not tallies:
        return Tally()
    columns = zip(*tallies, strict=True)
    if isinstance(tallies[0].params, Poly):
        return Tally(*[total(column, counts) for column in columns])
    return Tally(*[sum(map(mul, column, counts) if counts else column) for column in columns])


def _tally(owned: Owned) -> Tally:
    return Tally(
        params=owned.params,
        conv_macs=owned.conv_macs,
        aggregation_macs=owned.source_macs,
        source_elements=owned.source_macs,
        add_elements=owned.adds,
    )


@entry_cache
def edge_tally(ref: Ref, first: bool, channels: int, pixels: int) -> Tally:
    """Return what an edge with a weight owns; `first`: the one from the oldest source."""
    rule = rule_of(ref)
    return _tally((rule.first_edge if first else rule.edge)(channels, pixels))


def edge_tallies(plan: NodePlan) -> list[Tally]:
    """Return what each edge into a node owns, oldest source first."""
    ref, pixels = plan.aggregation, plan.in_shape.height * plan.in_shape.width
    if ref is None:
        return [Tally()] * len(plan.sources)
    edges = [edge_tally(ref, i == 0, channels, pixels) for i, channels in enumerate(plan.source_channels)]
    if None in plan.slots:  # a source that gives this reader everything has no weight
        edges = [Tally() if slot is None else edge for slot, edge in zip(plan.slots, edges, strict=True)]
    return edges


@entry_cache
def join_tally(ref: Ref, n: int, channels: int, pixels: int) -> Tally:
    """Return what an aggregation of n sources owns apart from its edges; `channels` are its output's."""
    return _tally(rule_of(ref).node(n, channels, pixels))


def node_tallies(plan: NodePlan) -> list[Tally]:
    """Return what a node owns in parts: operations, gates, its aggregation apart from the edges."""
    parts = [line_tally(plan.line)]
    if plan.gate_line is not None:
        parts.append(line_tally(plan.gate_line))
    if plan.aggregation is not None:
        parts.append(_join(plan))
    return parts


def _join(plan: NodePlan) -> Tally:
    """Return what a node's aggregation owns apart from its edges."""
    assert plan.aggregation is not None
    shape = plan.in_shape
    return join_tally(plan.aggregation, len(plan.sources), shape.channels, shape.height * shape.width)


def network_tally(plan: NetworkPlan) -> Tally:
    """Return the sum over all nodes and edges."""
    parts = plan.per_line(line_tally)
    for node in plan.nodes:
        if node.gate_line is not None:
            parts.append(line_tally(node.gate_line))
        if node.slots and None in node.slots:
            parts += [_join(node), *edge_tallies(node)]
        elif node.aggregation is not None:
            parts.append(_join_and_edges(node.aggregation, node.source_channels, node.line.in_shape))
    return add_tallies(parts)


@entry_cache
def _join_and_edges(ref: Ref, source_channels: tuple[int, ...], shape: Shape) -> Tally:
    """Return what an aggregation owns with all its edges, where each has its weight."""
    pixels = shape.height * shape.width
    edges = [edge_tally(ref, i == 0, channels, pixels) for i, channels in enumerate(source_channels)]
    return add_tallies([join_tally(ref, len(edges), shape.channels, pixels), *edges])
