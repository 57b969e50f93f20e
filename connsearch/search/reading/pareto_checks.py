"""What must hold of a table of trials and its objectives for there to be a front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import get_args

import numpy as np
import pandas as pd

from connsearch.errors import StudyError, did_you_mean
from connsearch.search.config import Direction


def check_objectives(objectives: Sequence[str], directions: Sequence[str]) -> None:
    """Refuse names and directions that do not belong together.

    Raises:
        StudyError: naming what is wrong.
    """
    if not objectives or len(set(objectives)) < len(objectives):
        raise StudyError(f"objectives must be one or more different names, got {list(objectives)}")
    if len(objectives) != len(directions):
        raise StudyError(f"{len(objectives)} objectives need as many directions, got {list(directions)}")
    for direction in directions:
        if direction not in get_args(Direction):
            raise StudyError(
                f"unknown direction {direction!r}. {did_you_mean(direction, get_args(Direction))}"
            )


def check_rows(trials: pd.DataFrame, objectives: Sequence[str]) -> None:
    """Refuse trials without a finite objective, and numbers that repeat.

    Raises:
        StudyError: naming the trial.
    """
    for name in objectives:
        values = pd.to_numeric(trials[name], errors="coerce").to_numpy(dtype=np.float64)
        for trial, value in zip(
            trials["trial"][~np.isfinite(values)], trials[name][~np.isfinite(values)], strict=True
        ):
            raise StudyError(
                f"trial {trial}: {name} is {value!r}: only trials with finite objectives are complete"
            )
    for trial in trials["trial"][trials["trial"].duplicated()]:
        raise StudyError(f"trial {trial} is there twice: trial numbers must differ")


def check_reference(reference: Mapping[str, float], objectives: Sequence[str], *, required: bool) -> None:
    """Refuse a reference that lacks a finite value.

    Raises:
        StudyError: naming the objective.
    """
    if required or reference:
        for name in objectives:
            if not math.isfinite(reference.get(name, math.nan)):
                raise StudyError(f"the reference needs a finite value for {name!r}, got {reference}")


def worst(
    trials: pd.DataFrame, objectives: Sequence[str], directions: Sequence[Direction]
) -> dict[str, float]:
    """Return the worst value of each objective; nothing if there is no trial or a column is missing."""
    if trials.empty or not {*objectives} <= {*trials.columns}:
        return {}
    pairs = zip(objectives, directions, strict=False)
    return {n: float(trials[n].max() if way == "minimize" else trials[n].min()) for n, way in pairs}


def first_word(values: pd.Series) -> object:
    """Return the first value that is there and no number; None if there is none."""
    return next((value for value in values.dropna() if not isinstance(value, Real)), None)
