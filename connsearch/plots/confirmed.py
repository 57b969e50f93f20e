"""A confirmed front as a picture: mean errors with their intervals, and where one seed had put them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from connsearch.plots.legend import EDGE, legend_below
from connsearch.plots.pareto import Drawing, add_axes, add_legends, draw_staircase, drawing_of
from connsearch.plots.scales import scale_of
from connsearch.plots.style import INK, QUIET, Picture, base_name, look
from connsearch.search.replicates.confirmed import Confirmation, ConfirmedFront


def plot_confirmed(
    found: ConfirmedFront, *, x: str | None = None, title: str | None = None, width: float = 3.5
) -> Figure:
    """Return the front of mean errors with intervals, and a ring where each candidate was with one seed.

    Colours are aggregations, markers are topologies; what is not on the front is faint.

    Args:
        found: The confirmed front.
        x: Column of the horizontal axis; by default the front's cost, or MACs.
        title: Written above the picture.
        width: Of the picture in inches: 3.5 is one column of a paper, 7.2 two.

    Raises:
        StudyError: if there is no such column of numbers.
    """
    cost = x or (found.front.x if found.front.x != "val_error" else "macs")
    drawn = drawing_of(found.front, cost, "val_error")
    shown = [value for row in found.rows for value in (row.mean, row.candidate.val_error, *_ends(row))]
    drawn = replace(drawn, y=scale_of("val_error", np.array(shown)))
    with look():
        figure = Picture(figsize=(width, width))
        bottom = _add_notes(figure)
        axes = add_axes(figure, drawn, add_legends(figure, drawn, bottom), title)
        draw_staircase(axes, drawn)
        on_front = set(drawn.front.points["trial"])
        for row, at in zip(found.rows, found.front.trials[cost], strict=True):
            _draw(axes, drawn, row, at * drawn.x.factor, row.candidate.trial in on_front)
    return figure


def _ends(row: Confirmation) -> list[float]:
    """Return the ends of an interval, cut at the least error there is."""
    return [] if math.isnan(row.interval.low) else [max(0.0, row.interval.low), min(1.0, row.interval.high)]


def _draw(axes: Axes, drawn: Drawing, row: Confirmation, x: float, on_front: bool) -> None:
    color = drawn.colors[base_name(row.candidate.aggregation)]
    marker = drawn.markers[base_name(row.candidate.topology)]
    alpha, factor = 1.0 if on_front else 0.4, drawn.y.factor
    mean, before = factor * row.mean, factor * row.candidate.val_error
    axes.plot(
        [x, x], [before, mean], color=color, linewidth=0.7, linestyle=(0, (1, 1.5)), alpha=alpha, zorder=2
    )
    ring = f"before: trial {row.candidate.trial}"
    axes.scatter(
        x, before, s=9, facecolor="white", edgecolor=color, linewidth=0.7, alpha=alpha, zorder=3, label=ring
    )
    ends = [factor * end for end in _ends(row)]
    if ends:
        axes.plot([x, x], ends, color=color, linewidth=1.4, solid_capstyle="butt", alpha=alpha, zorder=3)
    axes.scatter(
        x,
        mean,
        s=26 * marker.area,
        marker=marker.matplotlib,
        facecolor=color,
        edgecolor="white",
        linewidth=0.4,
        alpha=alpha,
        zorder=5,
        label=f"mean: trial {row.candidate.trial}",
    )


def _add_notes(figure: Figure) -> float:
    """Add a legend of what is drawn of each candidate; return where it ends, in inches."""
    handles = [
        Line2D([], [], color=INK, linewidth=1.4),
        Line2D([], [], linestyle="none", marker="o", markersize=3, markerfacecolor="white", color=QUIET),
    ]
    return (
        legend_below(figure, handles, ["95 % interval, fresh seeds", "screened, one seed"], None, EDGE) + 0.07
    )
