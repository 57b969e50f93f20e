"""Failures are data: why a trial reached nothing, in words to be counted, and what the sampler is told."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from connsearch.cost import NetworkCost
from connsearch.errors import ConnsearchError, DataError, StudyError
from connsearch.search.choices import values
from connsearch.search.measures import ERRORS
from connsearch.search.memory import OutOfMemoryError
from connsearch.search.pruning.rules import PRUNED
from connsearch.text import first_line

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig

DIVERGED, FAILED = "diverged", "failed"
"""Names of the constraints that a trial violates which diverged, or failed."""
MAX_DEATHS = 3
_TRACE_LINES = 40


class Failure(NamedTuple):
    """Why a trial failed.

    Attributes:
        reason: In few words, equal for equal causes.
        detail: The whole story.
    """

    reason: str
    detail: str

    def __str__(self) -> str:
        return first_line(self.detail) or self.reason


def failure_of(error: Exception) -> Failure:
    """Return the failure that an error of a trial is.

    Raises:
        Exception: the error itself, if it is none of the trial but of the study: its storage, its data.
    """
    if isinstance(error, StudyError | DataError):
        raise error
    if isinstance(error, OutOfMemoryError):
        return Failure(str(error).partition(":")[0], str(error))
    if isinstance(error, ConnsearchError):
        return Failure(str(error), str(error))
    line, kind = first_line(error), type(error).__name__
    reason = kind if line == kind else f"{kind}: {line}"
    trace = "".join(traceback.format_exception(error)).splitlines()
    return Failure(reason, "\n".join([reason, *trace[-_TRACE_LINES:]]))


def died(times: int) -> Failure:
    """Return the failure of a trial whose workers died in the same epoch so many times."""
    reason = f"worker died {times} times"
    return Failure(reason, f"{reason} in a row before it finished a further epoch")


def worst_values(config: StudyConfig, cost: NetworkCost | None, trials: Sequence[FrozenTrial]) -> list[float]:
    """Return the worst finite value of each objective, the exact one where the cost is known.

    An error is 1 at worst; MACs and parameters what the budget allows; what has no bound, the worst seen.
    """
    return [
        _worst(name, way, index, config, cost, trials)
        for index, (name, way) in enumerate(config.objectives.items())
    ]


def _worst(
    name: str,
    way: str,
    index: int,
    config: StudyConfig,
    cost: NetworkCost | None,
    trials: Sequence[FrozenTrial],
) -> float:
    if name in ERRORS:
        return 1.0 if way == "minimize" else 0.0
    if cost is not None:
        return float(getattr(cost, name))
    if way == "maximize":
        return 0.0  # all else is counted, and no count is less
    bounds = {"macs": max(values(config.space.budget.macs)), "params": config.space.budget.params}
    if bounds.get(name):
        return float(bounds[name])
    seen = [trial.values[index] for trial in trials if trial.values is not None]
    return max(filter(math.isfinite, seen), default=1.0)


def failed(trial: FrozenTrial) -> bool:
    """Return whether a finished trial failed: recorded as such, or told as the worst with the constraint.

    What violates a limit of the study (`connsearch.search.measured`) was not trained, and counts too.
    """
    violated = {name for name, value in trial.constraints.items() if value > 0}
    return trial.state.name == "FAIL" or bool(violated - {DIVERGED})


def reached(trial: FrozenTrial) -> bool:
    """Return whether a trial's network can be ranked: it neither failed nor diverged, nor was it pruned."""
    whole = trial.state.name == "COMPLETE" and PRUNED not in trial.user_attrs
    return whole and all(value <= 0 for value in trial.constraints.values())
