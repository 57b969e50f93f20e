"""The standings of a tournament: who is ahead, by how much, and what of that is more than luck?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from connsearch.errors import StudyError
from connsearch.files import write_whole
from connsearch.search.failures import DIVERGED
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.tournament.comparisons import Comparison, comparisons_of
from connsearch.search.tournament.contestants import Contestant, LeftOut, Shape, shape_of
from connsearch.search.tournament.statistics import (
    UNKNOWN,
    Floats,
    Interval,
    behind_best_p,
    bootstrap_interval,
    known,
)

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig


@dataclass(frozen=True)
class Standing:
    """A contestant's place.

    Attributes:
        rank: Counted from 1.
        contestant: Its names.
        macs, params: What it costs.
        errors: Validation error with each seed.
        mean: Of the errors.
        interval: Of the mean, by bootstrap over seeds.
        behind: Mean difference to the best, seed by seed.
        behind_interval: Of that difference, by bootstrap over seeds.
        p: How likely luck alone puts it as far behind, corrected for all contestants, if their errors spread
            alike; 1 for the best.
        diverged: Seeds with which training diverged; the error is 1 then.
    """

    rank: int
    contestant: Contestant
    macs: int
    params: int
    errors: tuple[float, ...]
    mean: float
    interval: Interval
    behind: float
    behind_interval: Interval
    p: float
    diverged: int


@dataclass(frozen=True)
class Standings:
    """What a tournament has found so far.

    Attributes:
        shape: What all networks have in common.
        rows: Contestants, the best first.
        comparisons: Of aggregations, then of topologies, significant or not.
        rounds: Seeds with which every contestant was trained.
        asked: Seeds that the tournament is to have.
        left_out: Pairs that did not take part, and all names of contestants of which a training failed.
    """

    shape: Shape
    rows: tuple[Standing, ...]
    comparisons: tuple[Comparison, ...]
    rounds: int
    asked: int
    left_out: tuple[LeftOut, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every contestant was trained with all seeds."""
        return self.rounds >= self.asked

    def __str__(self) -> str:
        from connsearch.search.tournament.text import text_of

        return text_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: every number with its unit or meaning in the key, errors as fractions."""
        return {
            "shape": asdict(self.shape) | {"others": list(self.shape.others)},
            "rounds": self.rounds,
            "asked": self.asked,
            "contestants": [_plain_row(row) for row in self.rows],
            "comparisons": [each.to_dict() for each in self.comparisons],
            "left_out": [left.to_dict() for left in self.left_out],
        }

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write `to_frame` to a file.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        write_whole(path, self.to_frame().to_csv(index=False).encode())

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each training: contestant, its cost, number of its seeds, validation error."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "rank": row.rank,
                    "topology": row.contestant.topology.label,
                    "aggregation": row.contestant.aggregation.label,
                    "macs": row.macs,
                    "params": row.params,
                    "seeds": seeds,
                    "val_error": error,
                }
                for row in self.rows
                for seeds, error in enumerate(row.errors)
            ]
        )


def _plain_row(row: Standing) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "topology": row.contestant.topology.label,
        "aggregation": row.contestant.aggregation.label,
        "same_as": list(row.contestant.same_as),
        "macs": row.macs,
        "params": row.params,
        "val_errors": list(row.errors),
        "val_error": row.mean,
        "val_error_low": known(row.interval.low),
        "val_error_high": known(row.interval.high),
        "behind": row.behind,
        "behind_low": known(row.behind_interval.low),
        "behind_high": known(row.behind_interval.high),
        "p_corrected": row.p,
        "diverged": row.diverged,
    }


# ---- from trials to standings --------------------------------------------------------------------------


def standings_of(config: StudyConfig, trials: Sequence[FrozenTrial]) -> Standings:
    """Return the standings over the rounds that are complete.

    Args:
        config: The tournament's.
        trials: Its trials, finished or not.

    Raises:
        StudyError: if the configuration is no tournament's, or no round is complete.
    """
    table = config.tournament
    if table is None or not table.contestants:
        raise StudyError("this study is no tournament: make one with `connsearch tournament STUDY.toml`")
    contestants = table.contestants
    rounds = _complete_rounds(trials, len(contestants))
    if rounds == 0:
        done = sum(trial.state.is_finished() for trial in trials[: len(contestants)])
        raise StudyError(
            f"no round is complete yet: {done} of {len(contestants)} contestants were trained with the first "
            "seeds; run the same command again to go on"
        )
    errors_SP = _errors(trials[: rounds * len(contestants)], len(contestants))
    failed = np.isnan(errors_SP.sum(axis=0)).tolist()
    failures = list(_failures(contestants, trials, np.isnan(errors_SP)))
    kept = [i for i in range(len(contestants)) if not failed[i]]
    if not kept:
        raise StudyError(f"every contestant has a training that failed, the first: {failures[0].reason}")
    members = [contestants[i] for i in kept]
    costs = [trials[i].user_attrs["cost"] for i in kept]
    diverged = [_times_diverged(trials[i : rounds * len(contestants) : len(contestants)]) for i in kept]
    return Standings(
        shape_of(config),
        _ranked(members, costs, diverged, errors_SP[:, kept]),
        tuple(comparisons_of(members, errors_SP[:, kept])),
        rounds,
        table.seeds,
        (*table.left_out, *failures),
    )


def _complete_rounds(trials: Sequence[FrozenTrial], n_contestants: int) -> int:
    unfinished = (number for number, trial in enumerate(trials) if not trial.state.is_finished())
    return int(next(unfinished, len(trials))) // n_contestants


def _errors(trials: Sequence[FrozenTrial], n_contestants: int) -> Floats:
    """Return S seeds x P contestants, nan where a training failed."""
    errors = np.full((len(trials) // n_contestants, n_contestants), np.nan)
    for number, trial in enumerate(trials):
        seeds, place = divmod(number, n_contestants)
        if trial.user_attrs.get(SEEDS_OF, number) != seeds:
            raise StudyError(f"trial {number} was trained with other seeds than the tournament's")
        errors[seeds, place] = trial.user_attrs.get("val_error", np.nan)
    return errors


def _failures(
    contestants: Sequence[Contestant], trials: Sequence[FrozenTrial], missing_SP: np.ndarray
) -> Iterator[LeftOut]:
    for place, contestant in enumerate(contestants):
        lacking = np.flatnonzero(missing_SP[:, place])
        if len(lacking):
            first = trials[int(lacking[0]) * len(contestants) + place]
            reason = first.user_attrs.get("reason", "no reason is recorded")
            times = (
                f"{len(lacking)} of {len(missing_SP)} trainings failed, trial {first.number} with: {reason}"
            )
            yield LeftOut(pair=contestant.pair, reason=times)
            for name in contestant.same_as:
                yield LeftOut(pair=name, reason=f"one network with {contestant.pair}")


def _times_diverged(trials: Sequence[FrozenTrial]) -> int:
    return sum(DIVERGED in trial.constraints for trial in trials)


def _ranked(
    contestants: Sequence[Contestant],
    costs: Sequence[dict[str, Any]],
    diverged: Sequence[int],
    errors_SP: Floats,
) -> tuple[Standing, ...]:
    means, p_values = errors_SP.mean(axis=0), behind_best_p(errors_SP)
    order = [int(i) for i in np.argsort(means, kind="stable")]
    best = errors_SP[:, order[0]]
    return tuple(
        Standing(
            rank=rank,
            contestant=contestants[i],
            macs=costs[i]["macs"],
            params=costs[i]["params"],
            errors=tuple(errors_SP[:, i].tolist()),
            mean=float(means[i]),
            interval=bootstrap_interval(errors_SP[:, i]),
            behind=float((errors_SP[:, i] - best).mean()),
            behind_interval=UNKNOWN if i == order[0] else bootstrap_interval(errors_SP[:, i] - best),
            p=p_values[i],
            diverged=diverged[i],
        )
        for rank, i in enumerate(order, start=1)
    )
