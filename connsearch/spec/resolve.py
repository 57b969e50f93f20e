"""From a specification to its plan: who reads whom, in which shape, with which operations."""

from __future__ import annotations

from collections.abc import Sequence

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Aggregation, rule_of
from connsearch.spec.drops import drop_rule
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.plan import Line, NetworkPlan, NodePlan
from connsearch.spec.shaped import Lines, placed, shaped


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
        self.graph = spec.graph()
        self.lines = Lines(spec, widths)
        self.image = image_shape(spec)
        self.aggregations = [
            (block.aggregation, placed(f"blocks[{number}].aggregation", rule_of, block.aggregation))
            for number, block in enumerate(spec.blocks)
        ]
        self.part_rules = {
            part.name: (part.aggregation, placed(f"parts[{number}].aggregation", rule_of, part.aggregation))
            for number, part in enumerate(spec.node_parts)
            if part.aggregation is not None
        }
        pairs = [*self.aggregations, *self.part_rules.values()]
        self.singly = any(rule.applies(1) for _, rule in pairs)  # whether a single source may be weighted
        self.routing = {ref for ref, rule in pairs if rule.routes}
        self.owners: dict[int, tuple[int, ...]] = {}  # who makes the gates of a routed node's sources
        self.routed = self._routed_readers() if self.routing else {}
        self.shapes: list[Shape] = []  # of the nodes' outputs so far

    def run(self) -> NetworkPlan:
        plans: list[NodePlan] = []
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            try:
                plan = self._plan(index, node, sources)
            except SpecError as error:
                raise SpecError(str(error), place=node.name) from None
            plans.append(plan)
            self.shapes.append(plan.line.out_shape)
            if index == 0 and self.spec.layout == ENCODER_DECODER:
                _check_stem(self.spec.stem, self.image, plan.line.out_shape)
        if self.spec.drop is not None:
            plans = _with_drops(self.spec.drop, self.graph, plans)
        return NetworkPlan(self.graph, self.image, tuple(plans))

    def _plan(self, index: int, node: Node, sources: tuple[int, ...]) -> NodePlan:
        if len(sources) > 1 or (self.singly and self._weights_one(index, node, sources)):
            return self._join(index, node, sources)
        in_shape = self.shapes[sources[0]] if sources else self.image
        line = self.lines.line(node.kind, node.block, in_shape, node.part)
        if not line.chain and sources:  # a stem may give out the image as it is
            raise SpecError("a node without operations merges two sources at least")
        gates = self._gates(index, line.out_shape) if index in self.routed else None
        return NodePlan(node, sources, (in_shape.channels,) * len(sources), None, (), line, gates)

    def _join(self, index: int, node: Node, sources: tuple[int, ...]) -> NodePlan:
        """Return the plan of a node that aggregates its sources."""
        aggregation, rule = self._aggregation(node, sources)
        shapes = [self.shapes[source] for source in sources]
        first = shapes[0]
        if shapes.count(first) == len(shapes):
            channels = (first.channels,) * len(shapes)
        else:
            channels = tuple([shape[0] for shape in shapes])
            _check_sources(aggregation, rule, shapes, channels)
        in_shape = joined_shape(rule, first, channels)
        line = self.lines.line(node.kind, node.block, in_shape, node.part)
        gates = self._gates(index, line.out_shape) if index in self.routed else None
        if not rule.routes:
            return NodePlan(node, sources, channels, aggregation, (), line, gates)
        slots = self._slots(index)
        return NodePlan(node, sources, channels, aggregation, slots, line, gates, (), self.owners[index])

    def _aggregation(self, node: Node, sources: tuple[int, ...]) -> tuple[Ref, Aggregation]:
        """Return how a node reads: as its part says, or as its block; a transition as the block it leaves."""
        if node.part in self.part_rules:
            return self.part_rules[node.part]
        leaves = node.kind in ("transition", "carry")
        return self.aggregations[(self.graph.nodes[sources[-1]] if leaves else node).block - 1]

    # ---- routing ---------------------------------------------------------------------------------

    def _routed_readers(self) -> dict[int, list[int]]:
        """Return, for each node that makes gates for routed aggregations, their readers in order."""
        found: dict[int, list[int]] = {}
        for index, (node, sources) in enumerate(zip(self.graph.nodes, self.graph.sources, strict=True)):
            rule = self._aggregation(node, sources)[1] if sources else None
            if rule is not None and rule.routes and rule.applies(len(sources)):
                owners = placed(node.name, self._gated_by, rule, sources)
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

    def _gates(self, index: int, shape: Shape) -> Line | None:
        """Return the gates of a node, on which all that use them agree."""
        readers = self.routed[index]
        if len(readers) < 2:
            return None
        if len(self.routing) == 1:
            return gates_of(next(iter(self.routing)), shape, len(readers))
        first_by: dict[Ref, int] = {}
        for reader in readers:
            ref, _ = self._aggregation(self.graph.nodes[reader], self.graph.sources[reader])
            first_by.setdefault(ref, reader)
        wanted = {gates_of(ref, shape, len(readers)): reader for ref, reader in first_by.items()}
        if len(wanted) > 1:
            first, second = [self.graph.nodes[reader].name for reader in wanted.values()][:2]
            raise SpecError(
                f"its readers {first!r} and {second!r} ask for different gates: "
                "give their aggregations the same parameters"
            )
        return next(iter(wanted))


def _check_stem(stem: Ref, image: Shape, out: Shape) -> None:
    """Refuse a stem before a way down and up again that changes the resolution, which then stays lost."""
    if out[1:] != image[1:]:
        raise SpecError(
            f"{stem.label!r} makes {out.height}x{out.width} pixels of {image.height}x{image.width}, and not "
            "each is predicted then: use a stem that keeps the resolution, such as 'conv'",
            place="stem",
        )


def image_shape(spec: NetworkSpec) -> Shape:
    """Return the shape of a network's input."""
    return Shape(spec.input.channels, spec.input.height, spec.input.width)


def joined_shape(rule: Aggregation, first: Shape, channels: Sequence[int]) -> Shape:
    """Return the shape of the one input that an aggregation makes of sources, the first of shape `first`."""
    return first if rule.equal_channels else Shape(rule.out_channels(channels), first.height, first.width)


@entry_cache
def gates_of(ref: Ref, shape: Shape, n_readers: int) -> Line:
    """Return the gates that a node giving out `shape` makes for a routed aggregation."""
    return shaped(ref, rule_of(ref).gates(shape.channels, n_readers), shape)


def _with_drops(ref: Ref, graph: ConnectivityGraph, plans: Sequence[NodePlan]) -> list[NodePlan]:
    """Return the plans with what a drop does to edges into nodes that add or average their sources."""
    adding = [i for i, p in enumerate(plans) if p.aggregation is not None and rule_of(p.aggregation).adds]
    edges = placed("drop", drop_rule, ref).edges(graph, adding)
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


def _check_sources(ref: Ref, rule: Aggregation, shapes: Sequence[Shape], channels: Sequence[int]) -> None:
    """Refuse, here and only here, sources that an aggregation cannot take."""
    if rule.equal_channels and len(set(channels)) > 1:
        raise SpecError(
            f"aggregation {ref.label!r} needs sources of equal channels, got "
            f"{', '.join(map(str, channels))}: make them equal or use 'concat'"
        )
    for shape in set(shapes):
        if shape[1:] != shapes[0][1:]:
            sizes = ", ".join(f"{s.height}x{s.width}" for s in shapes)
            raise SpecError(f"its sources differ in resolution: {sizes}; carry them to one resolution first")
