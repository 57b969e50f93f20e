"""Graphs of whole networks: node by node, block by block, or with one rule over the whole depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph.graph import ConnectivityGraph, Node, NodeKind
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
        sources = list(reads)
        unknown = [source for source in sources if source not in self._index]
        if unknown:
            raise SpecError(
                f"node {name!r} reads {unknown[0]!r}, which is not there yet. "
                f"{did_you_mean(unknown[0], self._index)}"
            )
        self._index[name] = len(self._nodes)
        self._nodes.append(Node(name, kind, block, scale, path, part))
        self._sources.append(tuple(sorted(self._index[source] for source in sources)))
        return name

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
    for number, (topology, n_layers, entry_unit) in enumerate(blocks, start=1):
        if entry_unit:
            sources.append((len(nodes) - 1,))
        sources += _shifted(predecessors(topology, n_layers - entry_unit), len(nodes) - 1 + entry_unit)
        nodes += _layers(number, n_layers)
        if number < len(blocks):
            nodes.append(_node(f"transition{number}", "transition", number + 1, number))
    nodes.append(_node("head", "head", len(blocks), len(blocks) - 1))
    return ConnectivityGraph.of_checked(tuple(nodes), tuple(sources))


_node = lru_cache(maxsize=1024)(Node)


@lru_cache(maxsize=4096)
def _shifted(rule: tuple[tuple[int, ...], ...], first: int) -> tuple[tuple[int, ...], ...]:
    """Return a block's sources as positions in the network, where the block's node 0 is `first`."""
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
    rule = predecessors(topology, sum(depths))
    block_of = [0, *(b for b, depth in enumerate(depths) for _ in range(depth)), len(depths) - 1]
    nodes = [Node("stem", "stem")]
    sources: list[tuple[int, ...]] = [()]
    at = {(0, 0): 0}  # (position in depth, block) -> index of the node that holds it there
    position = 1
    for block, depth in enumerate(depths):
        last = position + depth + (block == len(depths) - 1)
        for old in _carried(rule, block_of, block):
            nodes.append(
                Node(
                    f"block{block + 1}.carry_{_word(nodes[at[old, block_of[old]]].name)}",
                    "carry",
                    block + 1,
                    block,
                )
            )
            sources.append((at[old, block - 1],))
            at[old, block] = len(nodes) - 1
        for inside, here in enumerate(range(position, last), start=1):
            is_head = here == len(rule)
            nodes.append(
                Node("head", "head", block + 1, block)
                if is_head
                else Node(f"block{block + 1}.layer{inside}", "unit", block + 1, block)
            )
            sources.append(tuple(sorted(at[old, block] for old in rule[here - 1])))
            at[here, block] = len(nodes) - 1
        position = last
    return ConnectivityGraph(tuple(nodes), tuple(sources))


def _carried(rule: Sequence[Sequence[int]], block_of: Sequence[int], block: int) -> list[int]:
    """Return the positions of earlier blocks that some layer of this block or a later one reads."""
    readers = [j for j in range(1, len(rule) + 1) if block_of[j] >= block]
    return sorted({i for j in readers for i in rule[j - 1] if block_of[i] < block})


def _word(name: str) -> str:
    return name.replace(".", "_")
