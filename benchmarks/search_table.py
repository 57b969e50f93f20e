"""What a search is judged on: the table of trained networks, a question about it, and its true answer.

A question asks for networks whose MACs lie within [low, high]: for all that trade error against MACs there,
or for the one of least error. The table holds several trainings of each network; a trial of a search sees the
error of one of them, an answer is judged by their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from connsearch.search.reading.hypervolume import hypervolume, non_dominated

Floats = npt.NDArray[np.float64]
Knobs = tuple[str, str, int, int]  # topology, aggregation, number of layers, width
Shape = tuple[str, str, int]  # topology, aggregation, place of the depth among those of the table

TABLE = Path(__file__).parent / "tables" / "digits.csv"
CHANCE = 0.9  # the error of guessing one of ten digits
KNOBS = ("topology", "aggregation", "n_layers", "width")


class Table:
    """Networks by number, each with its exact MACs and its errors in S trainings or more.

    Combinations of knobs that are one network (a chain has one source to aggregate, whatever the aggregation)
    have one number, and all their trainings count as its.

    Attributes:
        knobs: Topology, aggregation, number of layers and width of each network; the first combination of
            several.
        options: The values of each knob that occur, ascending.
        macs: Multiply-accumulates of each network.
        errors: Validation errors of each network, one for each training.
        mean: Mean of the errors of each network.

    Raises:
        ValueError: if combinations are missing from the grid, or trained unequally often.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.options = {name: sorted(frame[name].unique().tolist()) for name in KNOBS}
        n_lines = math.prod(map(len, self.options.values())) * frame["seed"].nunique()
        if len(frame) != n_lines or frame.duplicated([*KNOBS, "seed"]).any():
            raise ValueError(
                f"a full grid has {n_lines:,} trainings, the table {len(frame):,} lines: finish it with "
                "python benchmarks/tables/make_digits.py"
            )
        numbers, _ = pd.factorize(frame["network"])
        groups = [group for _, group in frame.groupby(numbers)]
        self.knobs: list[Knobs] = [
            next(group[list(KNOBS)].itertuples(index=False, name=None)) for group in groups
        ]
        self.macs: Floats = np.array([group["macs"].iloc[0] for group in groups], float)
        self.errors: list[Floats] = [group["val_error"].to_numpy(float) for group in groups]
        self.mean: Floats = np.array([errors.mean() for errors in self.errors])
        spelled = frame[list(KNOBS)].itertuples(index=False, name=None)
        self._number = dict(zip(spelled, numbers.tolist(), strict=True))

    @classmethod
    def read(cls, path: Path = TABLE) -> Table:
        """Return a table from its file."""
        return cls(pd.read_csv(path))

    def at(self, shape: Shape, width_step: int) -> int:
        """Return the number of the network of a shape, its width given by its place among the table's."""
        topology, aggregation, depth_step = shape
        depth, width = self.options["n_layers"][depth_step], self.options["width"][width_step]
        return self._number[topology, aggregation, depth, width]


@dataclass(frozen=True)
class Question:
    """What a search of the table is asked.

    Attributes:
        name: For tables and pictures.
        table: What is searched.
        low, high: Least and most MACs of an answer.
        whole_front: Whether the best error is wanted at every budget within low..high, or at high alone.
    """

    name: str
    table: Table
    low: int
    high: int
    whole_front: bool

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Whether each network's MACs are within the bounds."""
        return (self.low <= self.table.macs) & (self.table.macs <= self.high)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is minimised."""
        return ("val_error", "macs") if self.whole_front else ("val_error",)

    def within(self, shape: Shape, budget: float) -> int:
        """Return the widest network of a shape that costs at most a budget, and is allowed.

        Where the narrowest is too dear there are fewer layers, as `connsearch.fit_width` does; where the
        grid has none at any depth, the cheapest allowed network of that topology and aggregation.

        Raises:
            ValueError: if no network of that topology and aggregation is allowed.
        """
        topology, aggregation, depth_step = shape
        dearer: list[int] = []
        for step in range(depth_step, -1, -1):
            widths = range(len(self.table.options["width"]))
            found = [self.table.at((topology, aggregation, step), width) for width in widths]
            fits = [n for n in found if self.allowed[n] and self.table.macs[n] <= budget]
            if fits:
                return max(fits, key=lambda n: self.table.macs[n])
            dearer += [n for n in found if self.allowed[n]]
        if not dearer:
            raise ValueError(f"no {topology} x {aggregation} within {self.low:,}..{self.high:,} MACs")
        return min(dearer, key=lambda n: self.table.macs[n])

    # ---- how good an answer is ---------------------------------------------------------------------------

    def volume(self, networks: Sequence[int]) -> float:
        """Return the mean over budgets within low..high of how far the best error lies below chance.

        Budgets count alike in the logarithm: this is the hypervolume in (error, log MACs) from the reference
        (0.9, high), over log(high / low). Errors are means over trainings; what is not allowed counts
        nothing.
        """
        allowed = [n for n in networks if self.allowed[n]]
        if not allowed:
            return 0.0
        if not self.whole_front:
            return float(CHANCE - self.table.mean[allowed].min())
        losses = np.column_stack([self.table.mean[allowed], np.log(self.table.macs[allowed] / self.low)])
        span = math.log(self.high / self.low)
        return hypervolume(losses, np.array([CHANCE, span])) / span

    @cached_property
    def best_volume(self) -> float:
        """The volume of the best answer there is."""
        return self.volume(range(len(self.table.knobs)))

    def share(self, networks: Sequence[int]) -> float:
        """Return the volume as a share of that of the best answer."""
        return self.volume(networks) / self.best_volume

    def regret(self, networks: Sequence[int]) -> float:
        """Return by how much the error is above the best possible, in the mean over budgets; 0 to 0.9."""
        return self.best_volume - self.volume(networks)

    def answer(self, trials: Iterable[tuple[int, float]]) -> list[int]:
        """Return the networks that a user would pick after trials of (network, error seen).

        The best by what was seen, not by the truth; of a network that was trained several times the mean of
        it. The whole front, or the one of least error (of several the cheapest).
        """
        seen: dict[int, list[float]] = {}
        for network, error in trials:
            if self.allowed[network]:
                seen.setdefault(network, []).append(error)
        networks = list(seen)
        if not networks:
            return []
        losses = np.array([[float(np.mean(seen[n])), self.table.macs[n]] for n in networks])
        if not self.whole_front:
            return [networks[np.lexsort((losses[:, 1], losses[:, 0]))[0]]]
        return [networks[row] for row in non_dominated(losses, np.array(networks))]
