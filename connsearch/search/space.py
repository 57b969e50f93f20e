"""SearchSpace: which networks a study may try, all of them at a budget that is met by construction.

A member is drawn in two steps: the knobs (topology, aggregation, depths, ratios of widths, budget), then
the integer widths, which are solved so that the cost lies just below the budget. Every knob is always
drawn, its range never depends on another knob, so that samplers can learn; a knob that does not apply
(the depth of a third block in a network of two) is ignored.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from connsearch.config import Config
from connsearch.cost import Budget, fit_width, network_cost
from connsearch.errors import BudgetError, SpecError, did_you_mean
from connsearch.registry import Ref
from connsearch.search.blocks import BlocksSpace
from connsearch.search.choices import (
    FLOAT_CHOICE,
    INT_CHOICE,
    LADDER_CHOICE,
    TEXT_CHOICE,
    AnyOf,
    Choice,
    Fixed,
    IntRange,
    draw,
    ref_choice,
    values,
)
from connsearch.search.layouts import (
    CATEGORIES,
    NUMBERS,
    PER_NETWORK,
    base_name,
)
from connsearch.search.shapes import shape_of
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS
from connsearch.spec.encoder_decoder import (
    ENCODER_DECODER,
    UP,
    Layout,
    check_head,
    check_size,
    with_default_head,
)
from connsearch.spec.network import InputConfig, NetworkSpec

if TYPE_CHECKING:
    StemChoice = Choice
    TransitionChoice = Choice
    LineChoice = Choice
    HeadChoice = Choice
    IntChoice = Choice
    FloatChoice = Choice
    TextChoice = Choice
    LadderChoice = Choice
else:
    StemChoice, TransitionChoice = ref_choice(STEMS), ref_choice(TRANSITIONS)
    LineChoice, HeadChoice = ref_choice(LINES), ref_choice(HEADS)
    IntChoice, FloatChoice, TextChoice, LadderChoice = INT_CHOICE, FLOAT_CHOICE, TEXT_CHOICE, LADDER_CHOICE

N_CHECKED = 50  # members drawn to see whether a budget can be met


class BudgetSpace(Config):
    """What members may cost.

    Attributes:
        macs: Multiply-accumulates of one image: a number is one budget, a list a ladder of budgets, a
            table of low and high a range, searched in the logarithm.
        params: Most trainable scalars; 0 for no bound.
        tolerance: How far below its budget a member may stay, as a share of it.
        quantum: Widths are multiples of it, or of its halves where that is too coarse.
        min_width: No block is narrower.
    """

    macs: LadderChoice
    params: int = Field(0, ge=0)
    tolerance: float = Field(0.02, gt=0, lt=1)
    quantum: int = Field(4, ge=1)
    min_width: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(values(self.macs)) < 1:
            raise SpecError(f"must be at least 1, got {min(values(self.macs))}", place="macs")
        return self


class Member(NamedTuple):
    """One network of a space, with the knobs that gave it and the budget it was fitted to."""

    knobs: dict[str, Any]
    budget: Budget
    spec: NetworkSpec

    @property
    def share(self) -> float:
        """The greatest share of a bound of the budget that is used."""
        cost = network_cost(self.spec)
        return self.budget.use(macs=cost.macs, params=cost.params)

    @property
    def meets_budget(self) -> bool:
        """Whether the cost lies within the tolerance below the budget."""
        return 1 - self.budget.tolerance <= self.share <= 1


class SearchSpace(Config):
    """A set of networks, as `search_spaces/*.toml` describe it.

    Fields are those of `NetworkSpec`, most of them choices. A member has `stem_ratio`, or `compression`, only
    where the first block, or every block (of an encoder-decoder: some block), concatenates: other
    aggregations need sources of equal channels.

    Raises:
        SpecError: if a value is wrong (the message names its place).
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    input: InputConfig = InputConfig()
    n_classes: int = Field(10, ge=1)
    layout: Layout = "encoder"
    scope: TextChoice = Fixed("block")
    stem: StemChoice = Fixed(Ref("conv"))
    stem_ratio: IntChoice = Fixed(0)
    transition: TransitionChoice = Fixed(Ref("conv"))
    carry: TransitionChoice = Fixed(Ref("pool"))
    up: LineChoice = Fixed(UP)
    hubs: IntChoice = Fixed(0)
    compression: FloatChoice = Fixed(0.0)
    head: HeadChoice = Fixed(Ref("pool"))
    blocks: BlocksSpace
    budget: BudgetSpace

    @model_validator(mode="before")
    @classmethod
    def _head_of_layout(cls, data: object) -> object:
        return with_default_head(data)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.blocks.check_layout(self.layout)
        for name, most in (("stem_ratio", None), ("hubs", None), ("compression", 1)):
            found = values(getattr(self, name))
            if min(found) < 0:
                raise SpecError(f"must be at least 0, got {min(found)}", place=name)
            if most is not None and max(found) > most:
                raise SpecError(f"must be at most {most}, got {max(found)}", place=name)
        for scope in values(self.scope):
            if scope not in ("block", "global"):
                raise SpecError(
                    f"unknown scope {scope!r}. {did_you_mean(scope, ('block', 'global'))}", place="scope"
                )
        if self.layout == ENCODER_DECODER:
            self._check_encoder_decoder()
            return self
        if "global" in values(self.scope) and "topology" in self.blocks.per_block:
            raise SpecError(
                "scope 'global' has one topology for all blocks: take 'topology' out of per_block"
            )
        for name in ("up", "hubs"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise SpecError(f"needs layout {ENCODER_DECODER!r}, this is {self.layout!r}", place=name)
        return self

    def _check_encoder_decoder(self) -> None:
        check_size(self.input.height, self.input.width, max(values(self.blocks.count)))
        for head in values(self.head):
            check_head(head)

    def __str__(self) -> str:
        return self.to_toml().rstrip()

    # ---- knobs -----------------------------------------------------------------------------------

    def knobs(self) -> dict[str, Choice]:
        """Return every knob that is searched, by the name under which a study records it."""
        return {name: choice for name, choice in self.all_knobs().items() if not isinstance(choice, Fixed)}

    def all_knobs(self) -> dict[str, Choice]:
        """Return every knob, those with a fixed value too, by the name under which a study records it."""
        knobs: dict[str, Choice] = {"macs_budget": self.budget.macs, "count": self.blocks.count}
        knobs |= {name: getattr(self, name) for name in (*PER_NETWORK, *NUMBERS)}
        return knobs | dict(self.blocks.knobs(self.layout))

    def member(self, drawn: Mapping[str, Any]) -> Member:
        """Return the network that knob values stand for, its widths solved from the budget.

        Args:
            drawn: A value for each of `knobs()`; a registered name or label where a reference is meant.

        Raises:
            SpecError: if a knob is unknown or missing, or its value is none of the space's.
            BudgetError: if no width and no allowed depth meets the budget.
        """
        for name in drawn:
            if name not in self.knobs():
                raise SpecError(f"unknown knob {name!r}. {did_you_mean(name, self.knobs())}")
        knobs = {name: _value(name, choice, drawn) for name, choice in self.all_knobs().items()}
        budget = Budget(knobs["macs_budget"], self.budget.params or None, self.budget.tolerance)
        shape = shape_of(self, knobs)
        spec = fit_width(
            shape,
            budget,
            quantum=self.budget.quantum,
            min_width=self.budget.min_width,
            min_depths=self.blocks.least_depths(self.layout, len(shape.blocks)),
        )
        return Member({name: knobs[name] for name in self.knobs()}, budget, spec)

    def draw(self, rng: random.Random) -> Member:
        """Return a random member."""
        return self._drawn(rng, {})

    def _drawn(self, rng: random.Random, fixed: Mapping[str, Any]) -> Member:
        return self.member({name: draw(choice, rng) for name, choice in self.knobs().items()} | dict(fixed))

    # ---- bounds ----------------------------------------------------------------------------------

    def kinds(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of categories, at the least budget and depth and with the most blocks.

        Where a category is chosen per block, blocks are taken to choose alike, those of a way where ways have
        choices of their own.
        """
        knobs = self.all_knobs()
        category = {name: name.rstrip("_0123456789") for name in knobs}  # of all blocks, or of those of a way
        options = {category[n]: values(choice) for n, choice in knobs.items() if base_name(n) in CATEGORIES}
        numbers = {
            name: (max if name == "count" else min)(values(choice))
            for name, choice in knobs.items()
            if base_name(name) not in CATEGORIES
        }
        for combination in itertools.product(*options.values()):
            chosen = dict(zip(options, combination, strict=True))
            yield {name: numbers[name] if name in numbers else chosen[category[name]] for name in knobs}

    def check(self) -> None:
        """Make sure that every kind of member fits every budget, and that budgets are met to the tolerance.

        A budget is met if some of 50 members drawn come within the tolerance; of a range, some budget
        must be.

        Raises:
            BudgetError: naming the kind, the bound, the least cost that is possible and the way out, or
                the budget that is not met.
            SpecError: if a kind is refused, naming it and the reason.
        """
        for knobs in self.kinds():
            kind = " x ".join(_kind(knobs, name) for name in ("topology", "aggregation"))
            try:
                self.member({name: knobs[name] for name in self.knobs()})
            except BudgetError as error:
                raise BudgetError(f"budget: no {kind} fits: {error}") from None
            except SpecError as error:
                raise SpecError(f"{kind}: {error}") from None
        for macs in values(self.budget.macs) if isinstance(self.budget.macs, AnyOf) else [None]:
            self._check_met({"macs_budget": macs} if macs else {})

    def _check_met(self, fixed: Mapping[str, Any]) -> None:
        """Raise `BudgetError` if no member drawn, with some knobs fixed, comes near its budget."""
        rng, members = random.Random(0), []
        for _ in range(N_CHECKED if self.knobs().keys() - fixed.keys() else 1):
            members.append(self._drawn(rng, fixed))
            if members[-1].meets_budget:
                return
        closest = max(members, key=lambda member: member.share)
        raise BudgetError(
            f"budget: no member drawn comes within {100 * self.budget.tolerance:g} % of its budget, the "
            f"closest uses {100 * closest.share:.1f} % of {closest.budget}: raise the budget or its tolerance"
        )


def _kind(knobs: Mapping[str, Any], category: str) -> str:
    """Return the values of a category in words, of ways that differ both."""
    return "/".join(dict.fromkeys(str(value) for name, value in knobs.items() if base_name(name) == category))


def _value(name: str, choice: Choice, drawn: Mapping[str, Any]) -> Any:
    """Return the checked value of a knob."""
    if isinstance(choice, Fixed):
        return choice.value
    if name not in drawn:
        raise SpecError(f"knob {name!r} has no value")
    value = drawn[name]
    if isinstance(choice, AnyOf):
        for known in choice.values:
            if value == known or (isinstance(known, Ref) and value == known.label):
                return known
        raise SpecError(f"knob {name!r} is one of {', '.join(map(str, choice.values))}, got {value}")
    whole, step = isinstance(choice, IntRange), getattr(choice, "step", 1)
    fits = type(value) in ((int,) if whole else (int, float)) and choice.low <= value <= choice.high
    if not fits or (whole and (value - choice.low) % step):
        steps = f" in steps of {step}" if step > 1 else ""
        raise SpecError(f"knob {name!r} lies within {choice.low}..{choice.high}{steps}, got {value!r}")
    return value


def label(value: Any) -> Any:
    """Return what a study records for a knob's value: numbers and text as they are, references as labels."""
    return value.label if isinstance(value, Ref) else value
