"""Transfer: what of another study can this one begin with?

Both must have the same knobs. A budget is taken over by its place in its range, all else as it is, so that
a design is scaled to this study's budgets as any member is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from connsearch.cost import network_cost
from connsearch.errors import BudgetError, SpecError, StudyError
from connsearch.search.choices import Choice, Fixed, values
from connsearch.search.failures import reached
from connsearch.search.layouts import CATEGORIES, base_name
from connsearch.search.measures import ERRORS, VAL_IOU_ERROR, error_of
from connsearch.search.space import SearchSpace, label
from connsearch.search.transfer.places import at, holds, place, spread
from connsearch.search.transfer.warm_start import Earlier, EarlierTrial, WarmStart

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig
    from connsearch.search.reading.hypervolume import Losses
    from connsearch.search.study import Study

BUDGET = "macs_budget"


def with_earlier(config: StudyConfig) -> StudyConfig:
    """Return a configuration that holds what it takes from the other study that it names.

    Raises:
        StudyError: if that study is not there, has nothing to take, or its knobs are others.
    """
    warm = config.warm_start
    if warm is None or not warm.study or warm.earlier is not None:
        return config
    from connsearch.search.study import Study

    try:
        there = Study.load(warm.directory)
    except StudyError as error:
        raise StudyError(f"warm_start.study: {error}") from None
    earlier = _earlier(there, config, warm)
    return config.replaced(warm_start=warm.replaced(earlier=earlier))


def kept_from(recorded: StudyConfig, config: StudyConfig) -> StudyConfig:
    """Return a configuration with what an equal one, on record, took from another study."""
    if config.warm_start is None or recorded.warm_start is None:
        return config
    return config.replaced(warm_start=config.warm_start.replaced(earlier=recorded.warm_start.earlier))


def for_people(config: StudyConfig) -> StudyConfig:
    """Return a configuration without what was taken from another study, which fills pages."""
    if config.warm_start is None:
        return config
    return config.replaced(warm_start=config.warm_start.replaced(earlier=None))


def _earlier(there: Study, config: StudyConfig, warm: WarmStart) -> Earlier:
    trials = [trial for trial in there.trials() if reached(trial)]
    if not trials:
        raise StudyError(f"warm_start.study: {there.directory}: has no finished trial to begin with")
    _check_knobs(there, config)
    taken, dropped = [], Counter[str]()
    for trial in trials:
        found = _taken(trial, there.config.space, config)
        if isinstance(found, str):
            dropped[found] += 1
        else:
            taken.append(found)
    if not taken:
        raise StudyError(
            f"warm_start.study: {there.directory}: none of its {len(trials)} trials fits this space "
            f"({'; '.join(dropped)}): widen the space, or leave study out"
        )
    notes = [f"{count} of its trials left out: {why}" for why, count in sorted(dropped.items())]
    best = _best(there, trials, {trial.trial for trial in taken}, warm.trials)
    one_budget = isinstance(there.config.space.budget.macs, Fixed)
    return Earlier(notes=tuple(notes), trials=tuple(_first(taken, best, config, one_budget=one_budget)))


def _check_knobs(there: Study, config: StudyConfig) -> None:
    """Make sure that two spaces have knobs of the same names, and budgets that correspond."""
    old, new = there.config.space.all_knobs(), config.space.all_knobs()
    for name in [*old, *new]:
        if (name in old) != (name in new):
            side, other = ("there", "here") if name in old else ("here", "there")
            raise StudyError(
                f"warm_start.study: {there.directory}: knob {name!r} is {side}, not {other}: give both "
                "spaces the same layout, blocks.count and per_block, or leave study out"
            )
    fixed, searched = isinstance(old[BUDGET], Fixed), not isinstance(new[BUDGET], Fixed)
    if fixed and searched and config.warm_start is not None and config.warm_start.prior:
        raise StudyError(
            f"warm_start.study: {there.directory}: knob {BUDGET!r} is searched here and fixed there "
            f"at {values(old[BUDGET])[0]:,}: its errors say nothing of other budgets; set "
            "warm_start.prior = false to take its designs alone"
        )


def _taken(trial: FrozenTrial, old: SearchSpace, config: StudyConfig) -> EarlierTrial | str:
    """Return a trial in this study's terms, or why it has none."""
    choices, there = config.space.all_knobs(), old.all_knobs()
    knobs: dict[str, Any] = {}
    for name, choice in choices.items():
        value = trial.params[name] if name in trial.params else label(values(there[name])[0])
        if name == BUDGET:
            where = place(there[name], value)
            knobs[name] = at(choice, 0.5 if where is None else where)
        elif not _has(name, choice, value):
            return f"{name} is {value} there, which this space has not"
        else:
            knobs[name] = value
    searched = {name: knobs[name] for name in config.space.knobs()}
    try:
        cost = network_cost(config.space.member(searched).spec)
    except (BudgetError, SpecError) as problem:
        return f"not within this study's budget ({problem})"
    counted = {name: float(getattr(cost, name)) for name in config.objectives if name not in ERRORS}
    kind = error_of(config.objectives)
    if kind == VAL_IOU_ERROR and VAL_IOU_ERROR not in trial.user_attrs:
        return f"{VAL_IOU_ERROR} was no objective there"
    error = float(trial.user_attrs[kind])
    return EarlierTrial(trial=trial.number, knobs=searched, error=error, counted=counted)


def _has(name: str, choice: Choice, value: Any) -> bool:
    if base_name(name) in CATEGORIES:
        return value in [label(known) for known in values(choice)]
    return holds(choice, value)


def _best(there: Study, trials: Sequence[FrozenTrial], fitting: set[int], count: int) -> list[int]:
    """Return the numbers of the best trials that fit."""
    import numpy as np

    ways = np.array([1.0 if way == "minimize" else -1.0 for way in there.config.objectives.values()])
    left = [trial for trial in trials if trial.number in fitting]
    losses = np.array([trial.values for trial in left]) * ways
    return [left[row].number for row in best_first(losses, count)]


def best_first(losses: Losses, count: int) -> list[int]:
    """Return so many of the best rows: those that no other beats, then those of the rest, and so on.

    Of more than are wanted, rows that lie evenly along them, in the order of the later columns.

    Args:
        losses: A row for each trial, a column for each objective, less is better.
        count: How many.
    """
    import numpy as np

    from connsearch.search.reading.hypervolume import non_dominated

    left, chosen = np.arange(len(losses)), list[int]()
    while len(left) and len(chosen) < count:
        front = left[non_dominated(losses[left], left)]
        ordered = front[np.lexsort((front, *losses[front].T[::-1][:-1]))]
        wanted = min(count - len(chosen), len(front))
        chosen += [int(ordered[round(where * (len(front) - 1))]) for where in spread(wanted)]
        left = np.setdiff1d(left, front)
    return chosen


def _first(
    taken: Iterable[EarlierTrial], best: Sequence[int], config: StudyConfig, *, one_budget: bool
) -> list[EarlierTrial]:
    """Return trials with the best marked and in front, in their order; those alone where there is no prior.

    Where the other study had one budget and this one has several, the best are spread over them.
    """
    by_number: Mapping[int, EarlierTrial] = {trial.trial: trial for trial in taken}
    first = [by_number[number].replaced(first=True) for number in best]
    if one_budget and BUDGET in config.space.knobs():
        macs = config.space.budget.macs
        first = [
            trial.replaced(knobs={**trial.knobs, BUDGET: at(macs, where)})
            for trial, where in zip(first, spread(len(first)), strict=True)
        ]
    if config.warm_start is None or not config.warm_start.prior:
        return first
    return [*first, *(trial for number, trial in by_number.items() if number not in set(best))]
