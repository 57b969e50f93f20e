"""Where the nodes and edges of a graph lie in an arc diagram; numbers only, nothing is drawn.

Nodes stand on a horizontal line in topological order. An edge is a half arc from x to x, as high as the
distance it spans asks for: above the line where features are read, below it where they change resolution.
The unit of length is the distance between two neighbouring layers. Graphs with more than one line, because
they have parallel paths or come back to a higher resolution, are laid out in `connsearch.plots.grid`.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.graph import EdgeKind

CARRY_STEP = 0.5
BLOCK_GAP = 0.7
MARGIN = 0.75


@dataclass(frozen=True)
class Arc:
    """An edge as drawn.

    Attributes:
        source: Index of the node it leaves.
        target: Index of the node it enters.
        kind: What the edge is for, as in `ConnectivityGraph.edge_kind`.
        left: Position of the source.
        right: Position of the target.
        height: Of its top over the line; negative below it, 0 for a straight line.
    """

    source: int
    target: int
    kind: EdgeKind
    left: float
    right: float
    height: float


@dataclass(frozen=True)
class Band:
    """A stretch of nodes of one block, drawn as background."""

    block: int
    scale: int
    left: float
    right: float


@dataclass(frozen=True)
class ArcLayout:
    """Positions of nodes, arcs and bands.

    Attributes:
        xs: Position of each node; ascending, the first is 0.
        arcs: One per edge, the longest first, so that short ones are drawn over them.
        bands: From left to right, without gaps.
    """

    xs: tuple[float, ...]
    arcs: tuple[Arc, ...]
    bands: tuple[Band, ...]

    @property
    def left(self) -> float:
        """Left end of the background."""
        return self.bands[0].left

    @property
    def right(self) -> float:
        """Right end of the background."""
        return self.bands[-1].right

    @property
    def above(self) -> float:
        """Height of the highest arc above the line, 0 if there is none."""
        return max([0.0, *(arc.height for arc in self.arcs)])

    @property
    def below(self) -> float:
        """Depth of the deepest arc below the line, 0 if there is none."""
        return max([0.0, *(-arc.height for arc in self.arcs)])

    def rows(self, most: float) -> list[tuple[float, float]]:
        """Return left and right ends of stretches that are not much longer than `most`, from left to right.

        Blocks that are longer are cut into equal parts between two nodes; what still fits shares the
        stretch before it.
        """
        ends = [self.left]
        for band in self.bands:
            width = band.right - band.left
            n_parts = math.ceil(width / most)
            ends += [self._between(band.left + width * part / n_parts) for part in range(1, n_parts)]
            ends.append(band.right)
        found: list[tuple[float, float]] = []
        for left, right in pairwise(ends):
            if found and right - found[-1][0] <= most:
                found[-1] = (found[-1][0], right)
            else:
                found.append((left, right))
        return found

    def _between(self, x: float) -> float:
        """Return the middle of the two nodes around a position."""
        after = bisect(self.xs, x)
        return (self.xs[after - 1] + self.xs[after]) / 2


def arc_layout(graph: ConnectivityGraph) -> ArcLayout:
    """Return the arc diagram of a graph as numbers.

    >>> layout = arc_layout(ConnectivityGraph.from_topology("dense", 3))
    >>> layout.xs
    (0.0, 1.0, 2.0, 3.0)
    >>> [(arc.source, arc.target, arc.height > 0) for arc in layout.arcs][:2]
    [(0, 3, True), (0, 2, True)]
    """
    xs = tuple(_positions(graph.nodes))
    arcs = [_arc(graph, xs, source, target) for source, target in graph.edges()]
    arcs.sort(key=lambda arc: (arc.left - arc.right, arc.source))
    return ArcLayout(xs, tuple(arcs), tuple(_bands(graph.nodes, xs)))


def arc_height(span: float) -> float:
    """Return how high an arc rises: less than in proportion, so that long arcs leave room for short ones."""
    return 0.6 * math.pow(span, 0.75)


def _arc(graph: ConnectivityGraph, xs: Sequence[float], source: int, target: int) -> Arc:
    kind = graph.edge_kind(source, target)
    height = arc_height(xs[target] - xs[source])
    if kind == "resolution":
        height = -height
    elif kind == "chain" and target == source + 1:
        height = 0.0
    return Arc(source, target, kind, xs[source], xs[target], height)


def _positions(nodes: Sequence[Node]) -> Iterator[float]:
    x = 0.0
    yield x
    for before, node in pairwise(nodes):
        x += CARRY_STEP if before.kind == node.kind == "carry" else 1.0
        x += BLOCK_GAP if before.block != node.block else 0.0
        yield x


def _bands(nodes: Sequence[Node], xs: Sequence[float]) -> Iterator[Band]:
    """Yield a band per run of one block; neighbours meet half-way between their nodes."""
    left, first = -MARGIN, 0
    for block, run in groupby(nodes, key=lambda node: node.block):
        members = list(run)
        last = first + len(members) - 1
        right = (xs[last] + xs[last + 1]) / 2 if last + 1 < len(xs) else xs[last] + MARGIN
        yield Band(block, max(node.scale for node in members), left, right)
        left, first = right, last + 1
