"""The tournament: which topology and aggregation win when all else is equal: MACs, depth, seeds?

A tournament is a study whose trials are given: trial n trains contestant n mod P with the seeds of number
n div P, so that seeds are completed round by round and every contestant trains with the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from connsearch.config import Config
from connsearch.cost import network_cost
from connsearch.errors import BudgetError, SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref, ref_field
from connsearch.search.blocks import WIDTH_RATIOS
from connsearch.search.choices import AnyOf, Choice, Fixed, IntRange, Ways, middle, values
from connsearch.search.given import Given
from connsearch.search.layouts import NUMBERS, PER_NETWORK
from connsearch.search.measures import VAL_ERROR, VAL_IOU_ERROR
from connsearch.search.space import Member, SearchSpace
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.text import si

if TYPE_CHECKING:
    from connsearch.search.config import StudyConfig

    TopologyRef = Ref
    AggregationRef = Ref
else:
    TopologyRef, AggregationRef = ref_field(TOPOLOGIES), ref_field(AGGREGATIONS)

_SHOWN = 2  # pairs whose reason a message gives


class Contestant(Config):
    """One network of a tournament.

    Attributes:
        topology: Of all blocks.
        aggregation: Of all blocks.
        same_as: Other names of the same network: pairs that are no contestants of their own.
    """

    topology: TopologyRef
    aggregation: AggregationRef
    same_as: tuple[str, ...] = ()

    @property
    def pair(self) -> str:
        """Its first name."""
        return pair(self.topology, self.aggregation)

    @property
    def pairs(self) -> tuple[str, ...]:
        """All its names."""
        return (self.pair, *self.same_as)


class LeftOut(Config):
    """A pair that does not take part, and why."""

    pair: str
    reason: str


class TournamentConfig(Config):
    """The table `tournament` of a study: what all pairs of topology and aggregation have in common.

    What is not said comes from the space: its fixed value; of several values or a range the middle one, of
    MACs the geometric mean to two digits.

    Attributes:
        macs: Budget of every network.
        seeds: How many times every network is trained. More may be asked for later.
        count: Number of blocks.
        n_layers: Units of every block.
        width_ratio: Width of a block over that of the block before.
        topologies: Which take part; by default those of the space.
        aggregations: Which take part; by default those of the space.
        contestants: Filled in when a tournament begins.
        left_out: Filled in when a tournament begins.
    """

    macs: int | None = Field(None, ge=1)
    seeds: int = Field(5, ge=1)
    count: int | None = Field(None, ge=1)
    n_layers: int | None = Field(None, ge=1)
    width_ratio: float | None = Field(None, ge=WIDTH_RATIOS[0], le=WIDTH_RATIOS[1])
    topologies: tuple[TopologyRef, ...] = ()
    aggregations: tuple[AggregationRef, ...] = ()
    contestants: tuple[Contestant, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @model_validator(mode="after")
    def _different(self) -> Self:
        for name in ("topologies", "aggregations"):
            labels = [ref.label for ref in getattr(self, name)]
            if len(set(labels)) < len(labels):
                raise SpecError(f"names must differ, got {', '.join(labels)}", place=name)
        return self

    def given(self, space: SearchSpace, number: int) -> Given:
        """Return the knobs and seeds of a trial: a contestant after the other, then the next seeds."""
        seeds, place = divmod(number, len(self.contestants))
        return Given(_knobs(space, self.contestants[place]), seeds)

    def identity(self) -> dict[str, Any] | None:
        """Return what must agree for two runs to belong to one tournament; None before there is one."""
        if not self.contestants:
            return None
        return self.model_dump(mode="json", exclude={"seeds"})


def pair(topology: Ref, aggregation: Ref) -> str:
    """Return the name of a pair."""
    return f"{topology} x {aggregation}"


# ---- what a tournament is made of ----------------------------------------------------------------------


def tournament_of(config: StudyConfig) -> StudyConfig:
    """Return the study that is the tournament of a study: a space of one shape, contestants, trials.

    Categories besides topology and aggregation that are choices (stem, unit, ...) take their first value.

    Raises:
        SpecError: if fewer than two different networks meet the budget, a value is wrong, or the study
            compares by mean IoU.
    """
    if VAL_IOU_ERROR in config.objectives:
        raise SpecError(
            f"a tournament ranks by {VAL_ERROR}, the share of wrong pixels, this study by {VAL_IOU_ERROR}: "
            f"put {VAL_ERROR} in its place",
            place="objectives",
        )
    table = config.tournament or TournamentConfig()
    space = _one_shape(config.space, table)
    contestants, left_out = _contestants(space)
    if len(contestants) < 2:
        reasons = [f"{contestant.pair} is the only network" for contestant in contestants]
        reasons += [f"{left.pair}: {left.reason}" for left in left_out[:_SHOWN]]
        if len(left_out) > _SHOWN:
            reasons.append(f"{len(left_out) - _SHOWN} more do not meet it either")
        raise SpecError(
            f"a tournament needs two different networks at {si(_fixed(space.budget.macs))}MACs: "
            f"{'; '.join(reasons)}",
            place="tournament",
        )
    topologies = {c.topology: None for c in contestants}
    aggregations = {c.aggregation: None for c in contestants}
    blocks = space.blocks.model_copy(
        update={"topology": _one_or_any(topologies), "aggregation": _one_or_any(aggregations)}
    )
    settled = table.model_copy(
        update={
            "macs": _fixed(space.budget.macs),
            "count": _fixed(space.blocks.count),
            "n_layers": _fixed(space.blocks.n_layers),
            "width_ratio": _fixed(space.blocks.width_ratio),
            "topologies": tuple(values(space.blocks.topology)),
            "aggregations": tuple(values(space.blocks.aggregation)),
            "contestants": tuple(contestants),
            "left_out": tuple(left_out),
        }
    )
    return config.bare(
        space=space.model_copy(update={"blocks": blocks}),
        n_trials=table.seeds * len(contestants),
        tournament=settled,
    )


def _one_shape(space: SearchSpace, table: TournamentConfig) -> SearchSpace:
    """Return a space in which only topology and aggregation are chosen."""
    budget, blocks = space.budget, space.blocks
    common = {"count": table.count, "n_layers": table.n_layers, "width_ratio": table.width_ratio}
    shape = {name: _middle(name, getattr(blocks, name)) if n is None else n for name, n in common.items()}
    topologies = table.topologies or values(blocks.topology)
    aggregations = table.aggregations or values(blocks.aggregation)
    one = {
        "topology": _one_or_any(dict.fromkeys(topologies)),
        "aggregation": _one_or_any(dict.fromkeys(aggregations)),
        "unit": _first(blocks.unit),
        "per_block": (),
        **{name: Fixed(value) for name, value in shape.items()},
    }
    macs = _middle_macs(budget.macs) if table.macs is None else table.macs
    return space.model_copy(
        update={
            **{name: _first(getattr(space, name)) for name in PER_NETWORK},
            **{name: Fixed(middle(getattr(space, name))) for name in NUMBERS},
            "blocks": blocks.model_copy(update=one),
            "budget": budget.model_copy(update={"macs": Fixed(macs)}),
        }
    )


def _middle(name: str, choice: Choice | Ways) -> Any:
    try:
        return middle(choice)
    except SpecError as error:
        raise SpecError(str(error), place=f"tournament.{name}") from None


def _middle_macs(choice: Choice) -> int:
    """Return the middle budget, of a range the geometric mean to two digits where that lies in the range."""
    if not isinstance(choice, IntRange):
        return int(middle(choice))
    exact = math.sqrt(choice.low * choice.high)
    return min(max(int(float(f"{exact:.1e}")), choice.low), choice.high)


def _contestants(space: SearchSpace) -> tuple[list[Contestant], list[LeftOut]]:
    """Return the different networks of a space of one shape, and the pairs that do not meet its budget."""
    from connsearch.search.twins import network_hash

    found: dict[str, Contestant] = {}
    left_out = []
    for candidate in _pairs(space):
        try:
            member = space.member(_knobs(space, candidate))
            _check_budget(member)
        except (BudgetError, SpecError) as error:
            left_out.append(LeftOut(pair=candidate.pair, reason=str(error)))
            continue
        digest = network_hash(member.spec)
        first = found.get(digest)
        if first is not None:
            candidate = first.model_copy(update={"same_as": (*first.same_as, candidate.pair)})
        found[digest] = candidate
    return list(found.values()), left_out


def _check_budget(member: Member) -> None:
    """Raise `BudgetError` if a member's MACs are not those of its budget, to its tolerance."""
    macs, budget = network_cost(member.spec).macs, member.budget
    assert budget.macs is not None
    if macs < (1 - budget.tolerance) * budget.macs:
        raise BudgetError(
            f"comes to {100 * macs / budget.macs:.1f} % of its budget only, "
            f"{100 * (1 - budget.tolerance):g} % are needed: raise the budget or its tolerance"
        )


def _pairs(space: SearchSpace) -> Iterator[Contestant]:
    for topology in values(space.blocks.topology):
        for aggregation in values(space.blocks.aggregation):
            yield Contestant(topology=topology, aggregation=aggregation)


def _knobs(space: SearchSpace, contestant: Contestant) -> dict[str, Any]:
    """Return the knobs of a contestant as they are recorded, without those that only have one value."""
    refs = {"topology": contestant.topology, "aggregation": contestant.aggregation}
    return {
        name: ref.label for name, ref in refs.items() if not isinstance(getattr(space.blocks, name), Fixed)
    }


def _one_or_any(options: Mapping[Ref, None]) -> Choice:
    found = tuple(options)
    return AnyOf(found) if len(found) > 1 else Fixed(found[0])


def _first(choice: Choice | Ways) -> Fixed:
    return Fixed(values(choice)[0])


def _fixed(choice: Choice | Ways) -> Any:
    return values(choice)[0]


# ---- in words ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What all networks of a tournament have in common.

    Attributes:
        macs: Budget of every network.
        count: Number of blocks.
        n_layers: Units of every block.
        width_ratio: Width of a block over that of the block before.
        others: Categories that are not the default, in words, such as "unit bottleneck".
    """

    macs: int
    count: int
    n_layers: int
    width_ratio: float
    others: tuple[str, ...]

    def __str__(self) -> str:
        blocks = f"{self.count} block{'s' if self.count > 1 else ''} of {self.n_layers} layers"
        ratio = f", width ratio {self.width_ratio:g}" if self.count > 1 else ""
        return ", ".join([f"{si(self.macs)}MACs", f"{blocks}{ratio}", *self.others])


def shape_of(config: StudyConfig) -> Shape:
    """Return the shape of a tournament; what else is not the default is named."""
    space, blocks = config.space, config.space.blocks
    homes = {**dict.fromkeys((*PER_NETWORK, *NUMBERS), space), "unit": blocks}
    chosen = {name: getattr(home, name) for name, home in homes.items()}
    usual = {name: type(home).model_fields[name].default for name, home in homes.items()}
    others = [f"{name} {_fixed(chosen[name])}" for name in chosen if chosen[name] != usual[name]]
    layout = [f"layout {space.layout}"] if space.layout != "encoder" else []
    return Shape(
        _fixed(space.budget.macs),
        _fixed(blocks.count),
        _fixed(blocks.n_layers),
        _fixed(blocks.width_ratio),
        (*layout, *others),
    )
