"""Draw the latest searches of the table: python benchmarks/search_plot.py docs/pictures/search-quality.png"""

from __future__ import annotations

import math
import sys

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from search_report import Lines, latest

from connsearch.plots.style import QUIET, Picture, look, save

FIRST_SHOWN = 10  # trials
SAMPLERS = {"random": "random", "tpe": "TPE", "nsga2": "NSGA-II", "gp": "Gaussian process"}
WAYS = {  # colour, line
    "construction": ("#332288", "-"),
    "rejection": ("#C4527A", "--"),
    "constraint": ("#44AA99", ":"),
}
QUESTIONS = {  # figure, statistic, what it is; drawn in percent
    "front": ("share", "median", "hypervolume,\n% of the best front's (median)"),
    "one budget": ("regret_mean", "mean", "error above the best at this\nbudget, points (mean)"),
}


def draw_searches(lines: Lines) -> Figure:
    """Return a panel for each question and sampler, a curve for each way, with its 95 % interval."""
    questions = [name for name in QUESTIONS if any(key[0] == name for key in lines)]
    samplers = [name for name in SAMPLERS if any(key[1] == name for key in lines)]
    with look():
        figure = Picture(figsize=(7.2, 0.5 + 1.85 * len(questions)), layout="constrained")
        axes = figure.subplots(len(questions), len(samplers), sharey="row", squeeze=False)
        for row, question in zip(axes, questions, strict=True):
            for panel, sampler in zip(row, samplers, strict=True):
                draw(panel, lines, question, sampler)
            row[0].set_ylabel(QUESTIONS[question][2])
            _zoom(row[0], lines, question)
        for panel, sampler in zip(axes[0], samplers, strict=True):
            panel.set_title(SAMPLERS[sampler], fontsize=9)
        for panel in axes[-1]:
            panel.set_xlabel("trials")
        handles, labels = axes[0][0].get_legend_handles_labels()
        names = [f"budget by {label}" for label in labels]
        figure.legend(handles, names, loc="outside upper center", ncols=len(labels), fontsize=8)
    return figure


def draw(panel: Axes, lines: Lines, question: str, sampler: str) -> None:
    """Draw the curves of one sampler."""
    name, statistic, _ = QUESTIONS[question]
    for way, (color, style) in WAYS.items():
        if (question, sampler, way) not in lines:
            continue
        curve = {end: [100 * y for y in ys] for end, ys in lines[question, sampler, way][name].items()}
        trials = range(1, len(curve[statistic]) + 1)
        panel.fill_between(trials, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
        panel.plot(trials, curve[statistic], color=color, linestyle=style, linewidth=1.4, label=way)
    panel.grid(axis="y")
    panel.set_xlim(left=0)
    found = next((line for key, line in lines.items() if key[:2] == (question, sampler)), None)
    if found is None:
        panel.set_axis_off()
        return
    low, high = (f"{macs / 1e6:g}" for macs in found["macs"])
    panel.text(
        0.97,
        0.06 if name == "share" else 0.94,
        f"{found['seeds']} searches\n{low} to {high} MMACs",
        transform=panel.transAxes,
        ha="right",
        va="bottom" if name == "share" else "top",
        fontsize=7,
        color=QUIET,
    )


def _zoom(panel: Axes, lines: Lines, question: str) -> None:
    """Show what matters: from what the worst way has found after ten trials on."""
    name, statistic, _ = QUESTIONS[question]
    curves = [line[name][statistic] for key, line in lines.items() if key[0] == question]
    later = [100 * curve[min(FIRST_SHOWN, len(curve)) - 1] for curve in curves]
    if name == "share":
        panel.set_ylim(math.floor(min(later)), 100)
    else:
        panel.set_ylim(0, math.ceil(max(later)))


def main() -> None:
    print(save(draw_searches(latest()), sys.argv[1]))


if __name__ == "__main__":
    main()
