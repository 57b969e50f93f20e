"""What are the knobs of a space's blocks called, and which block does each stand for?

Of an encoder blocks are counted in order: `n_layers_2`. Of an encoder-decoder they are counted on each way
from the finest resolution, the lowest being the last on the way down, so that a name means the same for any
number of blocks: `n_layers_down_2`, `n_layers_up_1`. A knob of all blocks of a way is called after it,
`topology_up`; one of all blocks is not: `topology`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from connsearch.spec.encoder_decoder import ENCODER_DECODER

PER_NETWORK = ("scope", "stem", "transition", "carry", "up", "head")
NUMBERS = ("stem_ratio", "hubs", "compression")
PER_BLOCK = ("topology", "aggregation", "unit")
CATEGORIES = (*PER_NETWORK, *PER_BLOCK)


class BlockPlace(NamedTuple):
    """Where a block is: its way, "down", "up" or "" of an encoder, and its number there, from 1."""

    way: str
    number: int

    @property
    def name(self) -> str:
        """What its own knobs end in."""
        return f"{self.way}_{self.number}" if self.way else str(self.number)


def block_places(layout: str, count: int) -> list[BlockPlace]:
    """Return the places of so many blocks, in order; those of fewer blocks are among them.

    >>> [place.name for place in block_places("encoder_decoder", 5)]
    ['down_1', 'down_2', 'down_3', 'up_2', 'up_1']
    """
    if layout != ENCODER_DECODER:
        return [BlockPlace("", number) for number in range(1, count + 1)]
    halvings = count // 2
    down = [BlockPlace("down", scale) for scale in range(1, halvings + 2)]
    return [*down, *(BlockPlace("up", scale) for scale in range(halvings, 0, -1))]


def ways_of(layout: str, count: int) -> list[str]:
    """Return the ways that blocks lie on: "down" and "up", or "" of an encoder."""
    return list(dict.fromkeys(place.way for place in block_places(layout, count)))


def of_block(knobs: Mapping[str, Any], name: str, place: BlockPlace) -> Any:
    """Return the value of a block's own knob, or of its way's, or of all blocks'."""
    for knob in (f"{name}_{place.name}", f"{name}_{place.way}"):
        if knob in knobs:
            return knobs[knob]
    return knobs[name]


def base_name(knob: str) -> str:
    """Return what a knob says, without of which blocks.

    >>> base_name("width_ratio_up_1"), base_name("topology_down"), base_name("n_layers_3"), base_name("up")
    ('width_ratio', 'topology', 'n_layers', 'up')
    """
    return re.sub(r"(_down|_up)?(_\d+)?$", "", knob)


def has_block(knob: str, layout: str, count: int) -> bool:
    """Return whether the block that a knob stands for is one of so many; of a knob of several, one of them.

    >>> has_block("n_layers_up_2", "encoder_decoder", 3), has_block("n_layers_up_2", "encoder_decoder", 5)
    (False, True)
    """
    ending = knob.removeprefix(base_name(knob)).removeprefix("_")
    known = block_places(layout, count)
    return not ending or ending in {place.name for place in known} | {place.way for place in known}
