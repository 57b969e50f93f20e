"""Replicates: does the front of a study hold when its networks are trained with fresh seeds?

One training ranks nothing, and the best of many trainings was lucky. So the trials on the front and near it
are trained again, in rounds: two fresh seeds for every candidate, then further ones for those whose place
is still open, until every place is settled or the trainings are spent. A candidate's place is settled
when its mean error differs from the least one that is to be had at no higher cost: when the 95 % interval of
the difference leaves out 0. Nothing is corrected for the number of candidates, and the interval is looked at
anew after every round, so that luck settles some places: of pairs of equal candidates, measured, 9 % within
5 seeds each and 20 % within 20.

What a round trains follows from the rounds before it alone, so that any number of workers, killed or not,
train the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from connsearch.config import Config
from connsearch.errors import StudyError
from connsearch.search.given import Given
from connsearch.search.tournament.statistics import Floats, StudentMean, student_means

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig
    from connsearch.search.study import Study

FIRST_SEEDS = 2
"""Seeds that every candidate has before any is compared."""
MOST_CANDIDATES = 20
TRAININGS_EACH = 5
"""Trainings for each candidate, on average, unless it is said otherwise."""
_STREAM = 0x5EED


class Candidate(Config):
    """A trial that is repeated.

    Attributes:
        trial: Its number in the study that was screened.
        knobs: As recorded there.
        val_error: What it reached there, with one seed.
        costs: Its value of each objective besides the error.
        macs, params: What it costs.
        topology, aggregation: Of its blocks, or "mixed".
    """

    trial: int = Field(ge=0)
    knobs: dict[str, Any]
    val_error: float
    costs: dict[str, float]
    macs: int
    params: int
    topology: str
    aggregation: str

    def costs_no_more_than(self, other: Candidate) -> bool:
        """Return whether it is as cheap as another in every respect."""
        return all(self.costs[name] <= other.costs[name] for name in other.costs)


class ReplicatesConfig(Config):
    """The table `replicates` of a study: whose trials are repeated.

    Attributes:
        candidates: Ascending by cost.
        margin: How far above the front, as an error, they were looked for; None for as far as the
            finite validation split leaves open.
    """

    candidates: tuple[Candidate, ...] = Field(min_length=1)
    margin: float | None = Field(None, ge=0, le=1)

    def given(self, number: int, trials: Sequence[FrozenTrial]) -> Given:
        """Return the knobs and seeds of a trial.

        Raises:
            StudyError: if those before it must be finished before it can be said what it trains.
        """
        planned = schedule(self, trials).planned
        if number >= len(planned):
            raise StudyError(
                f"what replicate {number} trains follows from those before it: run `connsearch replicate`"
            )
        chosen = planned[number]
        return Given(dict(self.candidates[chosen.candidate].knobs), chosen.seed)


# ---- which trials are near the front -------------------------------------------------------------------


def replicates_of(
    study: Study, *, margin: float | None = None, most: int = MOST_CANDIDATES
) -> tuple[StudyConfig, int]:
    """Return the study that repeats the trials near a study's front, and how many near ones it leaves out.

    A trial is near the front if its error is above the least at no higher cost by a margin at most.

    Args:
        study: The one that was screened.
        margin: By default one standard error of the least error, which the finite validation split has
            (the square root of e (1 - e) / n for n images).
        most: Candidates at most, the nearest ones.

    Raises:
        StudyError: if no trial is finished, or the objectives are not an error and costs to be minimised.
        DataError: if the data set is missing.
    """
    check_objectives(study.config)
    near = _near(study, margin)
    if near.empty:
        raise StudyError(f"{study.directory}: no finished trial to repeat: run the study first")
    chosen = near.iloc[:most]
    costs = [name for name in study.config.objectives if name != "val_error"]
    trials = study.trials()
    candidates = [
        _candidate(row, trials[int(row["trial"])], costs)
        for row in chosen.sort_values([*costs, "val_error", "trial"]).to_dict("records")
    ]
    table = ReplicatesConfig(candidates=tuple(candidates), margin=margin)
    config = study.config.bare(
        n_trials=FIRST_SEEDS * len(candidates),
        seed=int(np.random.SeedSequence([study.config.seed, _STREAM]).generate_state(1)[0]),
        replicates=table,
    )
    return config, len(near) - len(chosen)


def check_objectives(config: StudyConfig) -> None:
    """Make sure that a study's front is one of errors and costs.

    Raises:
        StudyError: if not.
    """
    ways = config.objectives
    if "val_error" not in ways or any(way != "minimize" for way in ways.values()):
        words = ", ".join(f"{name} {way}" for name, way in ways.items())
        raise StudyError(f"replicates need val_error and costs to be minimised, the objectives are {words}")


def _near(study: Study, margin: float | None) -> pd.DataFrame:
    """Return a row for each different network near the front, the nearest first."""
    from connsearch.search.twins import HASH

    frame, trials = study.pareto_front().trials, study.trials()
    if frame.empty:
        return frame
    costs = [name for name in study.config.objectives if name != "val_error"]
    errors, prices = frame["val_error"].to_numpy(float), frame[costs].to_numpy(float)
    cheaper = (prices[None] <= prices[:, None]).all(axis=2)
    least = np.where(cheaper, errors[None], np.inf).min(axis=1)
    allowed = np.full_like(least, margin) if margin is not None else _standard_error(study, least)
    frame = frame.assign(
        gap=errors - least, hash=[trials[number].user_attrs[HASH] for number in frame["trial"]]
    )
    near = frame[frame["gap"] <= allowed].sort_values(["gap", "trial"])
    return near.drop_duplicates("hash")


def _standard_error(study: Study, errors: Floats) -> Floats:
    """Return the standard error of errors that the study's validation split measured."""
    from connsearch.data import load_dataset

    val = load_dataset(study.config.train.dataset).val
    assert val is not None, "a study validates"
    n = len(val)
    share = np.clip(errors, 1 / n, 1 - 1 / n)
    variance: Floats = share * (1 - share) / n
    return variance**0.5


def _candidate(row: dict[Any, Any], trial: FrozenTrial, costs: Iterable[str]) -> Candidate:
    return Candidate(
        trial=trial.number,
        knobs=dict(trial.params),
        val_error=float(row["val_error"]),
        costs={name: float(row[name]) for name in costs},
        macs=int(row["macs"]),
        params=int(row["params"]),
        topology=row["topology"],
        aggregation=row["aggregation"],
    )


# ---- who is trained next -------------------------------------------------------------------------------


class Planned(NamedTuple):
    """One replicate: a candidate's place in the table, and the number of its seeds."""

    candidate: int
    seed: int


class Schedule(NamedTuple):
    """What is trained, by trial number, as far as it is known.

    Attributes:
        planned: Replicates, the round that is under way included.
        settled: Whether every place is settled, so that there is no further round.
    """

    planned: list[Planned]
    settled: bool


def schedule(table: ReplicatesConfig, trials: Sequence[FrozenTrial]) -> Schedule:
    """Return what is trained: rounds, each following from the finished ones before it."""
    n = len(table.candidates)
    planned = [Planned(candidate, seed) for seed in range(FIRST_SEEDS) for candidate in range(n)]
    while len(trials) >= len(planned) and all(t.state.is_finished() for t in trials[: len(planned)]):
        numbers = [sum(p.candidate == c for p in planned) for c in range(n)]
        active = open_places(table.candidates, errors_of(table, trials[: len(planned)]))
        if not active:
            return Schedule(planned, settled=True)
        most = max(numbers[c] for c in active)
        behind = [c for c in active if numbers[c] < most] or active
        planned += [Planned(c, numbers[c]) for c in sorted(behind, key=lambda c: (numbers[c], c))]
    return Schedule(planned, settled=False)


def errors_of(table: ReplicatesConfig, trials: Sequence[FrozenTrial]) -> list[list[float]]:
    """Return for each candidate the errors of its finished replicates; 1 where training diverged.

    A replicate that failed has none.
    """
    knobs = [candidate.knobs for candidate in table.candidates]
    found: list[list[float]] = [[] for _ in knobs]
    for trial in trials:
        if trial.state.is_finished() and "val_error" in trial.user_attrs and trial.params in knobs:
            found[knobs.index(trial.params)].append(float(trial.user_attrs["val_error"]))
    return found


class Rival(NamedTuple):
    """Who decides a candidate's place: the one of least mean error among those that cost no more.

    It is settled when the 95 % interval of the difference of their means leaves out 0.
    """

    candidate: int
    rival: int
    settled: bool


def rivals(candidates: Sequence[Candidate], means: Sequence[StudentMean | None]) -> list[Rival]:
    """Return the rival of each candidate that has one; means are None where nothing is known."""
    found = []
    for i, (candidate, mean) in enumerate(zip(candidates, means, strict=True)):
        others = [
            (other.mean, j)
            for j, other in enumerate(means)
            if j != i and other is not None and candidates[j].costs_no_more_than(candidate)
        ]
        if mean is None or not others:
            continue
        j = min(others)[1]
        other = means[j]
        assert other is not None
        found.append(Rival(i, j, mean.above(other).excludes_zero))
    return found


def means_of(errors: Sequence[Sequence[float]]) -> list[StudentMean | None]:
    """Return the mean error of each candidate, None without any."""
    known = iter(student_means([found for found in errors if found]))
    return [next(known) if found else None for found in errors]


def open_places(candidates: Sequence[Candidate], errors: Sequence[Sequence[float]]) -> list[int]:
    """Return the candidates whose place is open, by 95 % intervals as they are now, and their rivals."""
    unsettled = [rival for rival in rivals(candidates, means_of(errors)) if not rival.settled]
    return sorted({i for rival in unsettled for i in (rival.candidate, rival.rival)})
