"""The front of a study, confirmed: what its networks reach with fresh seeds, and how lucky they had been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from connsearch.errors import StudyError
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.reading.records import reference_point
from connsearch.search.replicates.plan import Candidate, errors_of, means_of, rivals, schedule
from connsearch.search.tournament.statistics import Interval
from connsearch.text import human, si, table

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig

_HEADER = (
    "trial",
    "topology",
    "aggregation",
    "MACs",
    "params",
    "error %",
    "95 %",
    "seeds",
    "before",
    "front",
)


@dataclass(frozen=True)
class Confirmation:
    """A candidate with what it reached with fresh seeds.

    Attributes:
        candidate: The trial of the study that was screened.
        errors: With each fresh seed.
        mean: Of these.
        interval: Student's interval of the mean; its deviation is that of all candidates, or its own if
            that is greater.
        settled: Whether its mean differs from the least one that is to be had at no higher cost, by a 95 %
            interval that is looked at after each round.
    """

    candidate: Candidate
    errors: tuple[float, ...]
    mean: float
    interval: Interval
    settled: bool

    @property
    def optimism(self) -> float:
        """How much lower the error was when it was screened."""
        return self.mean - self.candidate.val_error

    def to_dict(self) -> dict[str, Any]:
        """Return a row of a table: errors are fractions."""
        known = not math.isnan(self.interval.low)
        return {
            "trial": self.candidate.trial,
            "macs": self.candidate.macs,
            "params": self.candidate.params,
            **{name: cost for name, cost in self.candidate.costs.items() if name not in ("macs", "params")},
            "val_error": self.mean,
            "val_error_low": self.interval.low if known else None,
            "val_error_high": self.interval.high if known else None,
            "seeds": len(self.errors),
            "screened_val_error": self.candidate.val_error,
            "settled": self.settled,
            "topology": self.candidate.topology,
            "aggregation": self.candidate.aggregation,
        }


@dataclass(frozen=True)
class ConfirmedFront:
    """What the replicates of a study have found so far.

    Attributes:
        rows: Candidates that were trained with a fresh seed, ascending by cost.
        front: The same as a Pareto front of mean errors; its columns are those of `Confirmation.to_dict`.
        n_trials: Replicates that are finished.
        failed: Replicates that failed.
        settled: Whether every candidate's place is settled.
    """

    rows: tuple[Confirmation, ...]
    front: ParetoFront
    n_trials: int
    failed: int
    settled: bool

    @property
    def optimism(self) -> float:
        """Mean over candidates of how much lower their error was when they were screened."""
        return sum(row.optimism for row in self.rows) / len(self.rows)

    @property
    def front_optimism(self) -> float:
        """The same over those that were the front when they were screened: the luckiest ones."""
        screened = self.front.trials.assign(val_error=self.front.trials["screened_val_error"])
        before = ParetoFront.from_frame(screened, self.front.objectives).points["trial"].tolist()
        chosen = [row.optimism for row in self.rows if row.candidate.trial in before]
        return sum(chosen) / len(chosen)

    def __str__(self) -> str:
        on_front = set(self.front.points["trial"])
        cells = [_cells(row, row.candidate.trial in on_front) for row in self.rows]
        return "\n".join(
            [*self._head(), table(_HEADER, cells, left=["topology", "aggregation"]), *self._tail()]
        )

    def _head(self) -> list[str]:
        failed = f", {self.failed} failed" if self.failed else ""
        return [f"{len(self.rows)} candidates, {self.n_trials} trainings with fresh seeds{failed}"]

    def _tail(self) -> list[str]:
        open_ = [str(row.candidate.trial) for row in self.rows if not row.settled]
        verdict = (
            "every place is settled: each mean differs from the least one at no higher cost, by a 95 % "
            "interval looked at after each round (of equal pairs some 9 % do by 5 seeds each, 20 % by 20)"
            if self.settled
            else f"open, as more seeds may change it: the places of trials {', '.join(open_)}"
            if open_
            else "not every candidate has its first seeds yet"
        )
        return [
            verdict,
            f"with one seed errors were {_points(self.optimism)} on average, those of the front that it gave "
            f"{_points(self.front_optimism)}",
            "front: * on it, ? on it as far as is known, - beaten, (-) beaten as far as is known",
        ]

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write a line for each candidate, with a column `on_front`.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        self.front.to_csv(path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: those of the front, with what each point was when it was screened."""
        return {
            **self.front.to_dict(),
            "candidates": [row.to_dict() | {"val_errors": list(row.errors)} for row in self.rows],
            "trainings": self.n_trials,
            "failed": self.failed,
            "settled": self.settled,
            "optimism": self.optimism,
            "front_optimism": self.front_optimism,
        }


def _cells(row: Confirmation, on_front: bool) -> list[str]:
    candidate, low, high = row.candidate, row.interval.low, row.interval.high
    sure, likely = ("*", "?") if on_front else ("-", "(-)")
    return [
        str(candidate.trial),
        candidate.topology,
        candidate.aggregation,
        human("macs", candidate.macs),
        si(candidate.params),
        f"{100 * row.mean:.2f}",
        "-" if math.isnan(low) else f"{100 * max(low, 0):.2f} to {100 * high:.2f}",
        str(len(row.errors)),
        f"{100 * candidate.val_error:.2f}",
        sure if row.settled else likely,
    ]


def _points(optimism: float) -> str:
    words = "too low" if optimism >= 0 else "too high"
    return f"{abs(100 * optimism):.2f} points {words}"


def confirmed_front(config: StudyConfig, trials: Sequence[FrozenTrial]) -> ConfirmedFront:
    """Return what replicates have found.

    Args:
        config: The configuration of the replicates.
        trials: Their trials, finished or not.

    Raises:
        StudyError: if the configuration repeats no trials, or none is finished.
    """
    import pandas as pd

    settings = config.replicates
    if settings is None:
        raise StudyError("this study repeats no trials: make one that does with `connsearch replicate DIR`")
    errors = errors_of(settings, trials)
    means = means_of(errors)
    if not any(means):
        raise StudyError("no replicate is finished yet: run the same command again to go on")
    unsettled = {rival.candidate for rival in rivals(settings.candidates, means) if not rival.settled}
    rows = tuple(
        Confirmation(candidate, tuple(found), mean.mean, mean.interval(), i not in unsettled)
        for i, (candidate, found, mean) in enumerate(zip(settings.candidates, errors, means, strict=True))
        if mean is not None
    )
    objectives = tuple(config.objectives)
    front = ParetoFront.from_frame(
        pd.DataFrame([row.to_dict() for row in rows]), objectives, reference=reference_point(config)
    )
    finished = [trial for trial in trials if trial.state.is_finished()]
    done = schedule(settings, trials).settled
    n_errors = sum(map(len, errors))
    return ConfirmedFront(rows, front, len(finished), len(finished) - n_errors, done)
