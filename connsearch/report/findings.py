"""What a page says beyond single trials: the standings of a tournament, knobs that matter, what failed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import StudyError
from connsearch.report.charts import errors_axis
from connsearch.search.failures import DIVERGED
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.reading.importance import LEAST_TRIALS, importance_of
from connsearch.search.reading.records import state_of
from connsearch.search.study import Study
from connsearch.search.tournament.standings import Standings, standings_of
from connsearch.search.tournament.text import p_word
from connsearch.text import si

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_SUFFIX = "-tournament"


# ---- tournament ----------------------------------------------------------------------------------------


def standings(study: Study, directory: Path | None = None) -> dict[str, Any] | None:
    """Return the standings of the tournament that a study is or has; None if there is none.

    Args:
        study: The study.
        directory: Of a tournament. By default the study itself, or the one beside it that has its name and
            its data set.

    Returns:
        What `Standings.to_dict` has, with `directory`, `findings` in words and an `axis` of errors; or
        `directory` and why there is nothing to see yet as `problem`.

    Raises:
        StudyError: if the directory that is given holds no tournament.
    """
    found = _given(directory) if directory is not None else _own(study)
    if found is None:
        beside = _place_beside(study.directory)
        return _beside(study, beside) if beside.is_dir() else None
    return _standing(found)


def _place_beside(directory: Path) -> Path:
    """Return where a study's tournament would be, as one would type it."""
    whole = directory.resolve()
    beside = whole.with_name(whole.name + _SUFFIX)
    return beside if directory.is_absolute() else Path(os.path.relpath(beside))


def _given(directory: Path) -> Study:
    found = Study.load(directory)
    if _own(found) is None:
        raise StudyError(f"{directory}: is no tournament: make one with `connsearch tournament STUDY.toml`")
    return found


def _own(study: Study) -> Study | None:
    """Return a study that is a tournament itself."""
    table = study.config.tournament
    return study if table is not None and table.contestants else None


def _beside(study: Study, directory: Path) -> dict[str, Any] | None:
    """Return the standings of the tournament beside a study, if it is one of the same data set."""
    try:
        found = Study.load(directory)
    except StudyError as error:
        return {"directory": str(directory), "problem": str(error)}
    alike = found.config.train.dataset == study.config.train.dataset
    return _standing(found) if alike and _own(found) else None


def _standing(study: Study) -> dict[str, Any]:
    where = str(study.directory)
    try:
        found = standings_of(study.config, study.trials())
    except StudyError as error:  # no round is complete, or every contestant failed
        return {"directory": where, "problem": str(error)}
    return {"directory": where, "problem": "", **_standings(found)}


def _standings(found: Standings) -> dict[str, Any]:
    data = found.to_dict()
    ends = [row[key] for row in data["contestants"] for key in _ENDS if row[key] is not None]
    axis = errors_axis([*ends, *(error for row in data["contestants"] for error in row["val_errors"])])
    for row in data["contestants"]:
        row["p"] = p_word(row["p_corrected"])
    macs = si(found.shape.macs)
    return {
        **data,
        "about": str(found.shape),
        "is_complete": found.is_complete,
        "axis": axis,
        "findings": [each.sentence(macs) for each in found.comparisons if each.significant],
        "n_comparisons": len(found.comparisons),
    }


_ENDS = ("val_error", "val_error_low", "val_error_high")


# ---- knobs ---------------------------------------------------------------------------------------------


def importance(study: Study) -> dict[str, Any] | None:
    """Return how much knobs matter for the error, or for the first objective; for errors at equal MACs.

    None if fewer than ten trials can be ranked, or nothing is searched.
    """
    names = tuple(study.config.objectives)
    objective = next((name for name in names if name.endswith("_error")), names[0])
    n_ranked = len(study.pareto_front().trials)
    if n_ranked < LEAST_TRIALS or not any(trial.params for trial in study.trials()):
        return None
    return importance_of(
        study.trials(), study.config, objective, at_equal_macs=objective not in ("macs", "params")
    ).to_dict()


# ---- what failed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Trials that reached nothing, for one reason.

    Attributes:
        kind: "failed" or "diverged".
        reason: In few words.
        trials: Their numbers.
        detail: The whole story of the first one; "" if there is no more than the reason.
    """

    kind: str
    reason: str
    trials: tuple[int, ...]
    detail: str


@dataclass(frozen=True)
class Failures:
    """What did not come to its end.

    Attributes:
        rows: By reason, the most frequent first.
        pruned: Trials that were stopped as others were better.
    """

    rows: tuple[Failure, ...] = ()
    pruned: tuple[int, ...] = ()


def failures_of(trials: Sequence[FrozenTrial]) -> Failures:
    """Return which trials failed, diverged or were stopped, and why."""
    groups: dict[tuple[str, str], list[FrozenTrial]] = {}
    for trial in trials:
        kind = _kind(trial)
        if kind:
            reason = str(trial.user_attrs.get("reason", "no reason is recorded"))
            groups.setdefault((kind, reason), []).append(trial)
    rows = [
        Failure(kind, reason, tuple(t.number for t in some), _detail(some[0], reason))
        for (kind, reason), some in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return Failures(tuple(rows), tuple(t.number for t in trials if PRUNED in t.user_attrs))


def _kind(trial: FrozenTrial) -> str:
    if state_of(trial) == "failed":
        return "failed"
    return "diverged" if trial.user_attrs.get("reason") == DIVERGED else ""


def _detail(trial: FrozenTrial, reason: str) -> str:
    detail = str(trial.user_attrs.get("error", ""))
    return "" if detail.strip() == reason.strip() else detail
