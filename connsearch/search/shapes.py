"""Which network do the knobs of a space stand for, before its widths are solved?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from connsearch.search.choices import values
from connsearch.search.layouts import PER_BLOCK, PER_NETWORK, BlockPlace, block_places, of_block
from connsearch.spec.aggregations import AGGREGATIONS, rule_of
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.spec.network import NetworkSpec

if TYPE_CHECKING:
    from connsearch.search.space import SearchSpace

RATIO_UNIT = 1000  # widths of a shape are ratios in thousandths
WIDEST_RATIO = 10**18  # in the same unit; the narrowest is 1


def shape_of(space: SearchSpace, knobs: Mapping[str, Any]) -> NetworkSpec:
    """Return the network that a value for every knob stands for; its widths are ratios only.

    Knobs of blocks that it has not are ignored.
    """
    width, blocks = float(RATIO_UNIT), []
    for place in block_places(space.layout, knobs["count"]):
        width = min(max(_next_width(width, place, knobs), 1), WIDEST_RATIO)
        block = {name: of_block(knobs, name, place) for name in (*PER_BLOCK, "n_layers")}
        blocks.append({**block, "width": round(width)})
    numbers = _numbers(space.layout, knobs, [block["aggregation"] for block in blocks])
    return NetworkSpec(
        input=space.input,
        n_classes=space.n_classes,
        layout=space.layout,
        blocks=tuple(blocks),
        **{name: knobs[name] for name in PER_NETWORK},
        **numbers,
    )


def has_number(space: SearchSpace, name: str, drawn: Mapping[str, Any]) -> bool:
    """Return whether a member of these knobs depends on `stem_ratio`, `hubs` or `compression`."""
    knobs = {knob: drawn.get(knob, values(choice)[0]) for knob, choice in space.all_knobs().items()}
    places = block_places(space.layout, knobs["count"])
    aggregations = [AGGREGATIONS.parse(of_block(knobs, "aggregation", place)) for place in places]
    return bool(_numbers(space.layout, {**knobs, name: 1}, aggregations)[name])


def _numbers(layout: str, knobs: Mapping[str, Any], aggregations: Sequence[Any]) -> dict[str, Any]:
    """Return the numbers of a network, 0 where they do not apply to it."""
    even = [rule_of(aggregation).equal_channels for aggregation in aggregations]
    if layout == ENCODER_DECODER:  # which passes on to each block as many channels as that one needs
        compresses, has_hubs = not all(even), knobs["scope"] == "global"
    else:
        compresses, has_hubs = not any(even), False
    return {
        "stem_ratio": 0 if even[0] else knobs["stem_ratio"],
        "compression": knobs["compression"] if compresses else 0.0,
        "hubs": min(knobs["hubs"], len(even)) if has_hubs else 0,
    }


def _next_width(width: float, place: BlockPlace, knobs: Mapping[str, Any]) -> float:
    """Return the width of a block, from that of the block before."""
    ratio = knobs.get(f"width_ratio_{place.name}", 1)  # the first block has none
    return float(width / ratio if place.way == "up" else width * ratio)
