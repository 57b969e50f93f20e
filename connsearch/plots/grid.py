"""Where the nodes and edges of a graph lie on several lines; numbers only, nothing is drawn.

A graph that comes back to a higher resolution stands on a line for each scale: its encoder falls, its decoder
rises, and what one reads of the other runs between them, a U. A feature that is carried to another scale
stays in its column. A graph with parallel paths stands on a line for each path. The unit of x is the distance
between two neighbouring layers, the unit of y the distance between two lines; the first line is at y = 0.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from connsearch.graph import ConnectivityGraph
from connsearch.graph.graph import EdgeKind
from connsearch.plots.layout import BLOCK_GAP, MARGIN

Point = tuple[float, float]
Cell = tuple[float, int]  # x and line

_TOP = 0.6  # of the highest arc over its line
_HALF_SCALES, _HALF_PATHS = 9.0, 3.0  # distance over which an arc rises half as high


@dataclass(frozen=True)
class Link:
    """An edge as drawn.

    Attributes:
        source: Index of the node it leaves.
        target: Index of the node it enters.
        kind: What the edge is for, as in `ConnectivityGraph.edge_kind`.
        points: Ends of a straight line (2), or ends and inner control points of cubic curves in a row
            (4, 7, ...).
    """

    source: int
    target: int
    kind: EdgeKind
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Box:
    """The layers of one block on one line."""

    block: int
    scale: int
    left: float
    right: float
    y: float


@dataclass(frozen=True)
class GridLayout:
    """Positions of nodes, links and boxes.

    Attributes:
        xs: Position of each node.
        ys: Position of each node, 0 or below.
        links: One per edge, the longest first, so that short ones are drawn over them.
        boxes: In the order of the graph; none if the lines are paths.
        scales: Scale of each line; empty if the lines are paths.
    """

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    links: tuple[Link, ...]
    boxes: tuple[Box, ...]
    scales: tuple[int, ...]

    @property
    def left(self) -> float:
        """Left end of the picture."""
        return min(self.xs) - MARGIN

    @property
    def right(self) -> float:
        """Right end of the picture."""
        return max(self.xs) + MARGIN


def rises(graph: ConnectivityGraph) -> bool:
    """Return whether something is carried to a higher resolution."""
    return any(graph.nodes[t].scale < graph.nodes[s].scale for s, t in graph.edges())


def has_lines(graph: ConnectivityGraph) -> bool:
    """Return whether a graph is laid out on several lines."""
    return rises(graph) or any(node.path for node in graph.nodes)


def grid_layout(graph: ConnectivityGraph) -> GridLayout:
    """Return a graph on a line for each scale, or for each path where no feature rises.

    >>> from connsearch.graph import Node
    >>> nodes = [Node("stem", "stem"), Node("a", scale=1), Node("b"), Node("head", "head")]
    >>> layout = grid_layout(ConnectivityGraph(tuple(nodes), ((), (0,), (0, 1), (2,))))
    >>> layout.xs, layout.ys
    ((0.0, 1.0, 2.0, 3.0), (0.0, -1.0, 0.0, 0.0))
    """
    falls_and_rises = rises(graph)
    keys = [node.scale if falls_and_rises else node.path for node in graph.nodes]
    known = sorted(set(keys))
    lines = [known.index(key) for key in keys]
    xs = _columns(graph, lines) if falls_and_rises else _ranks(graph, lines)
    ys = tuple(float(-line) for line in lines)
    route = _Routes(xs, lines, flowing=not falls_and_rises)
    links = [Link(s, t, graph.edge_kind(s, t), route(s, t)) for s, t in graph.edges()]
    links.sort(key=lambda link: (xs[link.source] - xs[link.target], link.source))
    if falls_and_rises:
        return GridLayout(xs, ys, tuple(links), tuple(_boxes(graph, xs, ys)), tuple(known))
    return GridLayout(xs, ys, tuple(links), (), ())


# ---- nodes ---------------------------------------------------------------------------------------------


def _columns(graph: ConnectivityGraph, lines: list[int]) -> tuple[float, ...]:
    """Return a column of its own for each node, but for features that are only taken to another line."""
    xs: list[float] = []
    taken: set[Cell] = set()
    last, block = -1.0, 1
    for node, sources, line in zip(graph.nodes, graph.sources, lines, strict=True):
        if len(sources) == 1 and node.kind == "carry" and (xs[sources[0]], line) not in taken:
            x = xs[sources[0]]
        else:
            x = last = last + 1 + (BLOCK_GAP if node.block != block else 0.0)
            block = node.block
        xs.append(x)
        taken.add((x, line))
    return tuple(xs)


def _ranks(graph: ConnectivityGraph, lines: list[int]) -> tuple[float, ...]:
    """Return for each node a column right of all that it reads and of all before it on its line."""
    xs: list[float] = []
    last: dict[int, float] = {}
    start, block = 0.0, 1
    for node, sources, line in zip(graph.nodes, graph.sources, lines, strict=True):
        if node.block != block:
            start, block = max(xs) + 1 + BLOCK_GAP, node.block
        x = max([start, last.get(line, -1.0) + 1, *(xs[source] + 1 for source in sources)])
        last[line] = x
        xs.append(x)
    return tuple(xs)


def _boxes(graph: ConnectivityGraph, xs: tuple[float, ...], ys: tuple[float, ...]) -> Iterator[Box]:
    """Yield a box per run of one block on one line that has layers, carried features apart."""
    main = [i for i, node in enumerate(graph.nodes) if node.kind != "carry"]
    for (block, y), run in groupby(main, key=lambda i: (graph.nodes[i].block, ys[i])):
        members = list(run)
        if any(graph.nodes[i].kind in ("stem", "unit") for i in members):
            at = [xs[i] for i in members]
            yield Box(block, graph.nodes[members[0]].scale, min(at) - 0.6, max(at) + 0.6, y)


# ---- edges ---------------------------------------------------------------------------------------------


def arc_top(span: float, half: float) -> float:
    """Return how high an arc rises over its line, never up to the next one; half as high at span `half`."""
    return _TOP * span / (span + half)


class _Routes:
    """Paths of edges: straight where nothing is in the way, over the line where something is."""

    def __init__(self, xs: tuple[float, ...], lines: list[int], *, flowing: bool) -> None:
        self.xs, self.lines, self.flowing = xs, lines, flowing
        self.taken: dict[int, list[float]] = {}
        for x, line in sorted(zip(xs, lines, strict=True)):
            self.taken.setdefault(line, []).append(x)

    def __call__(self, source: int, target: int) -> tuple[Point, ...]:
        """Return the points of the link from source to target."""
        x0, x1 = self.xs[source], self.xs[target]
        line0, line1 = self.lines[source], self.lines[target]
        start, end = (x0, float(-line0)), (x1, float(-line1))
        if line0 == line1:
            if self._free(line0, x0, x1):
                return start, end
            lift = 4 / 3 * arc_top(x1 - x0, _HALF_PATHS if self.flowing else _HALF_SCALES)
            return start, (x0, start[1] + lift), (x1, end[1] + lift), end
        if x0 == x1:
            return start, end
        if self.flowing:
            return self._flow(start, end, line0, line1)
        if line1 > line0:  # down: out to the right, in from above
            return start, (x0 + 0.7 * (x1 - x0), start[1]), (x1, start[1]), end
        middle = (start[1] + end[1]) / 2
        return start, (x0, middle), (x1, middle), end

    def _flow(self, start: Point, end: Point, line0: int, line1: int) -> tuple[Point, ...]:
        """Return a curve to another line: along a free line as far as it goes, then across within a step."""
        (x0, y0), (x1, y1) = start, end
        if self._free(line0, x0, x1):
            x0 = x1 - 1
        elif self._free(line1, x0, x1):
            x1 = x0 + 1
        half = (x0 + x1) / 2
        curve = ((x0, y0), (half, y0), (half, y1), (x1, y1))
        if x0 > start[0]:
            return (start, start, curve[0], *curve)
        return (*curve, curve[3], end, end) if x1 < end[0] else curve

    def _free(self, line: int, x0: float, x1: float) -> bool:
        """Return whether no node stands on a line strictly between two positions."""
        taken = self.taken[line]
        return bisect_right(taken, x0) >= bisect_left(taken, x1)
