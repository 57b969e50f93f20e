"""A network as a page draws it: where nodes and edges lie, what each of them costs; plain numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from connsearch.cost import edge_costs, node_costs
from connsearch.cost.connections import connections
from connsearch.graph import ConnectivityGraph
from connsearch.plots.grid import grid_layout, has_lines
from connsearch.plots.layout import MARGIN, arc_layout
from connsearch.plots.style import TIMES
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.plan import NetworkPlan
from connsearch.spec.resolve import resolve

_DIGITS = 3  # after the point, of positions in layers


@dataclass(frozen=True)
class Drawn:
    """A network as plain data.

    Attributes:
        layout: `nodes` (name, kind, x, y each), `edges` (source, target, kind, then how high the arc rises
            over the line, or the points of a straight line or of cubic curves), `grounds` (left, right, y,
            text), `lines` (y, text) of several scales, and the ends in layers. Networks of equal
            connectivity have equal ones.
        nodes: Of each node macs, params, shape of its output in words. The edges into it count.
        edges: Of each edge macs, params and bytes read, as `connsearch.cost.connections` says.
    """

    layout: dict[str, Any]
    nodes: list[list[Any]]
    edges: list[list[int]]

    @property
    def size(self) -> int:
        """How many nodes and edges it has."""
        return len(self.nodes) + len(self.edges)


def draw(spec: NetworkSpec) -> Drawn:
    """Return a network as plain data.

    Raises:
        SpecError: if the specification describes no network.
    """
    plan = resolve(spec)
    known = {(c.source, c.target): [c.macs, c.params, c.bytes_read] for c in connections(spec)}
    names = [node.name for node in plan.graph.nodes]
    layout = _lines(plan) if has_lines(plan.graph) else _arcs(plan)
    return Drawn(layout, _node_rows(spec, plan), [known[names[s], names[t]] for s, t, *_ in layout["edges"]])


def _node_rows(spec: NetworkSpec, plan: NetworkPlan) -> list[list[Any]]:
    costs = node_costs(spec)
    for (_, target), cost in edge_costs(spec).items():
        costs[target] = costs[target] + cost
    return [
        [costs[node.node.name].macs, costs[node.node.name].params, _shape(node.out_shape)]
        for node in plan.nodes
    ]


def _shape(shape: Shape) -> str:
    """Return channels, height and width in words."""
    if (shape.height, shape.width) == (1, 1):
        return str(shape.channels)
    return TIMES.join(map(str, shape))


# ---- positions -----------------------------------------------------------------------------------------


def _arcs(plan: NetworkPlan) -> dict[str, Any]:
    """Return nodes on one line, edges as arcs over and under it."""
    graph, found = plan.graph, arc_layout(plan.graph)
    edges = sorted((arc.source, arc.target, arc.kind, round(arc.height, _DIGITS)) for arc in found.arcs)
    grounds = [
        [_round(band.left), _round(band.right), 0, _ground(band.block, plan.sizes().get(band.scale))]
        for band in found.bands
    ]
    return {
        "nodes": _nodes(graph, found.xs, [0.0] * len(found.xs)),
        "edges": [list(edge) for edge in edges],
        "grounds": grounds,
        "lines": [],
        "left": _round(found.left),
        "right": _round(found.right),
    }


def _lines(plan: NetworkPlan) -> dict[str, Any]:
    """Return nodes on a line for each scale or path."""
    graph, found, sizes = plan.graph, grid_layout(plan.graph), plan.sizes()
    edges = sorted((link.source, link.target, link.kind, link.points) for link in found.links)
    return {
        "nodes": _nodes(graph, found.xs, found.ys),
        "edges": [[s, t, kind, [[_round(x), _round(y)] for x, y in points]] for s, t, kind, points in edges],
        "grounds": [[_round(b.left), _round(b.right), b.y, _ground(b.block, None)] for b in found.boxes],
        "lines": [[-line, _size(sizes.get(scale))] for line, scale in enumerate(found.scales)],
        "left": _round(found.left + MARGIN - 1.0),
        "right": _round(found.right),
    }


def _nodes(graph: ConnectivityGraph, xs: Sequence[float], ys: Sequence[float]) -> list[list[Any]]:
    return [[n.name, n.kind, _round(x), _round(y)] for n, x, y in zip(graph.nodes, xs, ys, strict=True)]


def _ground(block: int, size: tuple[int, int] | None) -> str:
    return f"block {block}" + (f" · {_size(size)}" if size else "")


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}{TIMES}{size[1]}" if size else ""


def _round(value: float) -> float:
    return round(value, _DIGITS)
