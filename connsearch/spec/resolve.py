"""From a specification to a plan: every node with its sources, shapes and operations.

The plan is what cost counts and what a network executes. Channels are integers, or symbols when only
the shape of a cost is asked (see `connsearch.cost.model`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.aggregations import Aggregation, aggregation_rule
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS, ChainRule, chain, unit_channels
from connsearch.spec.network import NetworkSpec, PartConfig
from connsearch.spec.ops import Chain, Linear, Norm, Shape, output_shape

T = TypeVar("T")


class Line(NamedTuple):
    """A straight line of operations at the shape that it reads; nodes alike share the very object."""

    chain: Chain
    in_shape: Shape
    out_shape: Shape


class NodePlan(NamedTuple):
    """One node, ready to be counted or built.

    Attributes:
        node: The node of the graph.
        sources: Indices of the nodes it reads, oldest first.
        source_channels: Their channels.
        aggregation: The reference of its aggregation; None with fewer than two sources.
        slots: For a routed aggregation, per source: which output of the source's gates it uses, or None
            where the source has no other routed reader. Empty otherwise.
        line: Its operations, which read the aggregated input.
        gates: Operations from the node's output to its gates; empty if none.
    """

    node: Node
    sources: tuple[int, ...]
    source_channels: tuple[int, ...]
    aggregation: Ref | None
    slots: tuple[int | None, ...]
    line: Line
    gates: Chain

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


class NetworkPlan(NamedTuple):
    """All nodes of a network in topological order, and the graph they form."""

    graph: ConnectivityGraph
    image: Shape
    nodes: tuple[NodePlan, ...]

    def per_line(self, count: Callable[[Chain, Shape], T]) -> list[T]:
        """Return what a function makes of each node's operations and input; asked once for equal ones."""
        known: dict[int, T] = {}
        found = []
        for node in self.nodes:
            key = id(node.line)
            if key not in known:
                known[key] = count(node.line.chain, node.line.in_shape)
            found.append(known[key])
        return found

    def sizes(self) -> list[tuple[int, int]]:
        """Return height and width of the maps at each scale."""
        found = {
            n.node.scale: (n.out_shape.height, n.out_shape.width) for n in self.nodes if n.node.kind != "head"
        }
        return [found[scale] for scale in sorted(found)]

    def canonical_hash(self) -> str:
        """Return hexadecimal digits that are equal for two spellings of one network."""
        labels = [(n.node.kind, n.aggregation, n.in_shape, n.chain, n.gates) for n in self.nodes]
        return self.graph.canonical_hash([*labels])


rule_of = entry_cache(aggregation_rule)

_IDENTITY = Ref("identity")


def resolve(spec: NetworkSpec, widths: Sequence[int] | None = None) -> NetworkPlan:
    """Return the plan of a network.

    Args:
        spec: The network.
        widths: Used instead of the blocks' own widths.

    Raises:
        SpecError: naming the node, if an aggregation refuses its sources, channels do not divide into
            groups, or the input is too small.
    """
    return _Resolver(spec, tuple(widths or spec.widths)).run()


class _Resolver:
    def __init__(self, spec: NetworkSpec, widths: tuple[int, ...]) -> None:
        self.spec = spec
        self.widths = widths
        self.graph = spec.graph()
        self.image = Shape(spec.input.channels, spec.input.height, spec.input.width)
        self.block_out = [
            _placed(f"blocks[{number}].unit", unit_channels, block.unit, width)
            for number, (block, width) in enumerate(zip(spec.blocks, widths, strict=True))
        ]
        self.aggregations = [
            (block.aggregation, _placed(f"blocks[{number}].aggregation", rule_of, block.aggregation))
            for number, block in enumerate(spec.blocks)
        ]
        self.parts = {part.name: part for part in spec.parts}
        self.part_rules = {
            part.name: (part.aggregation, _placed(f"parts[{number}].aggregation", rule_of, part.aggregation))
            for number, part in enumerate(spec.parts)
            if part.aggregation is not None
        }
        self.routed = (
            self._routed_readers()
            if any(rule.routes for _, rule in [*self.aggregations, *self.part_rules.values()])
            else {}
        )
        self.shapes: list[Shape] = []  # of the nodes' outputs so far
        self.lines: dict[tuple[str, str, int, Shape], Line] = {}  # by kind, part, block, input

    def run(self) -> NetworkPlan:
        plans = []
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            try:
                plan = self._plan(index, node, sources)
            except SpecError as error:
                raise SpecError(str(error), place=node.name) from None
            plans.append(plan)
            self.shapes.append(plan.line.out_shape)
        return NetworkPlan(self.graph, self.image, tuple(plans))

    def _plan(self, index: int, node: Node, sources: tuple[int, ...]) -> NodePlan:
        aggregation: Ref | None = None
        slots: tuple[int | None, ...] = ()
        channels: tuple[int, ...]
        if len(sources) > 1:
            aggregation, rule = self._aggregation(node, sources)
            shapes = [self.shapes[s] for s in sources]
            in_shape = shapes[0]
            if shapes.count(in_shape) == len(shapes):
                channels = (in_shape[0],) * len(shapes)
            else:
                channels = tuple([shape[0] for shape in shapes])
                _check_sources(aggregation, rule, shapes, channels)
            if not rule.equal_channels:
                in_shape = Shape(rule.out_channels(channels), in_shape[1], in_shape[2])
            if rule.routes:
                slots = self._slots(index, sources)
        else:
            in_shape = self.shapes[sources[0]] if sources else self.image
            channels = (in_shape[0],) * len(sources)
        key = (node.kind, node.part, node.block, in_shape)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = _line(*self._rule(node, in_shape.channels), in_shape)
        if not line.chain and aggregation is None:
            raise SpecError("a node without operations merges two sources at least")
        gates = self._gates(index, line.out_shape) if index in self.routed else ()
        return NodePlan(node, sources, channels, aggregation, slots, line, gates)

    def _aggregation(self, node: Node, sources: tuple[int, ...]) -> tuple[Ref, Aggregation]:
        """Return how a node reads: as its part says, or as its block; a transition as the block it leaves."""
        if node.part in self.part_rules:
            return self.part_rules[node.part]
        leaves = node.kind in ("transition", "carry")
        return self.aggregations[(self.graph.nodes[sources[-1]] if leaves else node).block - 1]

    def _rule(self, node: Node, in_channels: int) -> tuple[Registry[ChainRule], Ref, int]:
        """Return which registered line of operations a node is, and the width it is asked for."""
        spec = self.spec
        if node.part:
            found = self._part(self.parts[node.part], node.block - 1)
            if found is not None:
                return found
        if node.kind == "unit":
            return UNITS, spec.blocks[node.block - 1].unit, self.widths[node.block - 1]
        if node.kind == "head":
            return HEADS, spec.head, spec.n_classes
        if node.kind == "stem":
            width = self.widths[0] * spec.stem_ratio if spec.stem_ratio else self.block_out[0]
            return STEMS, spec.stem, width
        width = self.block_out[node.block - 1]
        if spec.compression:
            width = _floor_times(in_channels, spec.compression)
        if node.kind == "join":
            return LINES, _IDENTITY, width
        return TRANSITIONS, spec.carry if node.kind == "carry" else spec.transition, width

    def _part(self, part: PartConfig, block: int) -> tuple[Registry[ChainRule], Ref, int] | None:
        """Return the line of a part and its width; None for a part that has no line of its own."""
        if part.ratio:
            width = _floor_times(self.widths[block], part.ratio)
        else:
            width = self.block_out[block] if part.line is not None else self.widths[block]
        if part.line is not None:
            return LINES, part.line, width
        if part.unit is not None or part.ratio:
            return UNITS, part.unit or self.spec.blocks[block].unit, width
        return None

    # ---- routing ---------------------------------------------------------------------------------

    def _routed_readers(self) -> dict[int, list[int]]:
        """Return, for each source of a routed aggregation, its routed readers in order."""
        found: dict[int, list[int]] = {}
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            if len(sources) > 1 and self._aggregation(node, sources)[1].routes:
                for source in sources:
                    found.setdefault(source, []).append(index)
        return found

    def _slots(self, index: int, sources: tuple[int, ...]) -> tuple[int | None, ...]:
        readers = [self.routed[source] for source in sources]
        return tuple(r.index(index) if len(r) > 1 else None for r in readers)

    def _gates(self, index: int, shape: Shape) -> Chain:
        readers = self.routed[index]
        if len(readers) < 2:
            return ()
        first = readers[0]
        _, rule = self._aggregation(self.graph.nodes[first], self.graph.sources[first])
        return rule.gates(shape.channels, len(readers))


def _placed(place: str, ask: Callable[..., T], *args: Any) -> T:
    """Return what a function gives, its error with a place."""
    try:
        return ask(*args)
    except SpecError as error:
        raise SpecError(str(error), place=place) from None


def _check_sources(ref: Ref, rule: Aggregation, shapes: Sequence[Shape], channels: Sequence[int]) -> None:
    """Refuse, here and only here, sources that an aggregation cannot take."""
    if rule.equal_channels and len(set(channels)) > 1:
        raise SpecError(
            f"aggregation {ref.label!r} needs sources of equal channels, got "
            f"{', '.join(map(str, channels))}: make them equal or use 'concat'"
        )
    for shape in shapes:
        if shape[1] != shapes[0][1] or shape[2] != shapes[0][2]:
            sizes = ", ".join(f"{s.height}x{s.width}" for s in shapes)
            raise SpecError(f"its sources differ in resolution: {sizes}; carry them to one resolution first")


@entry_cache
def _line(registry: Registry[ChainRule], ref: Ref, width: int, shape: Shape) -> Line:
    """Return the operations of a node that reads `shape`."""
    ops = chain(registry, ref, shape.channels, width)
    after = shape
    for op in ops:
        if isinstance(op, Norm) and _normalised_together(op, after) == 1:
            what = f"norm {op.kind!r} of a single value is always 0"
            raise SpecError(f"{what}: use a larger input or norm 'batch'")
        if isinstance(op, Linear) and op.in_features != after.size:
            raise SpecError(
                f"{ref.label!r} reads {op.in_features} features, but {after.channels} x {after.height} x "
                f"{after.width} are left: change the input's size"
            )
        after = output_shape(op, after)
    if after.height < 1 or after.width < 1:
        size = f"{shape.height}x{shape.width}"
        raise SpecError(f"no pixel is left of {size}: use fewer blocks or a larger input")
    return Line(ops, shape, after)


def _normalised_together(op: Norm, shape: Shape) -> Any:
    """Return how many values of one image a norm normalises together; 0 for batch norms."""
    if op.kind == "batch":
        return 0
    return (1 if op.kind == "instance" else op.channels) * (shape.height * shape.width)


def _floor_times(channels: Any, ratio: float) -> Any:
    """Return floor(ratio * channels), of an integer or of a symbol, at least 1; 0.3 means 3/10."""
    exact = Fraction(str(ratio))
    return max(1, math.floor(channels * exact)) if isinstance(channels, int) else channels.floor_times(exact)
