"""Cost block by block, without a look at each layer, where all maps of a block have one shape.

The cost of a network is then that of a node of each sort, times how many there are, which
`connsearch.cost.patterns` knows. Node by node, `count` and `memory` give the same for any network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from connsearch.cost.count import Tally, add_tallies, edge_tally, join_tally, line_tally
from connsearch.cost.memory import (
    ActivationMemory,
    LineMemory,
    gates_saved,
    joining,
    keeps_sources,
    line_memory,
    maximal,
    saved,
)
from connsearch.cost.patterns import Pattern, pattern_of
from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.spec.aggregations import rule_of
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.plan import Line
from connsearch.spec.resolve import gates_of, image_shape, joined_shape
from connsearch.spec.shaped import Lines


class Block(NamedTuple):
    """A block of a network: its pattern, the shape of its maps, and the operations of each tier."""

    aggregation: Ref
    pattern: Pattern
    shape: Shape
    lines: tuple[Line, ...]


class BlockPlan(NamedTuple):
    """A network of blocks each of which has maps of one shape."""

    image: Shape
    stem: Line
    blocks: tuple[Block, ...]

    @property
    def n_layers(self) -> int:
        """Number of units."""
        return sum([block.pattern.n_layers for block in self.blocks])

    @property
    def n_edges(self) -> int:
        """Number of connections."""
        return sum([block.pattern.n_edges for block in self.blocks])


# ---- from a specification to its blocks ----------------------------------------------------------------


def resolve_blocks(spec: NetworkSpec, widths: Sequence[int] | None = None) -> BlockPlan | None:
    """Return a network's blocks; None if one has maps of several shapes, or it is no chain of blocks.

    None, too, if the specification describes no network: to resolve it node by node says why.
    """
    if spec.own_graph is not None or spec.layout != "encoder" or spec.scope != "block":
        return None
    if spec.drop is not None or spec.compression:
        return None
    try:
        lines, image = Lines(spec, tuple(widths or spec.widths)), image_shape(spec)
        stem = lines.line("stem", 1, image)
        blocks = tuple(_blocks(spec, lines, stem.out_shape))
    except SpecError:
        return None
    return BlockPlan(image, stem, blocks) if len(blocks) == len(spec.blocks) else None


def _blocks(spec: NetworkSpec, lines: Lines, shape: Shape) -> Iterator[Block]:
    """Yield block after block, up to one that has maps of several shapes; `shape` is the stem's output."""
    for number, config in enumerate(spec.blocks, start=1):
        if shape.channels != lines.block_out[number - 1]:
            return
        ref = config.aggregation
        rule = rule_of(ref)
        pattern = pattern_of(config.topology, config.n_layers, config.entry_unit, ref)
        leaver = ("head", number) if number == len(spec.blocks) else ("transition", number + 1)
        found: list[Line] = []
        for (n, leaves, footprint, _), *_ in pattern.tiers:
            in_shape = shape if footprint is None else joined_shape(rule, shape, (shape.channels,) * n)
            line = lines.line(*(leaver if leaves else ("unit", number)), in_shape)
            if not leaves and line.out_shape != shape:
                return
            found.append(line)
        yield Block(ref, pattern, shape, tuple(found))
        shape = found[-1].out_shape


# ---- cost ----------------------------------------------------------------------------------------------


def blocks_tally(plan: BlockPlan) -> Tally:
    """Return the sum over all nodes and edges."""
    tallies, counts = [line_tally(plan.stem)], [1]
    for ref, pattern, shape, lines in plan.blocks:
        pixels = shape.height * shape.width
        for tier, line in zip(pattern.tiers, lines, strict=True):
            tallies.append(line_tally(line))
            counts.append(tier.n_nodes)
            for n, n_nodes in tier.joins:
                tallies.append(join_tally(ref, n, line.in_shape.channels, pixels))
                counts.append(n_nodes)
        for gates in pattern.gates:
            tallies.append(line_tally(gates_of(ref, shape, gates.n_readers)))
            counts.append(gates.n_nodes)
        tallies += [edge_tally(ref, first, shape.channels, pixels) for first in (True, False)]
        counts += pattern.edges
    return add_tallies(tallies, counts)


def blocks_memory(plan: BlockPlan) -> ActivationMemory:
    """Return the memory of activations in evaluation and in training."""
    image, entry = plan.image.size, line_memory(plan.stem)
    moments = list(entry.lent)
    training = [entry.saved, image if entry.saves_input else 0]
    for block in plan.blocks:
        lines = [line_memory(line) for line in block.lines]
        moments += _moments(block, lines)
        training += _saved(block, lines, entry.saves_output)
        entry = lines[-1]
    if entry.saves_output:
        training.append(entry.written)
    return ActivationMemory([image + most for most in maximal(moments)], sum(training))


def _moments(block: Block, lines: Sequence[LineMemory]) -> Iterator[Any]:
    """Yield what is alive, the image apart, at each moment at which that may be the most."""
    size = block.shape.size
    for (sort, _, _, before, after, *_), line in zip(block.pattern.tiers, lines, strict=True):
        if sort.footprint is not None:
            joined = joining(line, sort.footprint)
            for maps, gates in before:
                yield maps * size + gates + joined
        for allocated in line.owned if sort.owned else line.lent:
            for maps, gates in after:
                yield maps * size + gates + allocated
    for n_readers, _, beside in block.pattern.gates:
        for allocated in line_memory(gates_of(block.aggregation, block.shape, n_readers)).lent:
            for maps, gates in beside:
                yield maps * size + gates + allocated


def _saved(block: Block, lines: Sequence[LineMemory], input_kept: bool) -> Iterator[Any]:
    """Yield what is kept for backward by the block's nodes, and those of its maps that are.

    Args:
        block: The block.
        lines: Memory of each tier's operations.
        input_kept: Whether the operations that give out the block's input keep it.
    """
    maps = int(input_kept)
    for tier, line in zip(block.pattern.tiers, lines, strict=True):
        footprint = tier.sort.footprint
        yield tier.n_nodes * saved(line, footprint)
        if keeps_sources(line, footprint):
            maps |= tier.sources
        if line.saves_output:
            maps |= tier.outputs
    yield maps.bit_count() * block.shape.size
    for gates in block.pattern.gates:
        yield gates.n_nodes * gates_saved(gates_of(block.aggregation, block.shape, gates.n_readers))
