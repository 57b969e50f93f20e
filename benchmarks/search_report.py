"""Print the latest figures of the searches as Markdown: python benchmarks/search_report.py

For each sampler and way what was found, with its 95 % bootstrap interval over searches, and by how much
budget by construction is better than each other way: after all trials, and in the mean over trials.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results" / "search_quality.jsonl"
N_RESAMPLED = 10_000
EARLY = 20  # trials
FIRST = "construction"
ORDER = (*("front", "one budget"), *("random", "tpe", "nsga2", "gp"), *(FIRST, "rejection", "constraint"))
Lines = dict[tuple[str, str, str], dict[str, Any]]  # by question, sampler, way


class Figure(NamedTuple):
    """What is reported of a question.

    Attributes:
        question: Its name.
        name: The figure of a search, as in the results.
        curve: The same over trials, as in the results.
        statistic: "median" or "mean" over searches.
        better: 1 if more is better, -1 if less is.
        words: What it is.
    """

    question: str
    name: str
    curve: str
    statistic: str
    better: int
    words: str


FIGURES = (
    Figure("front", "share", "share", "median", 1, "hypervolume of the front picked, percent of the best"),
    Figure(
        "front", "share_tried", "share_tried", "median", 1, "hypervolume of all tried, percent of the best"
    ),
    Figure("one budget", "regret", "regret_mean", "mean", -1, "error above the best network's, points"),
)
STATISTICS: dict[str, Callable[..., Any]] = {"median": np.median, "mean": np.mean}


def latest(path: Path = RESULTS) -> Lines:
    """Return the latest line of results for each question, sampler and way, those of a question together."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {(line["question"], line["sampler"], line["way"]): line for line in lines}
    return {key: found[key] for key in sorted(found, key=lambda key: [*map(ORDER.index, key)])}


def difference(
    ours: list[float], theirs: list[float], statistic: str = "median"
) -> tuple[float, float, float]:
    """Return the difference of a statistic and its 95 % bootstrap interval; searches are not paired."""
    rng, of = np.random.default_rng(0), STATISTICS[statistic]
    ours_resampled, theirs_resampled = (
        of(rng.choice(values, size=(N_RESAMPLED, len(values))), axis=1) for values in (ours, theirs)
    )
    low, high = np.quantile(ours_resampled - theirs_resampled, [0.025, 0.975])
    return float(of(ours) - of(theirs)), float(low), float(high)


def verdict(low: float, high: float) -> str:
    """Say who is better, as far as the interval of the gain of construction tells."""
    if low > 0:
        return "construction"
    return "the other" if high < 0 else "open"


def percent(middle: float, low: float, high: float, *, sign: str = "") -> str:
    """Return a number and its interval, times 100; no zero is negative."""
    middle, low, high = (round(100 * x, 1) + 0.0 for x in (middle, low, high))
    return f"{middle:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def rows(lines: Lines, figure: Figure) -> Iterator[tuple[str, ...]]:
    """Yield a row for each sampler and way."""
    for (question, sampler, way), line in lines.items():
        if question != figure.question:
            continue
        curve = line[figure.curve]
        counts = min(EARLY, line["trials"]) - 1, -1
        found = [[curve[end][count] for end in (figure.statistic, "low", "high")] for count in counts]
        row = (sampler, way, f"{line['trials']} x {line['seeds']}", *(percent(*three) for three in found))
        ours, compared = lines.get((question, sampler, FIRST)), ["", "", "", ""]
        if way != FIRST and ours is not None:
            compared = []
            for values in (f"{figure.name}_by_seed", f"{figure.name}_over_trials"):
                gain = [figure.better * x for x in difference(ours[values], line[values], figure.statistic)]
                gain = [gain[0], *sorted(gain[1:])]
                compared += [percent(*gain, sign="+"), verdict(*gain[1:])]
        yield (*row, *compared)


def prices(lines: Lines) -> Iterator[tuple[str, ...]]:
    """Yield what each question, sampler and way takes."""
    for key, line in lines.items():
        shares = f"{line['asks_per_trial']:.1f}", f"{line['random_draws']}", f"{line['infeasible']:.0%}"
        yield (*key, *shares, f"{line['distinct']:.0f}", f"{1000 * line['cpu_s_per_ask']:.0f}")


def markdown(heads: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    lines = (heads, ("---",) * len(heads), *body)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    lines = latest()
    gains = "construction better by: all trials", "who is", "in the mean over trials", "who is"
    for figure in FIGURES:
        print(f"\n{figure.question}: {figure.words} ({figure.statistic})\n")
        heads = "sampler", "way", "trials x searches", f"{EARLY} trials", "all trials", *gains
        print(markdown(heads, rows(lines, figure)))
    what = "asks a trial", "drawn at random", "infeasible", "distinct networks", "ms an ask"
    print("\n" + markdown(("question", "sampler", "way", *what), prices(lines)))


if __name__ == "__main__":
    main()
