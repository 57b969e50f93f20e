"""Draw the latest figures of the compiler: python benchmarks/plot.py docs/pictures/speed.png"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
Bars = list[tuple[str, float]]


def records(benchmark: str) -> list[dict[str, Any]]:
    """Return all records of a benchmark, oldest first."""
    lines = (RESULTS / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def aggregation() -> Bars:
    """Return how many times faster the aggregations of a block are, one thread, NCHW."""
    found = {r["case"]: r["ratio"] for r in records("kernel_speed") if r["threads"] == 1 and r["target"]}
    return [(case.replace(" fp32 NCHW", ""), ratio) for case, ratio in found.items() if "block" in case]


def training(figure: str) -> Bars:
    """Return how many times less a figure of a training step is than as defined: float32, NCHW, one thread.

    Ratios are within a run, the latest of each network and way.
    """
    plain = [
        r
        for r in records("compiled_speed")
        if r["threads"] == 1 and r["dtype"] == "float32" and not r["channels_last"]
        if r.get("mode", "train") == "train"
    ]
    found: dict[str, float] = {}
    for network, run in groupby(plain, key=itemgetter("network")):
        figures = {r["way"]: r[figure] for r in run if r[figure]}
        if defined := figures.pop("definition", None):
            found |= {f"{network}, {way}": defined / value for way, value in figures.items()}
    return [*found.items()]


def inference() -> Bars:
    """Return how many times faster than defined evaluation is, one thread."""
    cases = records("inference_speed")[-1]["cases"]
    return [(f"{c['network']}, batch {c['batch']}", c["ratio"]) for c in cases if c["threads"] == 1]


def draw(axes: Axes, title: str, bars: Bars) -> None:
    """Draw horizontal bars with their values, and the line of 1."""
    names, values = zip(*bars, strict=True)
    drawn = axes.barh(range(len(bars)), values, color="#4477aa", height=0.7)
    axes.bar_label(drawn, fmt=" %.1f", fontsize=8)
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1.15 * max(values))
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw four panels into the file that is named."""
    panels = [
        ("Cross-layer aggregation, forward and backward:\ntimes faster than the paper's way", aggregation()),
        ("Training step: times faster than defined", training("step_s")),
        ("Training step: times less memory than defined", training("peak_bytes")),
        ("Evaluation: times faster than defined", inference()),
    ]
    heights = [len(bars) + 2 for _, bars in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(6.5, 0.24 * sum(heights) + 0.6), height_ratios=heights, layout="constrained"
    )
    for panel, (title, bars) in zip(axes, panels, strict=True):
        draw(panel, title, bars)
    figure.savefig(sys.argv[1], dpi=150)


if __name__ == "__main__":
    main()
