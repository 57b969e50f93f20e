"""How a study went: what each further finished trial added to the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from connsearch.errors import StudyError, did_you_mean
from connsearch.search.reading.hypervolume import hypervolume, non_dominated
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.reading.plain import records_of
from connsearch.text import human, table

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_ROWS = 12  # of the short table


def history_frame(
    front: ParetoFront, y: str = "val_error", *, finished: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return a row for each finished trial.

    Args:
        front: The trials that can be ranked, and the reference of the hypervolume.
        y: A column of theirs.
        finished: Numbers of all finished trials in the order in which they ended, those that failed
            included; by default the front's own trials by number.

    Returns:
        `n_trials` finished so far, the `trial` that was the last of them, and so far: `hypervolume`,
        `n_front` (points that no other dominates), `best` of `y`. The trial's own `y` is missing where
        it cannot be ranked.

    Raises:
        StudyError: if no trial can be ranked, or there is no such column of numbers, or it numbers trials.
    """
    if front.trials.empty:
        raise StudyError("there is no complete trial to draw yet: run the study first")
    front.require_numbers(y)
    if y == "trial":
        raise StudyError("'trial' numbers the trials, none is the best: take what they reach, as val_error")
    if finished is None:
        finished = sorted(int(number) for number in front.trials["trial"])
    values = front.trials.set_index("trial")[y].astype(float).reindex(list(finished)).reset_index(drop=True)
    ways = dict(zip(front.objectives, front.directions, strict=True))
    best = values.cummin() if ways.get(y, "minimize") == "minimize" else values.cummax()
    volumes, sizes = _growth(front, finished)
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, len(values) + 1),
            "trial": list(finished),
            "hypervolume": volumes,
            "n_front": sizes,
            y: values,
            "best": best.ffill(),
        }
    )


def _growth(front: ParetoFront, finished: Sequence[int]) -> tuple[list[float], list[int]]:
    """Return hypervolume and size of the front after each trial; what is dominated is not looked at again."""
    rows = dict(zip(front.trials["trial"].tolist(), front.losses, strict=True))
    kept = np.empty((0, len(front.objectives)))
    volumes, sizes = [0.0], [0]
    for number in finished:
        if number in rows:
            kept = np.vstack([kept, rows[number]])
            kept = kept[non_dominated(kept, np.arange(len(kept)))]
            volumes.append(hypervolume(kept, front.reference_losses))
        else:
            volumes.append(volumes[-1])
        sizes.append(len(kept))
    return volumes[1:], sizes[1:]


def finished_in_order(trials: Sequence[FrozenTrial]) -> list[int]:
    """Return the numbers of the trials that ended, by the time of their end, then by number."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    return [trial.number for trial in sorted(ended, key=lambda t: (str(t.datetime_complete or ""), t.number))]


def history_text(frame: pd.DataFrame, front: ParetoFront, y: str = "val_error") -> str:
    """Return some rows of a history, the first and the last included, and the reference."""
    count = len(frame)
    rows = sorted({round(at) for at in np.linspace(0, count - 1, min(count, _ROWS))})
    cells = [
        [
            str(row["n_trials"]),
            f"{row['hypervolume']:.4g}",
            str(row["n_front"]),
            human(y, row["best"]),
        ]
        for row in frame.iloc[rows].to_dict("records")
    ]
    return "\n".join(
        [table(["trials", "hypervolume", "front", f"best {y}"], cells), f"hypervolume {measured_from(front)}"]
    )


def measured_from(front: ParetoFront) -> str:
    """Return the reference of a front's hypervolume in words."""
    return "measured from " + ", ".join(f"{name} {human(name, v)}" for name, v in front.reference.items())


def with_reference(front: ParetoFront, given: Sequence[str]) -> ParetoFront:
    """Return a front whose hypervolume is measured from `name=value` of each objective.

    If none is given, it is the front itself.

    Raises:
        StudyError: if one is no number, no objective, given twice, or missing.
    """
    if not given:
        return front
    found: dict[str, float] = {}
    for text in given:
        name, number = _pair(text)
        if name not in front.objectives:
            raise StudyError(
                f"reference {text}: no objective {name!r}. {did_you_mean(name, front.objectives)}"
            )
        if name in found:
            raise StudyError(f"reference {text}: {name} is given twice")
        found[name] = number
    missing = [name for name in front.objectives if name not in found]
    if missing:
        raise StudyError(f"the reference needs a value of every objective: add {missing[0]}=VALUE")
    return replace(front, reference={name: found[name] for name in front.objectives})


def _pair(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not math.isfinite(value):
        raise StudyError(f"reference {text}: write NAME=VALUE with a number, such as val_error=0.1")
    return name.strip(), value


def history_dict(frame: pd.DataFrame, reference: Mapping[str, float]) -> dict[str, object]:
    """Return a history as plain data, ready for JSON; what is missing is None."""
    return {"reference": dict(reference), "history": records_of(frame)}
