"""Retrained trials as a picture: test errors over seeds against cost, and what the study had measured."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from connsearch.errors import StudyError
from connsearch.plots.legend import EDGE, legend_below
from connsearch.plots.pareto import Drawing, add_axes, add_legends, draw_staircase, drawing_of
from connsearch.plots.scales import scale_of
from connsearch.plots.style import FAINT, INK, QUIET, Picture, base_name, look
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.retrained import Retrained, RetrainedTrials
from connsearch.train.spread import Spread

_SEED = 3.5  # area of the mark of a single seed, in square points


def plot_retrained(
    found: RetrainedTrials, *, x: str = "macs", title: str | None = None, width: float = 3.5
) -> Figure:
    """Return test errors against cost: mean, standard deviation, every seed; a ring for the study's error.

    Colours are aggregations, markers are topologies; the line is the front of the means. Of a study that
    compared networks by mean IoU, errors are 1 - mean IoU.

    Args:
        found: The retrained trials; those whose seeds all diverged are left out.
        x: "macs" or "params".
        title: Written above the picture.
        width: Of the picture in inches: 3.5 is one column of a paper, 7.2 two.

    Raises:
        StudyError: if every training diverged, or there is no such column of numbers.
    """
    marks = [mark for row in found.rows if (mark := _mark(row)) is not None]
    if not marks:
        raise StudyError(f"{found.study}: every retraining diverged: there is no test error to draw")
    frame = pd.DataFrame([mark.row.to_dict() | {"test_error": mark.error.mean} for mark in marks])
    drawn = drawing_of(ParetoFront.from_frame(frame, ("test_error", "macs")), x, "test_error")
    shown = np.array([value for mark in marks for value in (*mark.ends, mark.before, *mark.error.values)])
    label = "100 % - mean IoU (%)" if _by_iou(marks[0].row) else "error (%)"
    drawn = replace(drawn, y=replace(scale_of("test_error", shown), label=label))
    with look():
        figure = Picture(figsize=(width, width))
        bottom = _add_notes(figure)
        axes = add_axes(figure, drawn, add_legends(figure, drawn, bottom), title)
        draw_staircase(axes, drawn)
        for line in axes.lines:
            line.set_color(FAINT)  # what is drawn over it matters more
        for mark, at in zip(marks, frame[x], strict=True):
            _draw(axes, drawn, mark, float(at) * drawn.x.factor)
    return figure


class _Mark(NamedTuple):
    """What is drawn of a trial: the error over seeds, and the one that the study had measured."""

    row: Retrained
    error: Spread
    before: float

    @property
    def ends(self) -> tuple[float, float]:
        """Mean minus and plus the standard deviation, cut where errors end."""
        deviation = self.error.deviation or 0.0
        return max(0.0, self.error.mean - deviation), min(1.0, self.error.mean + deviation)


def _by_iou(row: Retrained) -> bool:
    """Return whether 1 - mean IoU is drawn: where the study had measured it."""
    return row.winner.val_mean_iou is not None


def _mark(row: Retrained) -> _Mark | None:
    """Return what is drawn of a trial; None if all its seeds diverged."""
    error, iou = row.summary.test_error, row.summary.test_mean_iou
    if row.winner.val_mean_iou is not None and iou is not None:
        return _Mark(row, Spread.of([1 - value for value in iou.values]), 1 - row.winner.val_mean_iou)
    return None if error is None else _Mark(row, error, row.winner.val_error)


def _draw(axes: Axes, drawn: Drawing, mark: _Mark, x: float) -> None:
    error, winner, factor = mark.error, mark.row.winner, drawn.y.factor
    color = drawn.colors[base_name(winner.aggregation)]
    marker = drawn.markers[base_name(winner.topology)]
    name = f"trial {winner.trial}"
    before = factor * mark.before
    axes.plot(
        [x, x], [before, factor * error.mean], color=color, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=2
    )
    axes.scatter(
        x, before, s=9, facecolor="white", edgecolor=color, linewidth=0.7, zorder=3, label=f"study: {name}"
    )
    axes.plot([x, x], [factor * end for end in mark.ends], color=color, linewidth=1.4, zorder=3)
    axes.scatter(
        [x] * len(error.values),
        [factor * value for value in error.values],
        s=_SEED,
        marker="_",
        color=INK,
        linewidth=0.6,
        zorder=6,
        label=f"seeds: {name}",
    )
    axes.scatter(
        x,
        factor * error.mean,
        s=26 * marker.area,
        marker=marker.matplotlib,
        facecolor=color,
        edgecolor="white",
        linewidth=0.4,
        zorder=5,
        label=f"mean: {name}",
    )


def _add_notes(figure: Figure) -> float:
    """Add a legend of what is drawn of each trial; return where it ends, in inches."""
    handles = [
        Line2D([], [], color=QUIET, linewidth=1.4, marker="o", markersize=4.5),
        Line2D([], [], linestyle="none", marker="_", markersize=4, color=INK),
        Line2D([], [], linestyle="none", marker="o", markersize=3, markerfacecolor="white", color=QUIET),
    ]
    names = ["test, mean ± deviation", "test, one seed", "validation, in the study"]
    return legend_below(figure, handles, names, None, EDGE) + 0.07
