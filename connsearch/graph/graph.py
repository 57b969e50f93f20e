"""ConnectivityGraph: a whole network as a directed acyclic graph of its stem, units, joins, heads and others.

The value is a tuple of nodes in topological order and, per node, the ascending indices of the nodes it
reads; it checks itself once and never changes. `to_networkx` gives a `networkx.DiGraph`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import metrics
from connsearch.graph.canonical import canonical_digest
from connsearch.graph.node import Node, ascend, check_names, wrong_sources

if TYPE_CHECKING:
    import networkx as nx

EdgeKind = Literal["chain", "skip", "resolution", "output"]


@dataclass(frozen=True)
class ConnectivityGraph:
    """An immutable, hashable connectivity graph.

    A graph without heads is a fragment, as one block is: its one sink is its output.

    Attributes:
        nodes: All nodes in topological order.
        sources: For each node, the ascending indices of the nodes it reads.

    Raises:
        SpecError: if a name repeats, an edge repeats or points forward, a node cannot be reached from a
            stem, or no output needs it.
    """

    nodes: tuple[Node, ...]
    sources: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.nodes or len(self.nodes) != len(self.sources):
            raise SpecError(
                f"a graph needs nodes and sources of each, got {len(self.nodes)}, {len(self.sources)}"
            )
        check_names([node.name for node in self.nodes])
        for index, (node, sources) in enumerate(zip(self.nodes, self.sources, strict=True)):
            if (node.kind == "stem") is bool(sources) or not ascend(sources, index):
                raise SpecError(wrong_sources(index, node, sources, self.nodes))
        self._check_needed()

    def _check_needed(self) -> None:
        read = set().union(*self.sources)
        kinds = [node.kind for node in self.nodes]
        outputs = {i for i, kind in enumerate(kinds) if kind == "head"} or {len(kinds) - 1}
        for index in outputs & read:
            raise SpecError(f"{self.nodes[index].name!r} is a head, but {self._a_reader(index)!r} reads it")
        for index in sorted(set(range(len(kinds))) - outputs - read):
            raise SpecError(f"no output needs node {self.nodes[index].name!r}: connect it or remove it")

    def _a_reader(self, index: int) -> str:
        return next(self.nodes[j].name for j, sources in enumerate(self.sources) if index in sources)

    # ---- construction ------------------------------------------------------------------------------

    @classmethod
    def of_checked(
        cls,
        nodes: tuple[Node, ...],
        sources: tuple[tuple[int, ...], ...],
        released: tuple[tuple[int, ...], ...],
    ) -> ConnectivityGraph:
        """Return the graph of parts that are known to fit, as blocks of checked topologies are."""
        graph = object.__new__(cls)
        graph.__dict__.update(nodes=nodes, sources=sources, released=released)
        return graph

    @classmethod
    def from_topology(cls, topology: object, n_layers: int, *, head: bool = False) -> ConnectivityGraph:
        """Return one block: the block input as `stem`, then `n_layers` units wired by a topology.

        Args:
            topology: A registered name, a label such as "sparse(base=3)", or a table.
            n_layers: Number of units, at least 1.
            head: Add a head that reads what one more layer would.

        >>> graph = ConnectivityGraph.from_topology("log_dense", n_layers=12)
        >>> graph.n_edges, graph.max_backprop_distance()
        (37, 3)
        """
        from connsearch.graph.build import block_graph

        return block_graph(topology, n_layers, head=head)

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[object, object]]) -> ConnectivityGraph:
        """Return the graph of `(source, target)` pairs; kinds are inferred as in `from_networkx`.

        Raises:
            SpecError: if a pair repeats, or as `from_networkx`.
        """
        from connsearch.graph.convert import from_edges

        return from_edges(edges)

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[Any]) -> ConnectivityGraph:
        """Return the value of a user's own directed graph; node names become strings.

        Node attributes `kind`, `block`, `scale`, `path`, `part` are optional. Without kinds, the one node
        without predecessors is the stem, the one without successors the head, all others are units;
        without scales, a transition and a carry are one further than what they read.

        Raises:
            SpecError: if the graph has a cycle, parallel edges, an unknown attribute, or is not a
                network (see the class).
        """
        from connsearch.graph.convert import from_networkx

        return from_networkx(graph)

    @classmethod
    def from_json(cls, text: str) -> ConnectivityGraph:
        """Read networkx node-link JSON, as `to_json` writes it."""
        from connsearch.graph.convert import from_json

        return from_json(text)

    @classmethod
    def from_graphml(cls, text: str) -> ConnectivityGraph:
        """Read GraphML, as `to_graphml` and many graph editors write it."""
        from connsearch.graph.convert import from_graphml

        return from_graphml(text)

    def to_networkx(self) -> nx.DiGraph[Any]:
        """Return a fresh `networkx.DiGraph`: nodes have `kind, block, scale, path` and perhaps `part`."""
        from connsearch.graph.convert import to_networkx

        return to_networkx(self)

    def to_json(self) -> str:
        """Return networkx node-link JSON."""
        from connsearch.graph.convert import to_json

        return to_json(self)

    def to_graphml(self) -> str:
        """Return GraphML."""
        from connsearch.graph.convert import to_graphml

        return to_graphml(self)

    # ---- reading -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def n_edges(self) -> int:
        """Number of connections."""
        return sum(map(len, self.sources))

    def edges(self) -> Iterator[tuple[int, int]]:
        """Yield `(source, target)` index pairs, by target, then by source."""
        for target, sources in enumerate(self.sources):
            for source in sources:
                yield source, target

    def index(self, name: str) -> int:
        """Return the position of a node.

        Raises:
            SpecError: if there is no such node.
        """
        try:
            return self._index[name]
        except KeyError:
            raise SpecError(f"no node {name!r}. {did_you_mean(name, self._index)}") from None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the ascending indices of the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for source, target in self.edges():
            found[source].append(target)
        return tuple(map(tuple, found))

    @cached_property
    def released(self) -> tuple[tuple[int, ...], ...]:
        """For each node, those of its sources that no later node reads."""
        return last_uses(self.sources)

    def in_degrees(self) -> dict[str, int]:
        """Return how many nodes each node reads."""
        return {node.name: len(s) for node, s in zip(self.nodes, self.sources, strict=True)}

    def edge_kind(self, source: int, target: int) -> EdgeKind:
        """Return what an edge is for.

        `output`: into a head. `resolution`: into a transition or a carry. Otherwise `chain` from the
        latest node a unit reads, when that is the latest of its block and path so far, and `skip` from
        any older one.
        """
        reader = self.nodes[target]
        if reader.kind == "head":
            return "output"
        if reader.kind in ("transition", "carry"):
            return "resolution"
        return "chain" if source == self._previous[target] else "skip"

    @cached_property
    def _previous(self) -> tuple[int, ...]:
        """For each node, the latest earlier node of its block and path that is no carry; -1 if none."""
        latest: dict[tuple[int, int], int] = {}
        found = []
        for index, node in enumerate(self.nodes):
            found.append(latest.get((node.block, node.path), -1))
            if node.kind != "carry":
                latest[node.block, node.path] = index
        return tuple(found)

    # ---- metrics -----------------------------------------------------------------------------------

    def max_backprop_distance(self) -> int:
        """Return the greatest, over pairs (node, ancestor), of the fewest connections between them.

        Source: Log-DenseNet, arXiv 1711.00002, section 3.
        """
        return max(self._distances, default=0)

    def mean_backprop_distance(self) -> float:
        """Return the mean, over pairs (node, ancestor), of the fewest connections between them."""
        n_pairs = sum(self._distances.values())
        return sum(d * n for d, n in self._distances.items()) / n_pairs if n_pairs else 0.0

    @cached_property
    def _distances(self) -> dict[int, int]:
        return metrics.distance_histogram(self.sources)

    def canonical_hash(self, labels: Sequence[object] | None = None, *, ordered: Sequence[bool] = ()) -> str:
        """Return 64 hexadecimal digits that are equal for the same network written twice.

        Names, paths, parts and the order of nodes do not matter; kinds, blocks, scales and edges do.

        Args:
            labels: One per node, what else must agree; by default kind, block and scale.
            ordered: Per node, whether the order of its sources matters; by default of none.
        """
        labels = labels or [(node.kind, node.block, node.scale) for node in self.nodes]
        return canonical_digest([repr(label) for label in labels], self.sources, self.readers, ordered)

    def __repr__(self) -> str:
        return f"ConnectivityGraph({len(self)} nodes, {self.n_edges} edges)"

    def __str__(self) -> str:
        """Return a line per node, what it reads by name."""
        width = max(len(node.name) for node in self.nodes)
        lines = [
            f"{node.name:<{width}}  {node.kind:<10}  {self._reads(sources) or 'image'}"
            for node, sources in zip(self.nodes, self.sources, strict=True)
        ]
        return "\n".join([repr(self), *lines])

    def _reads(self, sources: tuple[int, ...]) -> str:
        """Return the names of sources, three and more in a row as `first .. last`."""
        words: list[str] = []
        for _, run in groupby(enumerate(sources), key=lambda item: item[1] - item[0]):
            names = [self.nodes[source].name for _, source in run]
            words += [f"{names[0]} .. {names[-1]}"] if len(names) > 2 else names
        return ", ".join(words)


def last_uses(users: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return, for each of several users of things, the things that it is the last to use, ascending."""
    last = {thing: user for user, things in enumerate(users) for thing in things}
    found: list[list[int]] = [[] for _ in users]
    for thing in sorted(last):
        found[last[thing]].append(thing)
    return tuple(map(tuple, found))
