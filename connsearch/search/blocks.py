"""BlocksSpace: what the blocks of a space's networks may be, and which knobs that makes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from connsearch.config import Config
from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref
from connsearch.search.choices import (
    FLOAT_OF_WAYS,
    INT_CHOICE,
    INT_OF_WAYS,
    AnyOf,
    Choice,
    Fixed,
    IntRange,
    Ways,
    of_way,
    ref_choice,
    values,
)
from connsearch.search.layouts import PER_BLOCK, block_places, ways_of
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import UNITS
from connsearch.spec.encoder_decoder import ENCODER_DECODER

if TYPE_CHECKING:
    TopologyChoice = Choice | Ways
    AggregationChoice = Choice | Ways
    UnitChoice = Choice | Ways
    CountChoice = Choice
    DepthChoice = Choice | Ways
    RatioChoice = Choice | Ways
else:
    TopologyChoice, AggregationChoice = ref_choice(TOPOLOGIES, ways=True), ref_choice(AGGREGATIONS, ways=True)
    UnitChoice = ref_choice(UNITS, ways=True)
    CountChoice, DepthChoice, RatioChoice = INT_CHOICE, INT_OF_WAYS, FLOAT_OF_WAYS

WIDTH_RATIOS = (0.01, 100.0)
OF_WAYS = (*PER_BLOCK, "n_layers", "width_ratio")


class BlocksSpace(Config):
    """What the blocks may be.

    Every field but `count` and `per_block` may be a table of down and up in a space of layout
    `encoder_decoder`: a choice for the blocks on the way down, the middle one included, and one for those
    on the way up.

    Attributes:
        count: Number of blocks; of layout `encoder_decoder` an odd one, twice the halvings and one.
        topology, aggregation, unit: Of every block alike, unless named in `per_block` or given by way.
        n_layers: Number of units, for each block on its own.
        width_ratio: Width of a block over that of the block before, for each on its own; 0.01 to 100. With
            layout `encoder_decoder` over that of its neighbour at the next finer resolution on either way.
        per_block: Which of topology, aggregation and unit are chosen for each block on its own.
    """

    count: CountChoice = Fixed(3)
    topology: TopologyChoice = Fixed(Ref("dense"))
    aggregation: AggregationChoice = Fixed(Ref("sum"))
    unit: UnitChoice = Fixed(Ref("basic"))
    n_layers: DepthChoice
    width_ratio: RatioChoice = Fixed(2.0)
    per_block: tuple[Literal["topology", "aggregation", "unit"], ...] = ()

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for name, least, most in (
            ("count", 1, math.inf),
            ("n_layers", 1, math.inf),
            ("width_ratio", *WIDTH_RATIOS),
        ):
            found = values(getattr(self, name))
            if min(found) < least:
                raise SpecError(f"must be at least {least}, got {min(found)}", place=name)
            if max(found) > most:
                raise SpecError(f"must be at most {most}, got {max(found)}", place=name)
        return self

    def check_layout(self, layout: str) -> None:
        """Refuse what a layout cannot have: an even number of blocks, a way up of an encoder.

        Raises:
            SpecError: naming the field.
        """
        if layout == ENCODER_DECODER:
            even = next((count for count in _counts(self.count) if count % 2 == 0), None)
            if even is not None:
                raise SpecError(
                    f"layout {layout!r} goes down and up again: an odd number of blocks, got {even}",
                    place="blocks.count",
                )
            return
        for name in OF_WAYS:
            if isinstance(getattr(self, name), Ways):
                raise SpecError(
                    f"a way down and a way up need layout {ENCODER_DECODER!r}, this is {layout!r}",
                    place=f"blocks.{name}",
                )

    def knobs(self, layout: str) -> Iterator[tuple[str, Choice]]:
        """Yield each knob of the blocks, as a study records it, with its choice."""
        most = max(values(self.count))
        places = block_places(layout, most)
        for name in PER_BLOCK:
            choice = getattr(self, name)
            if name in self.per_block:
                yield from ((f"{name}_{place.name}", of_way(choice, place.way)) for place in places)
            elif isinstance(choice, Ways):
                yield from ((f"{name}_{way}", of_way(choice, way)) for way in ways_of(layout, most))
            else:
                yield name, choice
        for name, first in (("n_layers", 0), ("width_ratio", 1)):
            choice = getattr(self, name)
            yield from ((f"{name}_{place.name}", of_way(choice, place.way)) for place in places[first:])

    def least_depths(self, layout: str, count: int) -> list[int]:
        """Return the fewest layers of each of so many blocks."""
        return [min(values(of_way(self.n_layers, place.way))) for place in block_places(layout, count)]


def _counts(choice: Choice) -> list[int]:
    """Return values of a choice among which there is an even one if there is any at all."""
    if isinstance(choice, IntRange):
        return list(range(choice.low, choice.high + 1, choice.step))[:2]
    return list(choice.values) if isinstance(choice, AnyOf) else values(choice)
