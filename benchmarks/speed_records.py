"""What was timed together: runs of the speed benchmarks, read from results/*.jsonl.

A run is several ways to do the same thing, timed in turns. No machine is twice equally fast, so that a ratio
is of two ways of one run, or there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from connsearch.memory import DEFAULT

EAGER, STACKED, COMPILED, OURS = "eager", "stacked", "torch.compile", "ours"  # ways of kernel_speed
PAPER, NORMALIZED = "weighted sums, paper's form", "weighted sums, normalized"  # its operations
CHAINED = "weighted sums, chained"
NORM_ACT, CONCAT_NORM_ACT = "norm and ReLU", "concatenation, norm and ReLU"
DEFINITION = "definition"  # the way of compiled_speed that others are compared with

RESULTS = Path(__file__).parent / "results"
LEAST_REPEATS = 5
TOGETHER = timedelta(seconds=5)  # between lines without an id that one run wrote
CASES = {  # what of a line says what was timed; the rest says how, and what came out
    "kernel_speed": ("operation", "shape", "n", "dtype", "channels_last", "threads", "malloc"),
    "compiled_speed": ("network", "mode", "batch", "device", "dtype", "channels_last", "threads", "malloc"),
}
BASELINES = {"kernel_speed": EAGER, "compiled_speed": DEFINITION}

Line = dict[str, Any]


class Ratio(NamedTuple):
    """How many times faster one way is; the least and the most that the quartiles of both make of it."""

    middle: float
    low: float
    high: float


@dataclass
class Run:
    """Ways that were timed in turns.

    Attributes:
        case: What was timed, and on what.
        ways: A line of results by way.
    """

    case: tuple[Any, ...]
    ways: dict[str, Line] = field(default_factory=dict)

    @property
    def line(self) -> Line:
        """The first line, for what all have in common: settings, machine, commit."""
        return next(iter(self.ways.values()))

    def speedup(self, way: str, than: str) -> Ratio | None:
        """Return how many times faster a way is than another one, or None if one of them was not timed."""
        if way not in self.ways or than not in self.ways:
            return None
        ours, theirs = self.ways[way], self.ways[than]
        return Ratio(
            theirs["step_s"] / ours["step_s"],
            theirs["low_s"] / ours["high_s"],
            theirs["high_s"] / ours["low_s"],
        )


def read(benchmark: str, results: Path = RESULTS) -> list[Line]:
    """Return the lines of a benchmark, oldest first; those of an older form, without a way, are left out."""
    path = results / f"{benchmark}.jsonl"
    if not path.exists():
        return []
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [{"mode": "train", "malloc": DEFAULT, **line} for line in lines if "way" in line]


def hardware(line: Line) -> str:
    """Return what ran.

    >>> hardware({"cpu": "AMD EPYC", "cores": 2}), hardware({"cpu": "2 x AMD EPYC"})
    ('2 x AMD EPYC', '2 x AMD EPYC')
    """
    cores = f"{line['cores']} x " if "cores" in line else ""
    return line.get("gpu") or f"{cores}{line['cpu']}"


def runs(benchmark: str, lines: Iterable[Line]) -> list[Run]:
    """Return the runs that lines are of, oldest first.

    Lines of one run have its id and the same case. Those without an id follow each other, seconds apart, at
    one commit. Where a way comes a second time, a second run begins.
    """
    found: list[Run] = []
    for line in lines:
        case = hardware(line), *(_hashable(line.get(key)) for key in CASES[benchmark])
        home = next((run for run in _open(found, line) if run.case == case and _joins(run, line)), None)
        if home is None:
            home = Run(case)
            found.append(home)
        home.ways[line["way"]] = line
    return found


def latest(benchmark: str, lines: Iterable[Line]) -> list[Run]:
    """Return for each case the latest run with five repeats or more that has the baseline and another way."""
    found: dict[tuple[Any, ...], Run] = {}
    for run in runs(benchmark, lines):
        compares = len(run.ways) > 1 and BASELINES[benchmark] in run.ways
        if compares and run.line.get("repeats", 0) >= LEAST_REPEATS:
            found[run.case] = run
    return [*found.values()]


def latest_runs(results: Path = RESULTS) -> tuple[list[Run], list[Run]]:
    """Return the latest runs of kernels and of networks in the results."""
    of_kernels, of_networks = (latest(benchmark, read(benchmark, results)) for benchmark in CASES)
    return of_kernels, of_networks


def _open(found: list[Run], line: Line) -> Iterator[Run]:
    """Yield the runs that a line may be of, latest first."""
    return reversed(found if "run" in line else found[-1:])


def _joins(run: Run, line: Line) -> bool:
    if line["way"] in run.ways or line.get("repeats") != run.line.get("repeats"):
        return False
    last = [*run.ways.values()][-1]
    if "run" in line or "run" in last:
        return bool(line.get("run") == last.get("run"))
    commits = {one["commit"].removesuffix("+changes") for one in (last, line)}
    apart = datetime.fromisoformat(line["time"]) - datetime.fromisoformat(last["time"])
    return len(commits) == 1 and abs(apart) <= TOGETHER


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
