"""Where does a line of operations first mix the channels that it reads?

Up to there every channel goes its own way, so that a share of the input can be followed to the weights
that read it, and left out together with them.
"""

from __future__ import annotations

from typing import NamedTuple

from connsearch.spec.ops import (
    Act,
    Chain,
    Conv,
    Deconv,
    DepthwiseConv,
    GlobalPool,
    Linear,
    Norm,
    Op,
    Pool,
    Position,
    Upsample,
    op_names,
)


class Reading(NamedTuple):
    """How a line reads its input's channels.

    Attributes:
        along: Names of the operations before the mixing one; the first axis of each of their tensors that
            has one is the input's channels.
        mixer: Name of the first operation that mixes channels: a convolution or a linear layer.
        axis: Axis of its weight that is the input's channels.
        per_channel: Entries of that axis for each channel; more than one where a linear layer reads pixels.
    """

    along: tuple[str, ...]
    mixer: str
    axis: int
    per_channel: int = 1


def reading_of(chain: Chain, channels: int) -> Reading | None:
    """Return how a line reads its `channels`; None if no such operation mixes them all.

    That is so of a line without convolutions, of one that begins with channels in groups, and of one that
    takes channels apart.

    >>> reading_of((Norm("batch", 6), Act("relu"), Conv(6, 4)), 6)
    Reading(along=('norm1', 'act1'), mixer='conv1', axis=1, per_channel=1)
    """
    names = op_names(chain)
    for place, op in enumerate(chain):
        if isinstance(op, Conv) and op.groups == 1:
            return Reading(tuple(names[:place]), names[place], 1)
        if isinstance(op, Deconv):
            return Reading(tuple(names[:place]), names[place], 0)
        if isinstance(op, Linear):
            return Reading(tuple(names[:place]), names[place], 1, op.in_features // channels)
        if not isinstance(op, Norm | Act | Pool | GlobalPool | Upsample | Position | DepthwiseConv):
            return None
    return None


def narrowed(chain: Chain, reading: Reading, channels: int) -> Chain:
    """Return the same line for fewer input channels.

    >>> narrowed((Act("relu"), Conv(6, 4)), Reading(("act1",), "conv1", 1), 5)[1].in_channels
    5
    """
    place = len(reading.along)
    first = (_narrow(op, channels, reading.per_channel) for op in chain[: place + 1])
    return (*first, *chain[place + 1 :])


def _narrow(op: Op, channels: int, per_channel: int) -> Op:
    if isinstance(op, Norm | Position | DepthwiseConv):
        return op._replace(channels=channels)
    if isinstance(op, Conv | Deconv):
        return op._replace(in_channels=channels)
    if isinstance(op, Linear):
        return op._replace(in_features=channels * per_channel)
    return op
