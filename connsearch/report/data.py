"""Everything that a page says of a study, as plain data: read from the study, and nothing of it drawn yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.plots.style import TIMES
from connsearch.report.charts import front_panels, history, keys
from connsearch.report.findings import Failures, failures_of, importance, standings
from connsearch.report.retrained import retrained
from connsearch.report.trials import details, front_columns, shown_columns, totals, trial_rows
from connsearch.report.words import in_words, name_of, unit_of
from connsearch.search.reading.history import finished_in_order, measured_from
from connsearch.search.reading.pareto import ParetoFront
from connsearch.text import human, si

if TYPE_CHECKING:
    from connsearch.search.reading.records import Status
    from connsearch.search.study import Study


@dataclass(frozen=True)
class Report:
    """A study as a page tells it, or trials without a study. The same study gives the same report.

    Attributes:
        question: What the study is to answer; may be empty.
        objectives: Name, direction in words.
        rows: A row for each trial, by number.
        columns: Of a table of all trials.
        front_columns: Of a table of the front.
        front: Numbers of the trials that no other beats in every objective, in order.
        knee: The one where the front bends most; None if there is none.
        panels: As `charts.front_panels` gives them.
        keys: As `charts.keys` gives them.
        details: Of each trial, as `trials.Details` has them.
        layouts: Of networks; `details` refer to them by number.
        left_out: Number of trials whose networks were left out, as the page would weigh too much.
        name: Of the study's directory.
        directory: As commands name it; "" if there is no study.
        state: How far it is, in a sentence.
        figures: The few numbers that one looks at first: what, how much, and a note to it.
        history: As `charts.history` gives it.
        standings: Of the tournament that it is or has.
        importance: Of knobs.
        failures: What failed, diverged or was stopped; None if that is not known.
        retrained: What networks reached when they were trained in full.
        config: The configuration as TOML.
        provenance: What the numbers depend on, in pairs.
        environments: Each machine and set of versions, with the number of trials.
    """

    question: str
    objectives: tuple[tuple[str, str], ...]
    rows: dict[int, dict[str, Any]]
    columns: list[str]
    front_columns: list[str]
    front: list[int]
    knee: int | None
    panels: list[dict[str, Any]]
    keys: dict[str, Any]
    details: dict[int, dict[str, Any]]
    layouts: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0
    name: str = ""
    directory: str = ""
    state: str = ""
    figures: tuple[tuple[str, str, str], ...] = ()
    history: dict[str, Any] | None = None
    standings: dict[str, Any] | None = None
    importance: dict[str, Any] | None = None
    failures: Failures | None = None
    retrained: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""
    provenance: tuple[tuple[str, str], ...] = ()
    environments: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The question, or the name of a study that asks none."""
        return self.question or f"Study {self.name}"


def report_of(study: Study, *, tournament: Path | None = None, with_importance: bool = True) -> Report:
    """Return what there is to say of a study, finished or not.

    Args:
        study: The study.
        tournament: Directory of a tournament to show with it; by default the study itself if it is one,
            else the one that `connsearch tournament` puts beside it, if it is there.
        with_importance: Whether to estimate the importance of knobs, where there are enough trials; it
            takes some seconds.

    Raises:
        StudyError: if the tournament is none.
        SpecError: if a recorded network describes none.
    """
    front, rows, status = study.pareto_front(), trial_rows(study), study.status()
    numbers = [int(number) for number in front.points["trial"]]
    known = details(study, rows, numbers)
    columns = shown_columns(list(rows.values()), study.config.objectives)
    return Report(
        question=study.config.question,
        objectives=tuple(in_direction(*pair) for pair in study.config.objectives.items()),
        rows=rows,
        columns=columns,
        front_columns=front_columns(columns, list(rows.values()), study.config.objectives),
        front=numbers,
        knee=front.knee(),
        panels=front_panels(front),
        keys=keys(front),
        details=known.of,
        layouts=known.layouts,
        left_out=known.left_out,
        name=study.directory.resolve().name,
        directory=str(study.directory),
        state=_state(status),
        figures=tuple(_figures(status, front, rows)),
        history=history(front, finished_in_order(study.trials())),
        standings=standings(study, tournament),
        importance=importance(study) if with_importance else None,
        failures=failures_of(study.trials()),
        retrained=retrained(study.directory),
        config=study.config.to_toml(),
        provenance=tuple(_provenance(study, rows)),
        environments=_environments(study, rows),
    )


def in_direction(name: str, way: str) -> tuple[str, str]:
    """Return what an objective is called, and which way it is better."""
    return name_of(name), "less is better" if way == "minimize" else "more is better"


def _state(status: Status) -> str:
    """Return how far a study is."""
    if status.finished >= status.asked:
        return f"Finished: {status.finished} of {status.asked} trials."
    begun = status.states["unfinished"]
    more = f"; {begun} more begun" if begun else ""
    return f"Not finished: {status.finished} of {status.asked} trials so far{more}. What follows may change."


def _figures(
    status: Status, front: ParetoFront, rows: Mapping[int, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    states = ", ".join(f"{n} {state}" for state, n in status.states.items() if n)
    found = [("trials finished", f"{status.finished} of {status.asked}", states)]
    if status.best is not None:
        name, value = next((name, v) for name, v in status.best.items() if name != "trial")
        found.append((f"best {name_of(name)}", human(name, value), f"trial {status.best['trial']}"))
    if not front.trials.empty:
        found.append(("points on the front", str(len(front.points)), f"of {len(front.trials)} ranked trials"))
        unit = f" {TIMES} ".join(unit_of(name) for name in front.objectives)
        found.append(("hypervolume", si(front.hypervolume, 4), f"{unit}; {measured_from(front)}"))
    spent = totals(rows.values())
    if "training steps of all trials" in spent:
        found.append(
            ("training, all trials", spent["training steps of all trials"], "steps of training alone")
        )
    return found


# ---- what the numbers depend on ------------------------------------------------------------------------


def _provenance(study: Study, rows: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, str]]:
    config = study.config
    return [
        ("study", str(study.directory)),
        ("data set", config.train.dataset.label),
        ("sampler", config.sampler.label),
        ("pruner", config.pruner.label),
        ("seed", f"{config.seed}; sampling, weights and batches of a trial follow from it and its number"),
        *totals(rows.values()).items(),
    ]


def _environments(study: Study, rows: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each machine and set of versions that trials ran with, the most frequent first."""
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for trial in study.trials():
        known = trial.user_attrs.get("environment")
        if known is not None:
            pairs = {"host": rows[trial.number].get("host") or "", **known}
            key = tuple((name, in_words("", value)) for name, value in pairs.items())
            counts[key] = counts.get(key, 0) + 1
    names = list(dict.fromkeys(name for pairs in counts for name, _ in pairs))
    return [
        {"trials": n, **dict.fromkeys(names, ""), **dict(pairs)}
        for pairs, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
