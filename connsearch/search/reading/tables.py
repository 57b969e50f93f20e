"""All that a study recorded, as tables: a row for each trial, a row for each epoch of each trial."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd

from connsearch.errors import StudyError, did_you_mean
from connsearch.files import write_whole
from connsearch.search.failures import DIVERGED
from connsearch.search.measures import ERRORS, VAL_IOU_ERROR
from connsearch.search.proxies.prefilter import PREFILTER, verdict_on
from connsearch.search.reading.records import network_row, state_of
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.storages.claims import lease_of
from connsearch.search.twins import HASH, TWIN
from connsearch.text import first_line, human, table

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = ("complete", "failed", "pruned", "waiting", "unfinished")
CURVE_COLUMNS = (
    "trial",
    "epoch",
    "lr",
    "train_loss",
    "train_error",
    "val_loss",
    "val_error",
    "seconds",
)
_PLACED = {  # attributes of a trial that have their own place in its row
    *(
        "network",
        "cost",
        "budget",
        "curve",
        "lease",
        "environment",
        "reason",
        "error",
        "seconds",
        *ERRORS,
    ),
    *(HASH, TWIN, SEEDS_OF),
}
_WHOLE = (
    *("macs", "params", "inference_bytes", "training_bytes", "n_layers", "budget_macs", "budget_params"),
    *("twin", "seeds_of", "epochs", "pid", "attempts"),
)
_SHOWN = (
    *("trial", "state", *ERRORS, "macs", "params", "topology", "aggregation", "depths", "widths"),
    *("seconds", "reason", "twin", "ended", "host"),
)
_USUAL = tuple(name for name in _SHOWN if name != VAL_IOU_ERROR)  # of any study
_TEXT = ("state", "topology", "aggregation", "depths", "widths", "reason", "host", "ended")
_LONGEST = 40  # characters of a cell


def trials_table(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> pd.DataFrame:
    """Return a row for each trial, in the order of their numbers; what a trial does not have is missing.

    Args:
        trials: All trials of a study, those that run included.
        objectives: The names of the study's objectives.

    Returns:
        Columns: `trial`, `state`, `reason`; what was reached and counted (`val_error` a fraction, `macs`
        multiply-accumulates per image, `params` scalars, bytes); the network in words; `budget_*`; its
        `hash`, the `twin` that had the same before, the trial whose seeds it took (`seeds_of`); `epochs`
        done; `seconds` of training and `wall_seconds` from begin to end; `started`, `ended` by the clock
        of the worker, its `host` and `pid`, `attempts`; `knob_*`, `told_*` (the values that the sampler
        learnt from, the worst ones where a trial failed), `constraint_*`, `env_*`, all other attributes
        under their own names; `network` and `error` whole. Those that people look at first are there even if
        no trial has them yet.
    """
    rows = [_row(trial, objectives) for trial in trials]
    columns = dict.fromkeys(name for block in range(_N_BLOCKS) for row in rows for name in row[block])
    frame = pd.DataFrame([_joined(row) for row in rows], columns=list({**columns, **dict.fromkeys(_USUAL)}))
    return frame.astype({name: "Int64" for name in _WHOLE if name in frame.columns})


_N_BLOCKS = 8
"""Parts of a row; columns of one part stay together however many trials have them."""


def _row(trial: FrozenTrial, objectives: Sequence[str]) -> tuple[dict[str, Any], ...]:
    attrs, told = trial.user_attrs, trial.values or []
    more = {key: value for key, value in attrs.items() if key not in _PLACED}
    more |= {PREFILTER: verdict} if (verdict := verdict_on(trial)) else {}
    return (
        {"trial": trial.number, "state": state_of(trial), "reason": attrs.get("reason")},
        _reached(attrs),
        _identity(attrs),
        _course(trial),
        {f"knob_{name}": value for name, value in trial.params.items()},
        {f"told_{name}": value for name, value in zip(objectives, told, strict=False)}
        | {f"constraint_{name}": value for name, value in trial.constraints.items()},
        {f"env_{name}": value for name, value in attrs.get("environment", {}).items()} | dict(_flat(more)),
        {name: attrs.get(name) for name in ("network", "error")},
    )


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _reached(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error, and the cost and the words of the network if there is one."""
    known = network_row(attrs) if {"network", "cost"} <= attrs.keys() else {}
    errors = {name: attrs[name] for name in ERRORS if name in attrs}
    return {"val_error": None, **errors, **known}


def _identity(attrs: Mapping[str, Any]) -> dict[str, Any]:
    budget = {f"budget_{name}": bound for name, bound in attrs.get("budget", {}).items()}
    return budget | {name: attrs.get(name) for name in (HASH, TWIN, SEEDS_OF)}


def _course(trial: FrozenTrial) -> dict[str, Any]:
    """Return how far training came, how long it took, when and where."""
    attrs, lease = trial.user_attrs, lease_of(trial)
    wall = trial.duration.total_seconds() if trial.duration is not None else None
    return {
        "epochs": len(attrs["curve"]) if "curve" in attrs else lease.get("epoch"),
        "seconds": attrs.get("seconds"),
        "wall_seconds": wall,
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        "host": lease.get("host"),
        "pid": lease.get("pid"),
        "attempts": lease.get("attempt"),
    }


def _flat(data: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of nested tables by dotted names; lists stay what they are."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def curves_table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """Return a row for each recorded epoch of each trial: losses and errors of both splits, rate, seconds.

    A trial's curve is recorded when it ends: those that run have none yet.
    """
    rows = [
        {"trial": trial.number, **record} for trial in trials for record in trial.user_attrs.get("curve", [])
    ]
    more = ["val_mean_iou"] if any("val_mean_iou" in row for row in rows) else []
    return pd.DataFrame(rows, columns=[*CURVE_COLUMNS, *more])


# ---- choosing --------------------------------------------------------------------------------------------


def chosen(
    frame: pd.DataFrame,
    *,
    states: Collection[str] = (),
    sort: str | None = None,
    reverse: bool = False,
    objectives: Mapping[str, str] | None = None,
    n: int | None = None,
) -> pd.DataFrame:
    """Return some rows of a table of trials.

    Args:
        frame: As `trials_table` gives it.
        states: Only these; all, if there are none. "diverged" takes the complete ones that diverged.
        sort: Column to sort by, missing values last.
        reverse: Whether the greatest comes first.
        objectives: Names with their directions: of rows that are equal there the better come first.
        n: Only so many from the top.

    Raises:
        StudyError: if there is no such state or column.
    """
    for state in states:
        if state not in (*STATES, DIVERGED):
            raise StudyError(f"unknown state {state!r}. {did_you_mean(state, (*STATES, DIVERGED))}")
    if states:
        frame = frame[frame["state"].isin(list(states)) | _diverged(frame, states)]
    if sort is not None:
        if sort not in frame.columns:
            raise StudyError(f"no column {sort!r} to sort by. {did_you_mean(sort, frame.columns)}")
        frame = _sorted(frame, sort, reverse, objectives or {})
    return frame if n is None else frame.head(n)


def _diverged(frame: pd.DataFrame, states: Collection[str]) -> pd.Series:
    return (frame["reason"] == DIVERGED) & (DIVERGED in states)


def _sorted(frame: pd.DataFrame, column: str, reverse: bool, objectives: Mapping[str, str]) -> pd.DataFrame:
    """Return sorted rows, of equal ones the better, then the lower number; what is no number as text."""
    ties = {name: way == "minimize" for name, way in objectives.items()} | {"trial": True}
    ups = {column: not reverse, **{name: up for name, up in ties.items() if name != column}}
    return frame.sort_values(list(ups), ascending=list(ups.values()), na_position="last", key=_keys)


def _keys(cells: pd.Series) -> pd.Series:
    """Return what cells are sorted by: themselves, or as text if one is no number."""
    texts = cells.dropna().map(lambda value: not isinstance(value, int | float | pd.Timestamp)).any()
    return cells.map(str, na_action="ignore") if texts else cells


# ---- writing ---------------------------------------------------------------------------------------------


def write_csv(frame: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write a table; tables and lists in a cell as JSON.

    Raises:
        ConnsearchError: if the file cannot be written.
    """
    cells = frame.map(lambda value: json.dumps(value) if isinstance(value, dict | list) else value)
    write_whole(path, cells.to_csv(index=False).encode())


def trials_text(frame: pd.DataFrame, width: int | None = None, *, first: str | None = None) -> str:
    """Return the columns that people look at first, as many as fit into the width of the terminal.

    Args:
        frame: As `trials_table` gives it.
        first: A column that comes right after the trial's number, such as what it is sorted by.
        width: In characters; by default the terminal's.
    """
    if frame.empty:
        return "no trial"
    wanted = dict.fromkeys(["trial", *([first] if first else []), *_SHOWN])
    shown = [name for name in wanted if name in frame.columns and frame[name].notna().any()]
    columns = [[name, *(_cell(name, value) for value in frame[name])] for name in shown]
    room = shutil.get_terminal_size((100, 24)).columns if width is None else width
    fitting: list[list[str]] = []
    used = -2
    for cells in columns:
        used += 2 + max(map(len, cells))
        if used > room and len(fitting) > 2:
            break
        fitting.append(cells)
    header = [cells[0] for cells in fitting]
    return table(header, list(zip(*(cells[1:] for cells in fitting), strict=True)), left=_TEXT)


def _cell(column: str, value: Any) -> str:
    if value is None or pd.isna(value):
        return "-"
    if isinstance(value, pd.Timestamp):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = human(column, value) if column != "seconds" else f"{value:.1f}"
    line = first_line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
