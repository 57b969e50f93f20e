"""The plan of a network: every node with its sources, shapes and operations.

It is what cost counts and what a network executes. Channels are integers, or symbols when only the shape of a
cost is asked (see `connsearch.cost.model`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.graph import last_uses
from connsearch.registry import Ref
from connsearch.spec.aggregations import rule_of
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.ops import Chain, Shape

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """A straight line of operations at the shape that it reads; nodes alike share the very object."""

    chain: Chain
    in_shape: Shape
    out_shape: Shape

    @cached_property
    def _hash(self) -> int:
        return hash((self.chain, self.in_shape))

    def __hash__(self) -> int:  # worked out once: what a line costs is looked up by it
        return self._hash


class NodePlan(NamedTuple):
    """One node, ready to be counted or built.

    Attributes:
        node: The node of the graph.
        sources: Indices of the nodes it reads, oldest first.
        source_channels: Their channels.
        aggregation: The reference of its aggregation; None with fewer than two sources.
        slots: For a routed aggregation, per source: which of the gates of the node in `gated_by` weights
            it, or None where that node has no other routed reader. Empty otherwise.
        line: Its operations, which read the aggregated input.
        gate_line: Operations from the node's output to its gates, or None.
        drops: Per source, what training does to the edge at random, or None; empty if nothing is done.
        gated_by: For a routed aggregation, per source: the node whose output makes its gate, the source
            itself or what it reads. Empty otherwise.
    """

    node: Node
    sources: tuple[int, ...]
    source_channels: tuple[int, ...]
    aggregation: Ref | None
    slots: tuple[int | None, ...]
    line: Line
    gate_line: Line | None = None
    drops: tuple[EdgeDrop | None, ...] = ()
    gated_by: tuple[int, ...] = ()

    @property
    def chain(self) -> Chain:
        """The operations."""
        return self.line.chain

    @property
    def in_shape(self) -> Shape:
        """What the operations read: the aggregated input."""
        return self.line.in_shape

    @property
    def out_shape(self) -> Shape:
        """What the node gives out."""
        return self.line.out_shape

    @property
    def gates(self) -> Chain:
        """The operations from the node's output to its gates; empty if none."""
        return () if self.gate_line is None else self.gate_line.chain


class NetworkPlan(NamedTuple):
    """All nodes of a network in topological order, and the graph they form."""

    graph: ConnectivityGraph
    image: Shape
    nodes: tuple[NodePlan, ...]

    @property
    def n_layers(self) -> int:
        """Number of units."""
        return [node.kind for node in self.graph.nodes].count("unit")

    @property
    def n_edges(self) -> int:
        """Number of connections."""
        return self.graph.n_edges

    def per_line(self, count: Callable[[Line], T]) -> list[T]:
        """Return what a function makes of each node's operations; asked once for the same object."""
        lines = [node.line for node in self.nodes]
        keys = [*map(id, lines)]
        counted = {key: count(line) for key, line in dict(zip(keys, lines, strict=True)).items()}
        return [counted[key] for key in keys]

    def n_gates(self) -> list[int]:
        """Return how many gates each node computes."""
        return [0 if node.gate_line is None else node.gate_line.out_shape.size for node in self.nodes]

    def released_gates(self) -> tuple[tuple[int, ...], ...]:
        """Return, for each node, the nodes whose gates it is the last to use."""
        if all(node.gate_line is None for node in self.nodes):
            return ((),) * len(self.nodes)
        used: list[Sequence[int]] = [()] * len(self.nodes)
        for index, node in enumerate(self.nodes):
            if node.slots:
                pairs = zip(node.gated_by, node.slots, strict=True)
                used[index] = [owner for owner, slot in pairs if slot is not None]
        return last_uses(used)

    def sizes(self) -> dict[int, tuple[int, int]]:
        """Return height and width of the maps by scale."""
        return {
            n.node.scale: (n.out_shape.height, n.out_shape.width) for n in self.nodes if n.node.kind != "head"
        }

    def canonical_hash(self) -> str:
        """Return hexadecimal digits that are equal for two spellings of one network."""
        last = len(self.nodes) - 1  # of several heads, the network's own
        labels = [
            (n.node.kind, n.aggregation, n.in_shape, n.chain, n.gates, n.drops, index == last)
            for index, n in enumerate(self.nodes)
        ]
        ordered = [n.aggregation is not None and rule_of(n.aggregation).ordered for n in self.nodes]
        return self.graph.canonical_hash([*labels], ordered=ordered)
