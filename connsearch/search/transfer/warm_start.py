"""Warm start: what does a study begin with, before its sampler has learnt anything?

With famous architectures (presets), with the best designs of another study, and with that study's results
as if the sampler had seen them. All are knobs of this study's own space, at this study's own budgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, PrivateAttr, model_validator

from connsearch.config import Config
from connsearch.errors import BudgetError, SpecError
from connsearch.search.choices import Fixed
from connsearch.search.members import describe
from connsearch.search.space import Member, SearchSpace, label
from connsearch.search.transfer.places import at, spread
from connsearch.search.transfer.preset_knobs import preset_knobs
from connsearch.text import si

if TYPE_CHECKING:
    from connsearch.search.config import StudyConfig


class EarlierTrial(Config):
    """A finished trial of another study, in the terms of this one.

    Attributes:
        trial: Its number there.
        knobs: Knobs of this study's space, its budget at the same place of this study's range.
        error: Its `val_error` there.
        counted: What its network costs here, by objective.
        first: Whether its knobs are given to one of the first trials.
    """

    trial: int = Field(ge=0)
    knobs: dict[str, bool | int | float | str]
    error: float
    counted: dict[str, float] = Field(default={})
    first: bool = False


class Earlier(Config):
    """What was taken from another study when this one was created; recorded, not written by hand.

    Attributes:
        notes: What of it could not be taken, in words.
        trials: Its trials that reached something.
    """

    notes: tuple[str, ...] = ()
    trials: tuple[EarlierTrial, ...] = ()


class WarmStart(Config):
    """What a study begins with.

    Attributes:
        presets: Names of architectures (`connsearch list presets`) that are the first trials, scaled to the
            study's budget.
        budgets: At how many budgets each preset is tried, spread evenly over a ladder or range from end to
            end; one lies in the middle.
        study: The directory of another study, in a file relative to it. It is read when this study is
            created, and never again.
        trials: How many designs of its front, and of what comes next, are first trials after the presets.
        prior: Whether the sampler sees its results besides this study's own.
        earlier: What was taken from it; recorded, not written by hand.

    Raises:
        SpecError: if it names neither presets nor a study, or a preset twice.
    """

    presets: tuple[str, ...] = ()
    budgets: int = Field(1, ge=1)
    study: str = ""
    trials: int = Field(5, ge=0)
    prior: bool = True
    earlier: Earlier | None = None
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.presets and not self.study:
            raise SpecError("name presets or a study to start from, or leave warm_start out")
        if len(set(self.presets)) < len(self.presets):
            twice = max(self.presets, key=self.presets.count)
            raise SpecError(f"{twice!r} is named twice: remove one", place="presets")
        if self.study and not self.trials and not self.prior:
            raise SpecError("trials = 0 and prior = false take nothing from study: leave it out")
        return self

    def beside(self, file: str | Path) -> None:
        """Take the path of the other study to be relative to a file."""
        self._folder = Path(file).parent

    def identity(self) -> dict[str, Any]:
        """Return what makes two warm starts one: the other study as the file names it, not what it held."""
        return self.model_dump(mode="json", exclude={"earlier"})

    @property
    def directory(self) -> Path:
        """Where the other study is looked for."""
        return self._folder / self.study


class Start(NamedTuple):
    """One of the first trials.

    Attributes:
        knobs: As they are recorded.
        source: Where they are from, in words.
        notes: What the space cannot express of it.
    """

    knobs: dict[str, Any]
    source: str
    notes: tuple[str, ...]


def first_trials(config: StudyConfig) -> list[Start]:
    """Return the first trials that a study is given, in their order; equal ones are given once.

    Raises:
        SpecError: if a preset is unknown, or the space has not its topology or aggregation.
    """
    warm = config.warm_start
    if warm is None:
        return []
    starts: dict[tuple[Any, ...], Start] = {}
    for start in (*_presets(config.space, warm), *_designs(warm)):
        starts.setdefault(tuple(start.knobs.items()), start)
    return list(starts.values())


def given_knobs(config: StudyConfig, number: int) -> dict[str, Any] | None:
    """Return the knobs of a trial that is one of the first ones; None of any other."""
    warm = config.warm_start
    if warm is None or number >= len(warm.presets) * warm.budgets + warm.trials:
        return None
    starts = first_trials(config)
    return starts[number].knobs if number < len(starts) else None


def _presets(space: SearchSpace, warm: WarmStart) -> Iterator[Start]:
    one_budget = isinstance(space.budget.macs, Fixed)
    for name in warm.presets:
        knobs, notes = preset_knobs(name, space)
        for where in spread(1 if one_budget else warm.budgets):
            placed = {**knobs, "macs_budget": at(space.budget.macs, where)}
            yield Start({key: label(placed[key]) for key in space.knobs()}, name, notes)


def _designs(warm: WarmStart) -> Iterator[Start]:
    for trial in warm.earlier.trials if warm.earlier is not None else ():
        if trial.first:
            yield Start(trial.knobs, f"trial {trial.trial} of {Path(warm.study).name}", ())


def check_start(config: StudyConfig) -> list[Member]:
    """Make sure that each of the first trials meets its budget; return their networks.

    Raises:
        SpecError: as `first_trials`.
        BudgetError: naming the one that does not.
    """
    members = []
    for start in first_trials(config):
        try:
            members.append(config.space.member(start.knobs))
        except BudgetError as error:
            raise BudgetError(f"warm_start: {start.source}: {error}") from None
    return members


def start_lines(config: StudyConfig) -> list[str]:
    """Return what a study begins with, a line for each of its first trials; none if with nothing.

    Raises:
        SpecError, BudgetError: as `check_start`.
    """
    warm = config.warm_start
    lines: list[str] = []
    for start, member in zip(first_trials(config), check_start(config), strict=True):
        topology, aggregation, layers, widths = describe(member)
        budget = f"{si(member.budget.macs)} MACs" if member.budget.macs else "its budget"
        said = f" (here {'; '.join(start.notes)})" if start.notes else ""
        shape = f"{topology} x {aggregation}, layers {layers}, widths {widths}"
        lines.append(f"trial {len(lines)} is {start.source} at {budget}: {shape}{said}")
    if warm is not None and warm.earlier is not None:
        lines += [f"{Path(warm.study).name}: {note}" for note in warm.earlier.notes]
        if warm.prior:
            count = len(warm.earlier.trials)
            lines.append(f"the sampler sees {count} trials of {Path(warm.study).name} besides its own")
    return lines
