"""What a block's topology, depth and aggregation decide about its cost, where all its maps have one shape.

Layers that read as many maps are then alike: how many of them there are, and how many maps are alive while
they compute, depends on nothing else. It is worked out once, on the plan of a prototype, by the rules with
which `connsearch.cost.memory` walks any plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from connsearch.cost.memory import alive, footprint_of, owns_input, weighted_sources
from connsearch.errors import SpecError
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Footprint, rule_of
from connsearch.spec.network import BlockConfig, NetworkSpec
from connsearch.spec.plan import NetworkPlan, NodePlan
from connsearch.spec.resolve import resolve

Held = tuple[int, int]  # maps and gates that are alive


class Sort(NamedTuple):
    """What nodes of a block have in common that cost alike.

    Attributes:
        n: Maps that make the input; 1 if it is the same however many are joined.
        leaves: Whether it is the node that reads the block from outside: the next transition, or the head.
        footprint: Memory of the aggregation; None if a single map is read as it is.
        owned: Whether the operations alone keep their input alive.
    """

    n: int
    leaves: bool
    footprint: Footprint | None
    owned: bool


class Tier(NamedTuple):
    """The nodes of one sort. Sets of maps are bits: 1 is the block's input, 2 its first unit's output, ...

    Attributes:
        sort: What they have in common.
        n_nodes: How many there are.
        joins: If they aggregate: how many maps they read, and how many of them do.
        before: The most that earlier nodes hold when one of them starts.
        after: The same once it has released what no later node reads.
        sources: Maps that they read, those apart that an aggregation takes without a weight.
        outputs: Maps of the block that they give out.
    """

    sort: Sort
    n_nodes: int
    joins: tuple[tuple[int, int], ...]
    before: tuple[Held, ...]
    after: tuple[Held, ...]
    sources: int
    outputs: int


class Gates(NamedTuple):
    """How many nodes make gates for so many readers, and the most that is alive beside these gates."""

    n_readers: int
    n_nodes: int
    beside: tuple[Held, ...]


class Pattern(NamedTuple):
    """A block whose maps are all of one shape, whatever that is.

    Attributes:
        tiers: Units by sort, then the node that leaves the block.
        gates: By number of readers.
        edges: How many edges have a weight: from a reader's oldest source, from all others.
        n_layers: Number of units.
        n_edges: Number of connections, those out of the block included.
    """

    tiers: tuple[Tier, ...]
    gates: tuple[Gates, ...]
    edges: tuple[int, int]
    n_layers: int
    n_edges: int


@entry_cache
def pattern_of(topology: Ref, n_layers: int, entry_unit: bool, aggregation: Ref) -> Pattern:
    """Return the pattern of a block.

    Raises:
        SpecError: if the topology or the aggregation refuses it, or gates are made before the block.
    """
    rule = rule_of(aggregation)
    if rule.routes and rule.gated_by(1, (0,)) != 1:
        raise SpecError(f"{aggregation.label!r} may ask for gates before the block")
    values = {"topology": topology, "n_layers": n_layers, "entry_unit": entry_unit}
    plan = resolve(NetworkSpec(blocks=(BlockConfig(aggregation=aggregation, **values),)))
    tiers, gates = tuple(_tiers(plan)), tuple(_gates(plan))
    return Pattern(tiers, gates, _weighted_edges(plan.nodes), n_layers, plan.n_edges)


def _sort(plan: NetworkPlan, index: int) -> Sort:
    node, footprint = plan.nodes[index], footprint_of(plan.nodes[index])
    grows = node.aggregation is not None and not rule_of(node.aggregation).equal_channels
    owned = owns_input(footprint, plan.graph.released[index], _one_each(plan))
    return Sort(len(node.sources) if grows else 1, index == len(plan.nodes) - 1, footprint, owned)


def _one_each(plan: NetworkPlan) -> list[int]:
    return [1] * len(plan.nodes)


def _tiers(plan: NetworkPlan) -> Iterator[Tier]:
    """Yield the tiers of a network of one block, whose stem is the block's input."""
    held, leaver = list(_held(plan)), len(plan.nodes) - 1
    of_sort: dict[Sort, list[int]] = {}
    for index in range(1, len(plan.nodes)):
        of_sort.setdefault(_sort(plan, index), []).append(index)
    for sort, nodes in of_sort.items():
        before, after = zip(*[held[index] for index in nodes], strict=True)
        reads = Counter(len(plan.nodes[index].sources) for index in nodes)
        yield Tier(
            sort,
            len(nodes),
            () if sort.footprint is None else tuple(reads.items()),
            _most(before),
            _most(after),
            _bits(source for index in nodes for source in weighted_sources(plan.nodes[index])),
            _bits(index for index in nodes if index != leaver),
        )


def _bits(maps: Iterable[int]) -> int:
    return sum(1 << index for index in set(maps))


def _gates(plan: NetworkPlan) -> Iterator[Gates]:
    beside: dict[int, list[Held]] = {}
    for node, (_, (maps, gates)) in zip(plan.nodes, _held(plan), strict=True):
        if node.gate_line is not None:  # its own map is there by then
            beside.setdefault(node.gate_line.out_shape.size, []).append((maps + 1, gates))
    for n_readers, held in beside.items():
        yield Gates(n_readers, len(held), _most(held))


def _held(plan: NetworkPlan) -> Iterator[tuple[Held, Held]]:
    """Yield what earlier nodes hold when a node starts, and once it has released what no later node reads."""
    maps = alive(plan.graph.released, _one_each(plan))
    gates = alive(plan.released_gates(), plan.n_gates())
    for (maps_before, maps_after), (gates_before, gates_after) in zip(maps, gates, strict=True):
        yield (maps_before, gates_before), (maps_after, gates_after)


def _most(moments: Iterable[Held]) -> tuple[Held, ...]:
    """Return the most that is held: those pairs that no other exceeds in both numbers."""
    found: list[Held] = []
    for maps, gates in sorted(moments, reverse=True):
        if not found or gates > found[-1][1]:
            found.append((maps, gates))
    return tuple(found)


def _weighted_edges(nodes: Sequence[NodePlan]) -> tuple[int, int]:
    """Return how many edges have a weight: from the oldest source of a join, from others."""
    first = later = 0
    for node in nodes:
        if node.aggregation is not None:
            weighted = weighted_sources(node)
            first += node.sources[0] in weighted
            later += len(weighted) - (node.sources[0] in weighted)
    return first, later
