"""NetworkSpec: a whole network as a frozen value that files hold and hashes compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from connsearch.config import Config
from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import TOPOLOGIES, ConnectivityGraph, predecessors
from connsearch.graph.build import graph_across_blocks, graph_of_blocks
from connsearch.registry import Ref, ref_field
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS
from connsearch.spec.drops import DROPS
from connsearch.spec.encoder_decoder import (
    ENCODER_DECODER,
    SKIP,
    UP,
    Layout,
    check_head,
    check_size,
    encoder_decoder_graph,
    even_blocks,
    with_default_head,
)
from connsearch.spec.own_graph import GraphField

if TYPE_CHECKING:
    TopologyRef = Ref
    AggregationRef = Ref
    UnitRef = Ref
    StemRef = Ref
    TransitionRef = Ref
    HeadRef = Ref
    LineRef = Ref
    DropRef = Ref
else:
    TopologyRef, AggregationRef, UnitRef = ref_field(TOPOLOGIES), ref_field(AGGREGATIONS), ref_field(UNITS)
    StemRef, TransitionRef, HeadRef = ref_field(STEMS), ref_field(TRANSITIONS), ref_field(HEADS)
    LineRef, DropRef = ref_field(LINES), ref_field(DROPS)


class InputConfig(Config):
    """The shape of one image."""

    channels: int = Field(3, ge=1)
    height: int = Field(32, ge=1)
    width: int = Field(32, ge=1)


class BlockConfig(Config):
    """Layers at one resolution.

    Attributes:
        topology: Which earlier outputs each layer reads.
        aggregation: How they become its input; also how the next transition or the head reads the block.
        unit: What a layer computes.
        n_layers: Number of units; 0 only when the network's graph is given.
        width: Width that the unit is asked for (its growth rate, where it feeds a concat).
        entry_unit: Whether the first unit is the block's node 0, reading the stem or the transition alone.
    """

    topology: TopologyRef = Ref("chain")
    aggregation: AggregationRef = Ref("sum")
    unit: UnitRef = Ref("basic")
    n_layers: int = Field(0, ge=0)
    width: int = Field(16, ge=1)
    entry_unit: bool = False


class PartConfig(Config):
    """What some nodes of a given graph compute, in place of what their kind and block say.

    Attributes:
        name: What a node's `part` refers to.
        line: A registered line of operations; or
        unit: a registered unit; with neither, what the node's kind and block say.
        aggregation: How the node's sources become its input; by default its block's.
        ratio: Width that the line or unit is asked for, as a multiple of the block's width, rounded down;
            0: for a unit the block's width, for a line what the block's units give out.
        multiple: If given, that width is rounded to the nearest multiple of it instead, halves up.
    """

    name: str = Field(min_length=1)
    line: LineRef | None = None
    unit: UnitRef | None = None
    aggregation: AggregationRef | None = None
    ratio: float = Field(0.0, ge=0.0)
    multiple: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_line(self) -> Self:
        if self.line is not None and self.unit is not None:
            raise SpecError(f"part {self.name!r}: line and unit exclude each other: leave one out")
        if self.multiple and not self.ratio:
            raise SpecError(f"part {self.name!r}: multiple rounds what ratio says: give a ratio")
        return self


class NetworkSpec(Config):
    """A network: input, stem, blocks of units, transitions between them, head.

    Attributes:
        name: For tables and files; no part of what the network is.
        layout: `encoder`: blocks at falling resolution. `encoder_decoder`: down to the middle block and up
            again, each block on the way up beside that of its scale on the way down; an odd number of blocks.
        scope: `block`: each block's topology wires its own layers, a transition joins blocks. `global`:
            one topology wires the layers of all blocks, and features are carried to later resolutions.
        stem_ratio: Channels of the stem as a multiple of block 1's width; 0: what block 1's units give out.
        compression: Channels of a transition or carry as a share of those it reads, rounded down; 0: what
            the next block's units give out. With layout `encoder_decoder` neither it nor `stem_ratio`
            applies to what a block reads that adds its sources, for all must then have as many channels.
        up: With layout `encoder_decoder`, what takes features to the next finer resolution.
        hubs: With layout `encoder_decoder` and scope `global`: all later layers also read the last layer of
            each of the first so many blocks.
        own_graph: A connectivity graph of one's own, in place of topologies and depths; its nodes'
            `block` says which entry of `blocks` gives unit, width and aggregation, its nodes' `part`
            which entry of `parts` overrides that. Of several heads the last is the network's own, the
            others supervise earlier layers in training.
        drop: What training does at random to edges into nodes that add or average their sources.
        parts: What nodes of the given graph compute that is neither a block's unit nor a transition.

    Raises:
        SpecError: if a value is wrong (the message names its place).
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = "network"
    input: InputConfig = InputConfig()
    n_classes: int = Field(10, ge=1)
    layout: Layout = "encoder"
    scope: Literal["block", "global"] = "block"
    stem: StemRef = Ref("conv")
    stem_ratio: int = Field(0, ge=0)
    transition: TransitionRef = Ref("conv")
    carry: TransitionRef = Ref("pool")
    up: LineRef = UP
    hubs: int = Field(0, ge=0)
    compression: float = Field(0.0, ge=0.0, le=1.0)
    head: HeadRef = Ref("pool")
    blocks: tuple[BlockConfig, ...]
    drop: DropRef | None = None
    parts: tuple[PartConfig, ...] = ()
    own_graph: GraphField = Field(None, alias="graph")

    @model_validator(mode="before")
    @classmethod
    def _head_of_layout(cls, data: object) -> object:
        return with_default_head(data)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.blocks:
            raise SpecError("blocks: a network needs at least one block")
        if self.hubs and (self.layout != ENCODER_DECODER or self.scope != "global"):
            raise SpecError(f"hubs needs layout {ENCODER_DECODER!r} and scope 'global': leave it out")
        if self.own_graph is not None:
            self._check_own_graph(self.own_graph)
            return self
        if self.parts:
            raise SpecError("parts are for nodes of a given graph: give one, or leave out parts")
        for number, block in enumerate(self.blocks):
            if block.n_layers == 0:
                raise SpecError(f"blocks[{number}].n_layers must be at least 1, unless the graph is given")
            if block.n_layers == 1 and block.entry_unit:
                raise SpecError(
                    f"blocks[{number}].n_layers must be at least 2, as entry_unit takes the first"
                )
        if self.layout == ENCODER_DECODER:
            self._check_encoder_decoder()
            return self
        if self.scope == "global" and len({block.topology for block in self.blocks}) > 1:
            raise SpecError("scope 'global' has one topology for all blocks: give each block the same")
        if self.scope == "global" and any(block.entry_unit for block in self.blocks):
            raise SpecError("entry_unit needs scope 'block'")
        return self

    def _check_encoder_decoder(self) -> None:
        check_size(self.input.height, self.input.width, len(self.blocks))
        if self.hubs > len(self.blocks):
            raise SpecError(f"hubs must be at most the number of blocks, {len(self.blocks)}, got {self.hubs}")
        if any(block.entry_unit for block in self.blocks):
            raise SpecError("entry_unit needs layout 'encoder'")
        check_head(self.head)

    def _check_own_graph(self, graph: ConnectivityGraph) -> None:
        if self.scope == "global":
            raise SpecError("scope 'global' makes the graph itself: leave out scope or graph")
        if self.layout != "encoder":
            raise SpecError(f"layout {self.layout!r} makes the graph itself: leave out layout or graph")
        for number, block in enumerate(self.blocks):
            given = {
                name
                for name in ("topology", "n_layers", "entry_unit")
                if getattr(block, name) != BlockConfig.model_fields[name].default
            }
            if given:
                raise SpecError(f"blocks[{number}].{min(given)} and graph exclude each other: leave one out")
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise SpecError(f"parts: {max(names, key=names.count)!r} is given twice: rename one")
        for node in graph.nodes:
            if node.block > len(self.blocks):
                raise SpecError(
                    f"graph: node {node.name!r} is in block {node.block} of {len(self.blocks)} blocks"
                )
            if node.part and node.part not in names:
                raise SpecError(
                    f"graph: node {node.name!r} has an unknown part {node.part!r}. "
                    f"{did_you_mean(node.part, names)}"
                )
        used = {node.block for node in graph.nodes}
        for number in range(len(self.blocks)):
            if number + 1 not in used:
                raise SpecError(f"graph: no node is in block {number + 1}: remove blocks[{number}]")
        for kind in ("stem", "head"):
            found = [node.name for node in graph.nodes if node.kind == kind]
            if not found or (kind == "stem" and len(found) > 1):
                raise SpecError(f"graph: a network needs one {kind}, got {', '.join(found) or 'none'}")

    # ---- what it describes -----------------------------------------------------------------------

    def graph(self) -> ConnectivityGraph:
        """Return the connectivity graph of the whole network.

        Raises:
            SpecError: if a topology gives no graph of that depth, naming its place.
        """
        if self.own_graph is not None:
            return self.own_graph
        try:
            if self.layout == ENCODER_DECODER:
                wiring = [(block.topology, block.n_layers) for block in self.blocks]
                return encoder_decoder_graph(wiring, self.scope, self.hubs, self.even_blocks())
            if self.scope == "global":
                return graph_across_blocks(self.blocks[0].topology, [b.n_layers for b in self.blocks])
            return graph_of_blocks([(b.topology, b.n_layers, b.entry_unit) for b in self.blocks])
        except SpecError as error:
            raise SpecError(error.detail, place=error.place or self._place_of_topology()) from None

    def even_blocks(self) -> frozenset[int]:
        """Return the blocks, from 1, of layout `encoder_decoder` whose maps all have as many channels.

        Their aggregations need that; stem, transitions, carries and long skips give them as many.
        """
        if self.layout != ENCODER_DECODER:
            return frozenset()
        return even_blocks([block.aggregation for block in self.blocks])

    @property
    def node_parts(self) -> tuple[PartConfig, ...]:
        """What a node's `part` refers to: the parts given, or those that the layout brings."""
        if self.layout != ENCODER_DECODER:
            return self.parts
        return (PartConfig(name="up", line=self.up), PartConfig(name="skip", line=SKIP))

    def _place_of_topology(self) -> str:
        """Return where the first topology stands that gives no graph."""
        if self.scope == "block":
            for number, block in enumerate(self.blocks):
                try:
                    predecessors(block.topology, block.n_layers - block.entry_unit)
                except SpecError:
                    return f"blocks[{number}].topology"
        return "blocks[0].topology"

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each block."""
        return tuple(block.width for block in self.blocks)

    def with_widths(self, widths: Sequence[int]) -> Self:
        """Return the same network with another width for each block.

        Raises:
            SpecError: if there is not one width of at least 1 for each block.
        """
        return self._with_blocks("width", widths)

    def with_depths(self, depths: Sequence[int]) -> Self:
        """Return the same network with another number of layers in each block.

        Raises:
            SpecError: if the graph is given, or there is not one depth of at least 1 for each block.
        """
        if self.own_graph is not None:
            raise SpecError("the graph is given: it has the depth it has")
        return self._with_blocks("n_layers", depths)

    def _with_blocks(self, field: str, values: Sequence[int]) -> Self:
        if len(values) != len(self.blocks):
            raise SpecError(f"{len(self.blocks)} blocks need as many values of {field}, got {list(values)}")
        for number, value in enumerate(values):
            if type(value) is not int or value < 1:
                raise SpecError(
                    f"must be an integer of at least 1, got {value!r}", place=f"blocks[{number}].{field}"
                )
        blocks = [block.replaced(**{field: value}) for block, value in zip(self.blocks, values, strict=True)]
        return self.replaced(blocks=tuple(blocks))

    @classmethod
    def from_graph(
        cls,
        graph: ConnectivityGraph,
        *,
        aggregation: object = "sum",
        unit: object = "basic",
        width: int = 16,
        **settings: Any,
    ) -> Self:
        """Return a network over a graph of one's own, every block alike.

        Args:
            graph: Needs one stem and a head; of several heads the last is the network's own.
            aggregation: A registered aggregation: a name, a label or a table.
            unit: A registered unit, likewise.
            width: Width of every block.
            **settings: Other fields, such as `n_classes` and `input`.

        Raises:
            SpecError: if the graph is no whole network or a setting is wrong.
        """
        n_blocks = max(node.block for node in graph.nodes)
        block = {"aggregation": aggregation, "unit": unit, "width": width}
        return cls.from_dict({"graph": graph, "blocks": (block,) * n_blocks, **settings})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the schema's version, then all that differs from its default."""
        return {"schema": self.schema_version, **super().to_dict()}

    def __str__(self) -> str:
        return self.to_toml().rstrip()
