"""Layout `encoder_decoder`: which network do blocks form that go down in resolution and up again?

Blocks are numbered along the way: with h halvings there are 2 h + 1, the middle one at the lowest resolution,
and block b on the way up has the scale of block 2 h + 2 - b on the way down.

Scope `block` is the way of FC-DenseNets (Jegou et al., arXiv 1611.09326): what a block gives out on the way
down goes on through a transition, and across to the block of its scale on the way up, which reads it beside
what comes up. Scope `global` is that of FC-Log-DenseNets (Hu et al., arXiv 1711.00002): a layer reads earlier
ones by a rule over the whole depth, each carried to its scale; what a scale had on the way down is read as it
was. Blocks may have different topologies: each layer follows its own block's rule, counted over all layers.

An aggregation that needs sources of equal channels gets them (its block is called even): whatever enters the
block has the channels of its units, long skips through a 1x1 convolution of their own; what leaves it
includes its input, while a block that concatenates sends its layers alone up, or channels would pile up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, predecessors
from connsearch.graph.build import graph_of_rule
from connsearch.graph.decoder import dense_blocks_graph, way_down_and_up
from connsearch.graph.patterns import Rule, pattern_rule
from connsearch.registry import Ref
from connsearch.spec.aggregations import rule_of
from connsearch.spec.ends import predicts_pixels

Layout = Literal["encoder", "encoder_decoder"]
ENCODER_DECODER = "encoder_decoder"

UP = Ref("deconv", (("activation", "relu"), ("norm", "batch")))
SKIP = Ref("projection", (("activation", "relu"), ("norm", "batch"), ("order", "pre")))
"""What takes a feature up, and across to a block whose maps all have as many channels."""


def encoder_decoder_graph(
    blocks: Sequence[tuple[Ref, int]], scope: str, hubs: int, even: Collection[int]
) -> ConnectivityGraph:
    """Return the graph of the layout.

    Args:
        blocks: Topology and number of layers of each block.
        scope: `block` or `global`.
        hubs: With scope `global`, the last layers of so many first blocks are read by all later layers.
        even: Blocks, from 1, whose maps all have as many channels.

    Raises:
        SpecError: if a topology refuses its block, or the number of blocks is even.
    """
    depths = [depth for _, depth in blocks]
    scales = way_down_and_up(depths)
    if scope == "block":
        return dense_blocks_graph([predecessors(*block) for block in blocks], scales, even=even)
    ends = [sum(depths[: b + 1]) for b in range(hubs)]
    rule = _rule([topology for topology, _ in blocks], depths, ends)
    return graph_of_rule(
        rule, depths, scales=scales, up="up", anew=[number - 1 for number in even], skip="skip"
    )


def _rule(topologies: Sequence[Ref], depths: Sequence[int], hubs: Sequence[int]) -> Rule:
    """Return what each layer reads, by its own block's topology, and last the head."""
    rules = {topology: pattern_rule(topology, depths, hubs=hubs) for topology in dict.fromkeys(topologies)}
    of_layer = [topology for topology, depth in zip(topologies, depths, strict=True) for _ in range(depth)]
    return (*(rules[topology][i] for i, topology in enumerate(of_layer)), rules[topologies[-1]][-1])


def even_blocks(aggregations: Sequence[Ref]) -> frozenset[int]:
    """Return the blocks, from 1, whose aggregation needs sources of equal channels.

    Raises:
        SpecError: if a parameter has a value that an aggregation does not take.
    """
    found = set()
    for number, aggregation in enumerate(aggregations):
        try:
            if rule_of(aggregation).equal_channels:
                found.add(number + 1)
        except SpecError as error:
            raise SpecError(str(error), place=f"blocks[{number}].aggregation") from None
    return frozenset(found)


def check_size(height: int, width: int, n_blocks: int) -> None:
    """Make sure that images of a size can go down and up again, to the same size.

    Raises:
        SpecError: if the number of blocks is even, or height or width cannot be halved often enough.
    """
    if n_blocks % 2 == 0:
        raise SpecError(
            f"layout {ENCODER_DECODER!r} goes down and up again: an odd number, got {n_blocks}",
            place="blocks",
        )
    halvings = n_blocks // 2
    step = 1 << halvings
    if height % step or width % step:
        fitting = " x ".join(str(-(-size // step) * step) for size in (height, width))
        fewer = next(h for h in range(halvings, -1, -1) if height % (1 << h) == width % (1 << h) == 0)
        often = {1: "once", 2: "twice"}.get(halvings, f"{halvings} times")
        raise SpecError(
            f"{height} x {width} pixels cannot be halved {often}: with {n_blocks} blocks height and "
            f"width must be multiples of {step}: use {fitting} pixels or {2 * fewer + 1} "
            f"block{'s' if fewer else ''}",
            place="input",
        )


def check_head(head: Ref) -> None:
    """Make sure that a head predicts pixels.

    Raises:
        SpecError: if it does not.
    """
    if not predicts_pixels(head):
        raise SpecError(
            f"{head.label!r} predicts images: layout {ENCODER_DECODER!r} needs a head for pixels, "
            "such as 'pixels'",
            place="head",
        )


def with_default_head(data: object) -> object:
    """Return the values of a specification, a head for pixels added where the layout needs one."""
    if isinstance(data, Mapping) and data.get("layout") == ENCODER_DECODER and "head" not in data:
        return {**data, "head": "pixels"}
    return data
