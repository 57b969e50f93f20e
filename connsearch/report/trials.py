"""What a page says of each trial: its figures, its curve, its network, and how to go on from it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from connsearch.report.networks import Drawn, draw
from connsearch.report.words import OF_TRIALS, in_words, name_of
from connsearch.search.failures import failed
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.reading.plain import records_of
from connsearch.search.reading.tables import trials_table
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.twins import TWIN
from connsearch.spec.network import NetworkSpec
from connsearch.text import duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.study import Study

MOST_NUMBERS = 600_000
"""Of networks and curves in a page; with more it would weigh some megabytes."""
_OF_THE_FRONT = ("val_error", "macs", "params", "topology", "aggregation", "depths", "widths")
_PER_PART = 5  # numbers for a node or an edge, about
_CURVE = ("train_error", "val_error", "train_loss", "val_loss")


class Details(NamedTuple):
    """What a page knows of trials.

    Attributes:
        layouts: Of their networks, each once.
        of: By number: `facts`, `knobs`, `notes`, `commands` in words; `curve`; `layout` (its number), `nodes`
            and `edges` with their costs, as `connsearch.report.networks` says.
        left_out: How many go without network and curve.
    """

    layouts: list[dict[str, Any]]
    of: dict[int, dict[str, Any]]
    left_out: int


def trial_rows(study: Study) -> dict[int, dict[str, Any]]:
    """Return a row for each trial by its number, with the columns of `trials_table`."""
    return {
        row["trial"]: row for row in records_of(trials_table(study.trials(), tuple(study.config.objectives)))
    }


def shown_columns(rows: Sequence[Mapping[str, Any]], objectives: Collection[str]) -> list[str]:
    """Return the columns of a table of trials that some trial has."""
    wanted = dict.fromkeys(["trial", "state", *objectives, *OF_TRIALS])
    return [name for name in wanted if any(row.get(name) is not None for row in rows)]


def front_columns(
    known: Collection[str], rows: Sequence[Mapping[str, Any]], objectives: Collection[str]
) -> list[str]:
    """Return the columns of a table of the front: objectives, size, and what tells networks apart."""
    units = {row.get("unit") for row in rows if row.get("unit") is not None}
    wanted = dict.fromkeys(["trial", *objectives, *_OF_THE_FRONT, *(["unit"] if len(units) > 1 else [])])
    return [name for name in wanted if name in known]


# ---- one trial -----------------------------------------------------------------------------------------


def details(study: Study, rows: Mapping[int, Mapping[str, Any]], first: Collection[int]) -> Details:
    """Return what a page knows of each trial.

    Args:
        study: The study.
        rows: As `trial_rows` gives them.
        first: Trials whose networks and curves come first, before the page gets too heavy.
    """
    found, layouts = {}, _Layouts()
    left, left_out = MOST_NUMBERS, 0
    for trial in sorted(study.trials(), key=lambda trial: (trial.number not in first, trial.number)):
        found[trial.number] = _about(study, trial, rows[trial.number])
        curve, is_known = _curve(trial), "network" in trial.user_attrs
        if left <= 0:
            left_out += is_known
            found[trial.number]["left_out"] = is_known
            continue
        if curve:
            found[trial.number]["curve"] = curve
        if is_known:
            drawn = draw(NetworkSpec.from_dict(trial.user_attrs["network"]))
            found[trial.number] |= {"layout": layouts.add(drawn), "nodes": drawn.nodes, "edges": drawn.edges}
            left -= _PER_PART * drawn.size
        left -= sum(map(len, curve.values()))
    return Details(layouts.all, dict(sorted(found.items())), left_out)


class _Layouts:
    """Layouts by number, equal ones once."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}

    def add(self, drawn: Drawn) -> int:
        """Return the number of a network's layout."""
        place = self._places.setdefault(repr(drawn.layout), len(self.all))
        if place == len(self.all):
            self.all.append(drawn.layout)
        return place


def _about(study: Study, trial: FrozenTrial, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a trial is and how it went, in words."""
    about = {
        "facts": facts(row, study.config.objectives),
        "knobs": [[name, in_words("", value)] for name, value in trial.params.items()],
        "notes": list(_notes(trial)),
    }
    trained = trial.state.is_finished() and "curve" in trial.user_attrs and not failed(trial)
    return about | ({"commands": commands(study, trial)} if trained else {})


def facts(row: Mapping[str, Any], objectives: Collection[str]) -> list[list[str]]:
    """Return what is known of a trial in pairs of words, its errors and its size first."""
    errors = [name for name in objectives if name.endswith("_error")]
    wanted = dict.fromkeys(
        [
            *errors,
            "val_error",
            "macs",
            "params",
            *objectives,
            "topology",
            "aggregation",
            *OF_TRIALS,
            "n_layers",
        ]
    )
    known = [name for name in wanted if row.get(name) is not None and name != "reason"]
    return [[name_of(name), in_words(name, row[name])] for name in known]


def _notes(trial: FrozenTrial) -> list[str]:
    attrs = trial.user_attrs
    notes = []
    if reason := attrs.get("reason"):
        notes.append(f"why it failed: {reason}")
    if pruned := attrs.get(PRUNED):
        notes.append(f"stopped after epoch {pruned['epoch']}, as trials of its cost had done better by then")
    if TWIN in attrs:
        notes.append(f"the same network as trial {attrs[TWIN]}")
    if SEEDS_OF in attrs and attrs[SEEDS_OF] != trial.number:
        notes.append(f"trained with the seeds of number {attrs[SEEDS_OF]}")
    return notes


def commands(study: Study, trial: FrozenTrial) -> list[list[str]]:
    """Return what one may do with a trial's network: in words, and as a command line."""
    where = f"{shlex.quote(str(study.directory))} {trial.number}"
    name = f"trial-{trial.number}"
    return [
        ["train it in full, with three seeds", f"connsearch retrain {where} --seeds 0,1,2"],
        ["repeat the trial exactly", f"connsearch retrain {where} --exact"],
        ["take it away, as PyTorch and ONNX", _export(where, name)],
    ]


def _export(where: str, name: str) -> str:
    return f"connsearch export {where} -o {Path(name)} --format toml --format python --format onnx"


def _curve(trial: FrozenTrial) -> dict[str, list[float]]:
    """Return what is recorded by epoch, to four digits; nothing if there is no epoch."""
    curve = trial.user_attrs.get("curve", [])
    names = [name for name in _CURVE if curve and all(record.get(name) is not None for record in curve)]
    return {name: [float(f"{record[name]:.4g}") for record in curve] for name in names}


def totals(rows: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """Return when trials began and ended by the clocks of workers, and how long they trained in all."""
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    begun = sorted(row["started"] for row in rows if row.get("started"))
    ended = sorted(row["ended"] for row in rows if row.get("ended"))
    found = {"training steps of all trials": duration(sum(seconds))} if seconds else {}
    if begun:
        found["first trial began"] = begun[0][:19].replace("T", " ")
    if ended:
        found["last trial ended"] = ended[-1][:19].replace("T", " ")
    return found
