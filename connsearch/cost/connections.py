"""What does each connection cost: what would its network save without it, and how much is read by it?"""

from __future__ import annotations

from dataclasses import dataclass

from connsearch.cost.count import edge_tallies, line_tally
from connsearch.cost.model import BYTES
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.plan import Line, NodePlan
from connsearch.spec.reading import narrowed, reading_of
from connsearch.spec.resolve import resolve


@dataclass(frozen=True)
class Connection:
    """An edge of a network with its cost, for one image and one forward pass.

    What a connection costs is what its reader would save if it read its other sources alone: the weights
    of the connection, and where sources are concatenated the share of the operations that work on its
    channels. A reader with a single source saves nothing that way, nor does one that adds its sources,
    additions apart. Gates are computed by the source, for all of its readers, and count there.

    Attributes:
        source: Name of the node that is read.
        target: Name of the reader.
        macs: Multiply-accumulates.
        params: Trainable scalars.
        bytes_read: Of the source's map in float32.
    """

    source: str
    target: str
    macs: int
    params: int
    bytes_read: int


def connections(spec: NetworkSpec) -> list[Connection]:
    """Return every connection of a network, by reader, the oldest source first.

    Raises:
        SpecError: if the specification describes no network.
    """
    plans = resolve(spec).nodes
    return [
        Connection(
            plans[source].node.name, plan.node.name, macs, params, BYTES * plans[source].out_shape.size
        )
        for plan in plans
        for source, (macs, params) in zip(plan.sources, _savings(plan), strict=True)
    ]


def _savings(plan: NodePlan) -> list[tuple[int, int]]:
    """Return the multiply-accumulates and parameters that a node would save without each of its sources."""
    own = [(t.conv_macs + t.linear_macs + t.aggregation_macs, t.params) for t in edge_tallies(plan)]
    if len(plan.sources) < 2 or plan.in_shape.channels != sum(plan.source_channels):
        return own  # merged: what follows works on the sum of all, whatever they are
    shares = [_share(plan.line, channels) for channels in plan.source_channels]
    return [(a + c, b + d) for (a, b), (c, d) in zip(own, shares, strict=True)]


def _share(line: Line, channels: int) -> tuple[int, int]:
    """Return what a line of operations would save if it read so many channels less."""
    reading = reading_of(line.chain, line.in_shape.channels)
    if reading is None:
        return 0, 0
    left = line.in_shape.channels - channels
    shape = Shape(left, line.in_shape.height, line.in_shape.width)
    less = line_tally(Line(narrowed(line.chain, reading, left), shape, line.out_shape))
    whole = line_tally(line)
    macs = whole.conv_macs + whole.linear_macs - less.conv_macs - less.linear_macs
    return macs, whole.params - less.params
