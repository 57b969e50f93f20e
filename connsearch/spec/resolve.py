"""From a specification to its plan: who reads whom, in which shape, with which operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.aggregations import Aggregation, rule_of
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS, ChainRule, chain, unit_channels
from connsearch.spec.drops import drop_rule
from connsearch.spec.network import NetworkSpec, PartConfig
from connsearch.spec.ops import Chain, Linear, Norm, Position, Shape, output_shape
from connsearch.spec.plan import Line, NetworkPlan, NodePlan

T = TypeVar("T")


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
        pairs = [*self.aggregations, *self.part_rules.values()]
        self.singly = any(rule.applies(1) for _, rule in pairs)  # whether a single source may be weighted
        self.routing = {ref for ref, rule in pairs if rule.routes}
        self.owners: dict[int, tuple[int, ...]] = {}  # who makes the gates of a routed node's sources
        self.routed = self._routed_readers() if self.routing else {}
        self.shapes: list[Shape] = []  # of the nodes' outputs so far
        self.lines: dict[tuple[str, str, int, Shape], Line] = {}  # by kind, part, block, input

    def run(self) -> NetworkPlan:
        plans: list[NodePlan] = []
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            try:
                plan = self._plan(index, node, sources)
            except SpecError as error:
                raise SpecError(str(error), place=node.name) from None
            plans.append(plan)
            self.shapes.append(plan.line.out_shape)
        if self.spec.drop is not None:
            plans = _with_drops(self.spec.drop, self.graph, plans)
        return NetworkPlan(self.graph, self.image, tuple(plans))

    def _plan(self, index: int, node: Node, sources: tuple[int, ...]) -> NodePlan:
        n = len(sources)
        if n > 1 or (self.singly and self._weights_one(index, node, sources)):
            if node.kind == "unit" and not node.part:
                aggregation, rule = self.aggregations[node.block - 1]
            else:
                aggregation, rule = self._aggregation(node, sources)
            shapes = [self.shapes[s] for s in sources]
            in_shape = shapes[0]
            if shapes.count(in_shape) == n:
                channels = (in_shape[0],) * n
            else:
                channels = tuple([shape[0] for shape in shapes])
                _check_sources(aggregation, rule, shapes, channels)
            if not rule.equal_channels:
                in_shape = Shape(rule.out_channels(channels), in_shape[1], in_shape[2])
            line = self.lines.get((node.kind, node.part, node.block, in_shape)) or self._line(node, in_shape)
            gates = self._gates(index, line.out_shape) if index in self.routed else ()
            if not rule.routes:
                return NodePlan(node, sources, channels, aggregation, (), line, gates)
            slots = self._slots(index)
            return NodePlan(node, sources, channels, aggregation, slots, line, gates, (), self.owners[index])
        in_shape = self.shapes[sources[0]] if sources else self.image
        line = self.lines.get((node.kind, node.part, node.block, in_shape)) or self._line(node, in_shape)
        if not line.chain and sources:  # a stem may give out the image as it is
            raise SpecError("a node without operations merges two sources at least")
        gates = self._gates(index, line.out_shape) if index in self.routed else ()
        return NodePlan(node, sources, (in_shape[0],) * n, None, (), line, gates)

    def _line(self, node: Node, shape: Shape) -> Line:
        """Return the operations of a node that reads `shape`, the same object for nodes alike."""
        line = _line(*self._rule(node, shape.channels), shape)
        if node.kind == "head" and line.out_shape.channels != self.spec.n_classes:
            raise SpecError(
                f"a head gives out {self.spec.n_classes} classes, but its part gives out "
                f"{line.out_shape.channels} channels: leave out its line and unit"
            )
        self.lines[node.kind, node.part, node.block, shape] = line
        return line

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
            width = _times(self.widths[block], part.ratio, part.multiple)
        else:
            width = self.block_out[block] if part.line is not None else self.widths[block]
        if part.line is not None:
            return LINES, part.line, width
        if part.unit is not None or part.ratio:
            return UNITS, part.unit or self.spec.blocks[block].unit, width
        return None

    # ---- routing ---------------------------------------------------------------------------------

    def _routed_readers(self) -> dict[int, list[int]]:
        """Return, for each node that makes gates for routed aggregations, their readers in order."""
        found: dict[int, list[int]] = {}
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            rule = self._aggregation(node, sources)[1] if sources else None
            if rule is not None and rule.routes and rule.applies(len(sources)):
                owners = _placed(node.name, self._gated_by, rule, sources)
                self.owners[index] = owners
                for owner in set(owners):
                    found.setdefault(owner, []).append(index)
        return found

    def _gated_by(self, rule: Aggregation, sources: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([rule.gated_by(source, self.graph.sources[source]) for source in sources])

    def _weights_one(self, index: int, node: Node, sources: tuple[int, ...]) -> bool:
        """Return whether a node weights a single source: its rule does, and others share the gates."""
        rule = self._aggregation(node, sources)[1] if sources else None
        if rule is None or not rule.applies(1):
            return False
        return not rule.routes or len(self.routed[self.owners[index][0]]) > 1

    def _slots(self, index: int) -> tuple[int | None, ...]:
        readers = [self.routed[owner] for owner in self.owners[index]]
        return tuple([r.index(index) if len(r) > 1 else None for r in readers])

    def _gates(self, index: int, shape: Shape) -> Chain:
        """Return the gates of a node, on which all that use them agree."""
        readers = self.routed[index]
        if len(readers) < 2:
            return ()
        if len(self.routing) == 1:
            return _gates_of(next(iter(self.routing)), shape.channels, len(readers))
        first_by: dict[Ref, int] = {}
        for reader in readers:
            ref, _ = self._aggregation(self.graph.nodes[reader], self.graph.sources[reader])
            first_by.setdefault(ref, reader)
        wanted = {_gates_of(ref, shape.channels, len(readers)): reader for ref, reader in first_by.items()}
        if len(wanted) > 1:
            first, second = [self.graph.nodes[reader].name for reader in wanted.values()][:2]
            raise SpecError(
                f"its readers {first!r} and {second!r} ask for different gates: "
                "give their aggregations the same parameters"
            )
        return next(iter(wanted))


@entry_cache
def _gates_of(ref: Ref, channels: int, n_readers: int) -> Chain:
    return rule_of(ref).gates(channels, n_readers)


def _with_drops(ref: Ref, graph: ConnectivityGraph, plans: Sequence[NodePlan]) -> list[NodePlan]:
    """Return the plans with what a drop does to edges into nodes that add or average their sources."""
    adding = [i for i, p in enumerate(plans) if p.aggregation is not None and rule_of(p.aggregation).adds]
    edges = _placed("drop", drop_rule, ref).edges(graph, adding)
    if not edges:
        raise SpecError(
            f"{ref.label!r} finds nothing to drop: no node adds or averages "
            f"{'what a unit gives out' if adding else 'several sources'}",
            place="drop",
        )
    return [
        p._replace(drops=tuple(edges.get((source, i)) for source in p.sources)) if i in adding else p
        for i, p in enumerate(plans)
    ]


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
        if isinstance(op, Norm) and op.kind != "batch" and _normalised_together(op, after) == 1:
            what = f"norm {op.kind!r} of a single value is always 0"
            raise SpecError(f"{what}: use a larger input or norm 'batch'")
        if isinstance(op, Linear) and op.in_features != after.size:
            raise SpecError(
                f"{ref.label!r} reads {op.in_features} features, but {after.channels} x {after.height} x "
                f"{after.width} are left: change the input's size"
            )
        if isinstance(op, Position) and (op.height, op.width) != (after.height, after.width):
            raise SpecError(
                f"{ref.label!r} has positions for {op.height}x{op.width} pixels, but {after.height}x"
                f"{after.width} are left: change the input's size"
            )
        after = output_shape(op, after)
    if after.height < 1 or after.width < 1:
        size = f"{shape.height}x{shape.width}"
        raise SpecError(f"no pixel is left of {size}: use fewer blocks or a larger input")
    return Line(ops, shape, after)


def _normalised_together(op: Norm, shape: Shape) -> Any:
    """Return how many values of one image a norm normalises together; 0 where that may be one."""
    if op.kind in ("batch", "channel"):
        return 0
    return (1 if op.kind == "instance" else op.channels) * (shape.height * shape.width)


def _times(channels: Any, ratio: float, multiple: int) -> Any:
    """Return ratio * channels, rounded to the nearest multiple, halves up; multiple = 0: rounded down."""
    if not multiple:
        return _floor_times(channels, ratio)
    exact = Fraction(str(ratio))  # floor(r c / m + 1/2) = floor((2 r c + m) / (2 m)), in whole numbers
    doubled = channels * (2 * exact.numerator) + multiple * exact.denominator
    return _floor_times(doubled, Fraction(1, 2 * multiple * exact.denominator)) * multiple


def _floor_times(channels: Any, ratio: float | Fraction) -> Any:
    """Return floor(ratio * channels), of an integer or of a symbol, at least 1; 0.3 means 3/10."""
    exact = Fraction(str(ratio))
    return max(1, math.floor(channels * exact)) if isinstance(channels, int) else channels.floor_times(exact)
