"""The Pareto front: which finished trials no other trial beats in every objective, as data.

A `ParetoFront` holds every complete trial of a study as a table, so that a text, a file or a picture can
be made from it without the study. Internally each objective is a *loss*: the value, or its negative
when it is maximised, so that less is better everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any, cast

import numpy as np
import pandas as pd

from connsearch.errors import StudyError, did_you_mean
from connsearch.files import write_whole
from connsearch.search.config import Direction
from connsearch.search.reading.hypervolume import Losses, dominated_volume, losses_of, non_dominated
from connsearch.search.reading.pareto_checks import (
    check_objectives,
    check_reference,
    check_rows,
    first_word,
    worst,
)
from connsearch.search.reading.plain import records_of
from connsearch.text import COUNTS, first_line, human, table

_DEFAULT: Direction = "minimize"

_FIRST = ("trial", "macs", "params", "val_error")
_TEXT = ("topology", "aggregation", "unit", "depths", "widths")
_SHOWN = (*_FIRST, "topology", "aggregation", "n_layers", "widths")


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """The complete trials of a finished or running study, and which of them are Pareto-optimal.

    Two fronts are equal when objectives, directions, reference and all trials are.

    Attributes:
        objectives: Names of the columns that are optimised.
        directions: For each objective, whether less or more is better.
        trials: One row per complete trial: `trial` (its number), every objective, and what else is
            known: `macs` (multiply-accumulates per image), `params` (scalars), `val_error` (a fraction
            within 0..1), `topology`, `aggregation`, `n_layers`, `widths`, ...
        reference: For each objective, the fixed value from which the hypervolume is measured; may be
            empty only when there is no trial.

    Raises:
        StudyError: if names and directions do not match, a column is missing, a trial number repeats,
            or an objective or a reference value is not finite.
    """

    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]
    trials: pd.DataFrame = field(repr=False)
    reference: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_objectives(self.objectives, self.directions)
        for column in ("trial", *self.objectives):
            self.require(column)
        check_rows(self.trials, self.objectives)
        check_reference(self.reference, self.objectives, required=len(self.trials) > 0)

    # ---- construction ------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        objectives: Sequence[str],
        directions: Sequence[Direction] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> ParetoFront:
        """Return the front of a table of complete trials.

        Args:
            frame: One row per complete trial, with a column `trial` and one for each objective. An empty
                frame needs no columns.
            objectives: Names of the columns that are optimised.
            directions: By default all objectives are minimised.
            reference: By default the worst value seen of each objective, so that the hypervolume of a
                growing study is not comparable: state a reference to compare.

        >>> frame = pd.DataFrame({"trial": [0, 1, 2], "macs": [1, 2, 2], "val_error": [0.3, 0.1, 0.2]})
        >>> ParetoFront.from_frame(frame, ("macs", "val_error")).points["trial"].tolist()
        [0, 1]
        """
        ways: tuple[Direction, ...] = tuple(directions) if directions else (_DEFAULT,) * len(objectives)
        if frame.empty:
            columns = list(dict.fromkeys([*frame.columns, "trial", *objectives]))
            frame = pd.DataFrame(columns=columns, dtype=float)
        frame = _whole_counts(frame.reset_index(drop=True))
        if reference is None:
            reference = worst(frame, objectives, ways)
        return cls(tuple(objectives), ways, frame, {name: float(v) for name, v in reference.items()})

    @classmethod
    def from_csv(
        cls,
        path: str | PathLike[str],
        objectives: Sequence[str] = ("val_error", "macs"),
        directions: Sequence[Direction] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> ParetoFront:
        """Read a file that `to_csv` wrote; arguments as in `from_frame`.

        Raises:
            StudyError: if the file cannot be read, is no table, or lacks a column.
        """
        try:
            frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            raise StudyError(f"{path}: cannot read the trials: {reason}") from None
        try:
            return cls.from_frame(
                frame.drop(columns="on_front", errors="ignore"), objectives, directions, reference
            )
        except StudyError as error:
            raise StudyError(f"{path}: {error}") from None

    # ---- reading -----------------------------------------------------------------------------------

    @property
    def x(self) -> str:
        """The objective that orders the front: `macs`, else `params`, else the first."""
        return next((name for name in ("macs", "params") if name in self.objectives), self.objectives[0])

    @cached_property
    def points(self) -> pd.DataFrame:
        """The trials that no other dominates, ascending by `x`; of equal ones the lowest number."""
        rows = self.trials.iloc[self._front_rows]
        others = [name for name in self.objectives if name != self.x]
        return rows.sort_values([self.x, *others, "trial"]).reset_index(drop=True)

    @cached_property
    def dominated(self) -> pd.DataFrame:
        """All trials that are not among `points`: beaten by another, or equal to a lower number."""
        return self.trials.drop(index=self.trials.index[self._front_rows]).reset_index(drop=True)

    @cached_property
    def _front_rows(self) -> list[int]:
        return non_dominated(self.losses, self.trials["trial"].to_numpy())

    @cached_property
    def losses(self) -> Losses:
        """One row per trial, one column per objective, less is better."""
        values: Losses = self.trials[list(self.objectives)].to_numpy(dtype=np.float64)
        return losses_of(values, self.directions)

    @cached_property
    def hypervolume(self) -> float:
        """Volume between the front and the reference, in the product of the objectives' own units.

        Exact, neither normalised nor in logarithms: with `macs` and `val_error` the unit is
        multiply-accumulates times fraction. A point beyond the reference contributes nothing.
        """
        return dominated_volume(self.losses, self.reference_losses) if len(self.trials) else 0.0

    @property
    def reference_losses(self) -> Losses:
        """The reference as losses, in the order of the objectives."""
        return losses_of([self.reference[name] for name in self.objectives], self.directions)

    def knee(self) -> int | None:
        """Return the number of the trial where the front bends most, or None where there is no bend.

        That is the point farthest from the chord between the front's two ends, on the side of the ideal
        point, both axes scaled to 0..1, `macs` and `params` in logarithms. None with fewer than three
        points, with other than two objectives, and for a front that bends the other way throughout.
        """
        if len(self.objectives) != 2 or len(self.points) < 3:
            return None
        unit = np.stack([_unit_losses(self.points[n], w) for n, w in self._pairs()], axis=1)
        gain = 1.0 - unit.sum(axis=1)  # the ends lie at (0, 1) and (1, 0)
        best = int(np.argmax(gain))
        return int(self.points["trial"].iloc[best]) if gain[best] > 1e-9 else None

    def _pairs(self) -> Iterable[tuple[str, Direction]]:
        return zip(self.objectives, self.directions, strict=True)

    def projected(self, x: str, y: str) -> ParetoFront:
        """Return the front of the same trials in two columns; what is no objective is minimised.

        Trials without a value in either column are left out.

        Raises:
            StudyError: if there is no such column, or it does not hold numbers.
        """
        self.require_numbers(x)
        self.require_numbers(y)
        ways = dict(self._pairs())
        reference = self.reference if {x, y} <= self.reference.keys() else None
        rows = self.trials.dropna(subset=[x, y])
        return self.from_frame(
            rows,
            (x, y),
            [ways.get(x, "minimize"), ways.get(y, "minimize")],
            {name: reference[name] for name in (x, y)} if reference else None,
        )

    def require(self, column: str) -> None:
        """Make sure that the trials have a column.

        Raises:
            StudyError: naming the columns that they have.
        """
        if column not in self.trials.columns:
            raise StudyError(
                f"the trials have no column {column!r}. {did_you_mean(column, self.trials.columns)}"
            )

    def require_numbers(self, column: str) -> None:
        """Make sure that the trials have a column, and that it holds numbers.

        Raises:
            StudyError: naming what it holds instead, or the columns that there are.
        """
        self.require(column)
        word = first_word(self.trials[column])
        if word is not None:
            known = [str(name) for name in self.trials.columns if first_word(self.trials[name]) is None]
            raise StudyError(
                f"this needs a column of numbers, {column!r} holds {word!r}. {did_you_mean(column, known)}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParetoFront):
            return NotImplemented
        same = (self.objectives, self.directions, self.reference)
        return same == (other.objectives, other.directions, other.reference) and self.trials.equals(
            other.trials
        )

    def __hash__(self) -> int:
        return hash((self.objectives, self.directions, len(self.trials)))

    # ---- writing -----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and words, ready for JSON; what is not known or not finite is None."""
        order = sorted(self.points.columns, key=lambda c: _FIRST.index(c) if c in _FIRST else len(_FIRST))
        return {
            "objectives": list(self.objectives),
            "points": records_of(self.points[order]),
            "hypervolume": self.hypervolume,
            "reference": dict(self.reference),
        }

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write all trials with a column `on_front`.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        frame = self.trials.assign(on_front=self.trials["trial"].isin(self.points["trial"]))
        write_whole(path, frame.to_csv(index=False).encode())

    def __str__(self) -> str:
        """Return a table of the points with units that people read."""
        if self.trials.empty:
            return "Pareto front: no trial yet that can be ranked"
        start = ", ".join(f"{name} {human(name, value)}" for name, value in self.reference.items())
        title = f"Pareto front: {len(self.points)} of {len(self.trials)} trials"
        columns = [c for c in dict.fromkeys((*_SHOWN, *self.objectives)) if c in self.points.columns]
        rows = [[human(c, row[c]) for c in columns] for row in self.points.to_dict("records")]
        lines = table(columns, rows, left=_TEXT)
        return "\n".join([title, lines, f"hypervolume {self.hypervolume:.4g}, measured from {start}"])


def _unit_losses(values: pd.Series, direction: Direction) -> Losses:
    """Return one column of the front as losses within 0..1, counts in logarithms."""
    found = values.to_numpy(dtype=np.float64)
    if values.name in ("macs", "params") and (found > 0).all():
        found = np.log10(found)
    found = losses_of(found[:, None], [direction])[:, 0]
    return cast(Losses, (found - found.min()) / (np.ptp(found) or 1.0))


# ---- plain values --------------------------------------------------------------------------------------


def _whole_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with counts as integers where all of them are known and whole."""
    whole = {}
    for name in COUNTS:
        if (
            name in frame.columns
            and pd.api.types.is_float_dtype(frame[name])
            and (frame[name] % 1 == 0).all()
        ):
            whole[name] = "int64"
    return frame.astype(whole)
