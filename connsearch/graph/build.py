"""Graphs of whole networks: node by node, block by block, or with one rule over the whole depth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph.graph import ConnectivityGraph, last_uses
from connsearch.graph.node import Node, NodeKind
from connsearch.graph.topologies import predecessors


class GraphBuilder:
    """Collects nodes one by one, each with the names of those it reads, and gives the checked graph.

    >>> builder = GraphBuilder()
    >>> _ = builder.add("stem", "stem")
    >>> _ = builder.add("a", reads=["stem"])
    >>> _ = builder.add("head", "head", reads=["stem", "a"])
    >>> builder.graph().n_edges
    3
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._sources: list[tuple[int, ...]] = []
        self._index: dict[str, int] = {}

    def add(
        self,
        name: str,
        kind: NodeKind = "unit",
        *,
        reads: Iterable[str] = (),
        block: int = 1,
        scale: int = 0,
        path: int = 0,
        part: str = "",
    ) -> str:
        """Add a node after all those that it reads, and return its name.

        Raises:
            SpecError: if it reads a node that was not added before, or a value is wrong.
        """
        return self.add_node(Node(name, kind, block, scale, path, part), reads)

    def add_node(self, node: Node, reads: Iterable[str]) -> str:
        """Add a node that is there already; raises as `add`."""
        sources = list(reads)
        unknown = [source for source in sources if source not in self._index]
        if unknown:
            raise SpecError(
                f"node {node.name!r} reads {unknown[0]!r}, which is not there yet. "
                f"{did_you_mean(unknown[0], self._index)}"
            )
        self._index[node.name] = len(self._nodes)
        self._nodes.append(node)
        self._sources.append(tuple(sorted(self._index[source] for source in sources)))
        return node.name

    def graph(self) -> ConnectivityGraph:
        """Return the graph of all nodes added so far.

        Raises:
            SpecError: if they are no network (see `ConnectivityGraph`).
        """
        return ConnectivityGraph(tuple(self._nodes), tuple(self._sources))


def block_graph(topology: object, n_layers: int, *, head: bool) -> ConnectivityGraph:
    """Return a block input, its layers and, if asked, a head one layer further."""
    rule = predecessors(topology, n_layers)
    nodes = [Node("stem", "stem"), *(Node(f"layer{i}") for i in range(1, n_layers + 1))]
    if head:
        nodes.append(Node("head", "head"))
    return ConnectivityGraph(tuple(nodes), ((), *rule[: len(nodes) - 1]))


def graph_of_blocks(blocks: Sequence[tuple[object, int, bool]]) -> ConnectivityGraph:
    """Return stem, blocks joined by transitions, head; each block is wired by its own rule.

    A block's node 0 is the stem or the transition into it; the next transition, or the head, reads
    what one more layer of the block would.

    Args:
        blocks: For each block, its topology, its number of layers, and whether the first layer is the
            block's node 0 instead, as in DelugeNet's block 1.

    Raises:
        SpecError: if a block has no layer left that its topology could wire.
    """
    nodes = [_node("stem", "stem", 1, 0)]
    sources: list[tuple[int, ...]] = [()]
    released: list[tuple[int, ...]] = [()]
    for number, (topology, n_layers, entry_unit) in enumerate(blocks, start=1):
        if entry_unit:
            sources.append((len(nodes) - 1,))
            released.append(sources[-1])
        rule, first = predecessors(topology, n_layers - entry_unit), len(nodes) - 1 + entry_unit
        sources += _shifted(rule, first)
        released += _shifted(_released(rule), first)
        nodes += _layers(number, n_layers)
        if number < len(blocks):
            nodes.append(_node(f"transition{number}", "transition", number + 1, number))
    nodes.append(_node("head", "head", len(blocks), len(blocks) - 1))
    return ConnectivityGraph.of_checked(tuple(nodes), tuple(sources), tuple(released))


_node = lru_cache(maxsize=1024)(Node)


_released = lru_cache(maxsize=4096)(last_uses)


@lru_cache(maxsize=4096)
def _shifted(rule: tuple[tuple[int, ...], ...], first: int) -> tuple[tuple[int, ...], ...]:
    """Return positions in a block as positions in the network, where the block's node 0 is `first`."""
    return tuple(tuple(first + i for i in reads) for reads in rule)


@lru_cache(maxsize=1024)
def _layers(block: int, n_layers: int) -> tuple[Node, ...]:
    return tuple(Node(f"block{block}.layer{i}", "unit", block, block - 1) for i in range(1, n_layers + 1))


def graph_across_blocks(topology: object, depths: Sequence[int]) -> ConnectivityGraph:
    """Return stem, layers at falling resolution, head; one rule is read over the whole depth.

    A layer that is read at a later scale is carried there, once for each change of scale, by a carry
    node that all its readers share (Log-DenseNet V1, arXiv 1711.00002).

    Args:
        topology: The rule; its node 0 is the stem, its last node the head.
        depths: Number of layers at each scale.
    """
    return graph_of_rule(predecessors(topology, sum(depths)), depths)


def graph_of_rule(
    rule: Sequence[Sequence[int]],
    depths: Sequence[int],
    *,
    scales: Sequence[int] = (),
    up: str = "",
    newest: str = "",
    anew: Collection[int] = (),
    skip: str = "",
) -> ConnectivityGraph:
    """Return stem, layers, head, wired by one rule over the whole depth, each block at its own scale.

    A feature that is read at another scale is carried there, one scale at a time; where an earlier block
    of that scale already held it, it is read as it was there (FC-Log-DenseNet, arXiv 1711.00002).

    Args:
        rule: For each layer and, last, the head, the positions that it reads: 0 is the stem, 1.. are layers.
        depths: Number of layers of each block.
        scales: Scale of each block, one step from the one before; by default 0, 1, 2, ...
        up: Part of the carries to a finer scale.
        newest: Carry every feature at every change of scale, read or not; every layer must read the one
            before. What ends unread in a block is joined there with the newest feature, for a graph has no
            loose ends; this part takes the newest one, the last channels, out again.
        anew: Blocks, from 0, into which a feature is carried also from an earlier block of their scale.
        skip: Part of the carries that do so.
    """
    scales = tuple(scales) or tuple(range(len(depths)))
    return _Across(rule, depths, scales, _Parts(up, newest, skip), frozenset(anew)).graph()


class _Parts(NamedTuple):
    """Parts of the carries to a finer scale, of joins that take out the newest feature, of carries across."""

    up: str
    newest: str
    skip: str


class _Across:
    """The graph of `graph_of_rule`, block by block."""

    def __init__(
        self,
        rule: Sequence[Sequence[int]],
        depths: Sequence[int],
        scales: tuple[int, ...],
        parts: _Parts,
        anew: frozenset[int],
    ) -> None:
        self.rule, self.depths, self.scales, self.parts = rule, depths, scales, parts
        block_of = [b for b, depth in enumerate(depths) for _ in range(depth)]
        self.way = _Way(scales, (0, *block_of, len(depths) - 1), anew)
        self.read = self.way.carried(rule)
        self.carried = self.way.all_carried() if parts.newest else self.read
        self.builder = GraphBuilder()
        self.held: dict[tuple[int, int], str] = {}  # (position, block that first had it so) -> node

    def graph(self) -> ConnectivityGraph:
        """Return stem, then each block's carries and layers, then the head."""
        self.held[0, 0] = self._add("stem", "stem", 0, [])
        position = 1
        for block, depth in enumerate(self.depths):
            self._add_carries(block, position - 1)
            for inside in range(1, depth + 1):
                name = f"block{block + 1}.layer{inside}"
                self.held[position, block] = self._add(name, "unit", block, self._reads(position, block))
                position += 1
        last = len(self.depths) - 1
        self._add("head", "head", last, self._reads(position, last))
        return self.builder.graph()

    def _add(self, name: str, kind: NodeKind, block: int, reads: Sequence[str], part: str = "") -> str:
        return self.builder.add(name, kind, reads=reads, block=block + 1, scale=self.scales[block], part=part)

    def _reads(self, position: int, block: int) -> list[str]:
        return [self.held[old, self.way.holder(old, block)] for old in self.rule[position - 1]]

    def _add_carries(self, block: int, before: int) -> None:
        """Add a block's carries; `before` is the position of the newest feature."""
        loose = []
        for old in sorted(old for old, into in self.carried if into == block):
            name = f"block{block + 1}.carry_{_word(self.held[old, self.way.block_of[old]])}"
            origin = self.way.origin(old, block)
            source = self.held[old, origin]
            self.held[old, block] = self._add(name, "carry", block, [source], self._part(origin, block))
            if (old, block) not in self.read and not self.way.goes_on(old, block, self.carried):
                loose.append(self.held[old, block])
        if loose:
            joined = self._add(f"block{block + 1}.carried", "join", block, [*loose, self.held[before, block]])
            self.held[before, block] = self.builder.add(
                f"block{block + 1}.newest",
                "join",
                reads=[joined],
                block=self.way.block_of[before] + 1,  # whose width it has
                scale=self.scales[block],
                part=self.parts.newest,
            )

    def _part(self, origin: int, block: int) -> str:
        """Return the part of a carry from one block into another."""
        if self.scales[origin] == self.scales[block]:
            return self.parts.skip
        return self.parts.up if self.scales[origin] > self.scales[block] else ""


@dataclass(frozen=True)
class _Way:
    """How features get from block to block.

    Attributes:
        scales: Scale of each block.
        block_of: Block of each position.
        anew: Blocks that read no copy of an earlier block.
    """

    scales: tuple[int, ...]
    block_of: tuple[int, ...]
    anew: frozenset[int]

    def holder(self, position: int, block: int) -> int:
        """Return the block whose copy of a feature a block reads.

        It is the first, from the feature's own on, that has the scale of `block`, or that block itself.
        """
        return self._holders[self.block_of[position]][block]

    def origin(self, position: int, block: int) -> int:
        """Return the block whose copy of a feature is carried into a block."""
        first = self.scales.index(self.scales[block], self.block_of[position])
        return first if first < block else self.holder(position, block - 1)

    @cached_property
    def _holders(self) -> list[list[int]]:
        n_blocks = len(self.scales)
        return [
            [self._holder(first, b) if b >= first else -1 for b in range(n_blocks)]
            for first in range(n_blocks)
        ]

    def _holder(self, first: int, block: int) -> int:
        return block if block in self.anew else self.scales.index(self.scales[block], first)

    def carried(self, rule: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
        """Return (position, block) of each feature that is carried into a block, read there or later."""
        found: set[tuple[int, int]] = set()
        for reader, reads in enumerate(rule, start=1):
            for old in reads:
                into = self.holder(old, self.block_of[reader])
                while into != self.block_of[old] and (old, into) not in found:
                    found.add((old, into))
                    into = self.origin(old, into)
        return found

    def all_carried(self) -> set[tuple[int, int]]:
        """Return all that can be carried, as (position, block)."""
        return {
            (old, into)
            for old, own in enumerate(self.block_of[:-1])
            for into in range(own + 1, len(self.scales))
            if self.holder(old, into) == into
        }

    def goes_on(self, position: int, block: int, carried: set[tuple[int, int]]) -> bool:
        """Return whether a feature that is carried into a block is carried on from there."""
        later = range(block + 1, len(self.scales))
        return any((position, b) in carried and self.holder(position, b - 1) == block for b in later)


def _word(name: str) -> str:
    return name.replace(".", "_")
