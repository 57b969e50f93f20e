"""The same network without some of its connections: which can go, and the specification of the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph
from connsearch.spec.aggregations import AGGREGATIONS, rule_of
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.spec.network import BlockConfig, NetworkSpec, PartConfig
from connsearch.spec.ops import Chain, Shape
from connsearch.spec.plan import NodePlan
from connsearch.spec.reading import narrowed, reading_of
from connsearch.spec.resolve import resolve
from connsearch.spec.shaped import Lines
from connsearch.spec.unfolded import as_line, unfolded

Edge = tuple[str, str]
"""The names of source and reader."""

_WEIGHED = ("weighted", "depthwise", "gated", "routed")
_SINGLE = ("weighted", "depthwise", "routed")  # that can weigh a single source too


class Pruner:
    """A network of which connections are to be removed.

    Args:
        spec: The network.

    Raises:
        SpecError: if the specification describes no network, or one that drops connections at random: by
            how much follows from their places, which would change.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        if spec.drop is not None:
            raise SpecError(
                f"{spec.name!r} drops connections at random by {spec.drop.label!r}, with probabilities that "
                "follow from the depth: connections cannot be pruned from it; leave out drop first"
            )
        if spec.layout == ENCODER_DECODER:
            spec = unfolded(spec)
        self.spec, self.plan = spec, resolve(spec)
        self.lines = Lines(spec, spec.widths)
        self.names = [node.name for node in self.plan.graph.nodes]
        self._obstacles: dict[str, str] = {}

    # ---- what can go -----------------------------------------------------------------------------

    def obstacle(self, reader: str) -> str:
        """Return why no connection into a node can be removed; empty if some can.

        Raises:
            SpecError: if there is no such node.
        """
        if reader not in self._obstacles:
            self._obstacles[reader] = self._obstacle(self.plan.nodes[self.plan.graph.index(reader)])
        return self._obstacles[reader]

    def _obstacle(self, plan: NodePlan) -> str:
        if plan.aggregation is None:
            return "it reads a single source"
        name = plan.aggregation.name
        if name in _WEIGHED:
            return ""
        if name == "concat":
            return self._obstacle_of_concat(plan)
        return f"{plan.aggregation.label!r} does not weigh its sources"

    def _obstacle_of_concat(self, plan: NodePlan) -> str:
        reading = reading_of(plan.chain, plan.in_shape.channels)
        if reading is None:
            return "no convolution reads all that it concatenates"
        shape = plan.in_shape._replace(channels=plan.source_channels[-1])
        wanted = narrowed(plan.chain, reading, shape.channels)
        if self._pinned(plan) or self._chain(plan, shape) == wanted:
            return ""
        return "what it gives out is as wide as what it reads"

    def _chain(self, plan: NodePlan, shape: Shape) -> Chain:
        """Return what a node would compute of another shape; nothing if it takes none such."""
        try:
            return self.lines.line(plan.node.kind, plan.node.block, shape, plan.node.part).chain
        except SpecError:
            return ()

    def least_sources(self, reader: str) -> int:
        """Return how many sources a node must keep: one, or two if merging them is all that it does."""
        plan = self.plan.nodes[self.plan.graph.index(reader)]
        name = plan.aggregation.name if plan.aggregation is not None else ""
        return 1 if plan.chain or name in ("weighted", "depthwise") else 2

    def weak(self, strengths: Mapping[Edge, float], below: float) -> set[Edge]:
        """Return the connections to remove: those weaker than `below` that their readers can spare.

        A reader keeps its strongest sources, of equal ones the newest, as many as it needs.

        Args:
            strengths: Of connections; one without is not removed.
            below: Connections of less than this are removed.
        """
        found: set[Edge] = set()
        for plan in self.plan.nodes:
            reader = plan.node.name
            if self.obstacle(reader):
                continue
            edges = [(self.names[source], reader) for source in plan.sources]
            weak = [edge for edge in edges if strengths.get(edge, below) < below]
            spare = len(edges) - self.least_sources(reader)
            weakest = sorted(weak, key=lambda edge: strengths[edge])  # a stable sort: older ones first
            found.update(weakest[: max(spare, 0)])
        return found

    # ---- what is left ----------------------------------------------------------------------------

    def without(self, removed: Collection[Edge]) -> NetworkSpec:
        """Return the specification without some connections, over a graph of its own.

        Nodes that nothing reads any more go too. Names of nodes stay, and with them the keys of weights.

        Raises:
            SpecError: if there is no such connection, it cannot be removed, or a node would keep fewer
                sources than it needs.
        """
        sources = self._remaining(removed)
        alive = self._needed(sources)
        parts = _Parts(self.spec)
        place = {old: new for new, old in enumerate(alive)}
        blocks = sorted({self.plan.graph.nodes[index].block for index in alive})
        nodes = []
        for index in alive:
            plan = self.plan.nodes[index]
            part = plan.node.part
            if len(sources[index]) < len(plan.sources):
                part = parts.changed(part, self._changes(plan, len(sources[index])))
            block = blocks.index(plan.node.block) + 1
            nodes.append(replace(plan.node, block=block, part=part))
        graph = ConnectivityGraph(
            tuple(nodes), tuple(tuple(place[source] for source in sources[index]) for index in alive)
        )
        used = {node.part for node in nodes}
        old = [self.spec.blocks[number - 1] for number in blocks]
        spec = self.spec.replaced(
            name=f"{self.spec.name}-pruned",
            scope="block",
            blocks=tuple(BlockConfig(aggregation=b.aggregation, unit=b.unit, width=b.width) for b in old),
            parts=tuple(part for part in parts.all if part.name in used),
            own_graph=graph,
        )
        spec = NetworkSpec.from_dict(spec.to_dict())  # checked like any other
        self._check_same(spec)
        return spec

    def _remaining(self, removed: Collection[Edge]) -> list[tuple[int, ...]]:
        """Return the sources that each node keeps."""
        kept = [list(sources) for sources in self.plan.graph.sources]
        for source, reader in removed:
            at = self.plan.graph.index(reader)
            if self.plan.graph.index(source) not in kept[at]:
                hint = did_you_mean(source, [self.names[i] for i in kept[at]])
                raise SpecError(f"no edge ({source!r}, {reader!r}) to remove. {hint}")
            if reason := self.obstacle(reader):
                raise SpecError(f"edge ({source!r}, {reader!r}) cannot be removed: {reason}")
            kept[at].remove(self.plan.graph.index(source))
        for index, sources in enumerate(kept):
            least = self.least_sources(self.names[index])
            if len(sources) < min(least, len(self.plan.graph.sources[index])):
                raise SpecError(f"node {self.names[index]!r} would keep {len(sources)} sources, of {least}")
        return [tuple(sources) for sources in kept]

    def _needed(self, sources: list[tuple[int, ...]]) -> list[int]:
        """Return the nodes that a head needs, in order."""
        needed = {i for i, node in enumerate(self.plan.graph.nodes) if node.kind == "head"}
        for index in reversed(range(len(sources))):
            if index in needed:
                needed.update(sources[index])
        return sorted(needed)

    def _changes(self, plan: NodePlan, n: int) -> dict[str, Any]:
        """Return what a part must say of a node that keeps n sources, so that it stays what it is."""
        ref = plan.aggregation
        assert ref is not None  # others keep what they read
        if n == 1 and ref.name in _SINGLE and not rule_of(ref).applies(1):
            return {"aggregation": AGGREGATIONS.ref(ref.name, **{**dict(ref.params), "single": True})}
        return self._pinned(plan) if ref.name == "concat" else {}

    def _pinned(self, plan: NodePlan) -> dict[str, Any]:
        """Return line and ratio of a transition that compresses what it reads, at its width of now."""
        own = next((p for p in self.spec.parts if p.name == plan.node.part), None)
        if (
            not self.spec.compression
            or plan.node.kind != "transition"
            or (own and (own.line or own.unit or own.ratio))
        ):
            return {}
        line = as_line(self.spec.transition)
        if line is None:
            return {}
        width = self.spec.blocks[plan.node.block - 1].width
        return {"line": line, "ratio": (plan.out_shape.channels + 0.5) / width}  # it is rounded down

    def _check_same(self, spec: NetworkSpec) -> None:
        """Check that every node still does what it did, but for what it reads."""
        for plan in resolve(spec).nodes:
            old = self.plan.nodes[self.plan.graph.index(plan.node.name)]
            wanted = old.chain
            if plan.in_shape != old.in_shape:
                reading = reading_of(old.chain, old.in_shape.channels)
                wanted = narrowed(old.chain, reading, plan.in_shape.channels) if reading else ()
            if plan.chain != wanted:
                raise SpecError(f"node {plan.node.name!r} would compute something else: keep its sources")


class _Parts:
    """The parts of a network, and those that are added for nodes that read less."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.all = list(spec.parts)
        self._made: dict[tuple[str, str], str] = {}

    def changed(self, name: str, changes: dict[str, Any]) -> str:
        """Return the name of a part like another one, "" for none, but for some values."""
        if not changes:
            return name
        key = (name, repr(sorted(changes.items())))
        if key not in self._made:
            base = next((part for part in self.all if part.name == name), PartConfig(name="new"))
            stem = f"{name or 'part'}-pruned"
            known = {part.name for part in self.all}
            free = next(w for w in (stem, *(f"{stem}{i}" for i in range(2, 10**6))) if w not in known)
            self.all.append(base.model_copy(update={**changes, "name": free}))
            self._made[key] = free
        return self._made[key]
