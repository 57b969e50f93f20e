"""How a study went, as a picture: hypervolume, best so far and size of the front against finished trials."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from connsearch.plots.legend import legend_above
from connsearch.plots.scales import column_label, scale_of, tick_labels
from connsearch.plots.style import AGGREGATION_COLORS, FAINT, INK, QUIET, SMALL, Picture, look
from connsearch.search.reading.history import history_frame, measured_from
from connsearch.search.reading.pareto import ParetoFront

__all__ = ["history_frame", "plot_history"]


def plot_history(
    front: ParetoFront,
    *,
    y: str = "val_error",
    finished: Sequence[int] | None = None,
    title: str | None = None,
    width: float = 3.5,
) -> Figure:
    """Return panels over finished trials: hypervolume, `y` with its best so far, size of the front.

    The upper panel says from which point the hypervolume is measured.

    Args:
        front: The trials that can be ranked.
        y: Column of the middle panel.
        finished: All finished trials in order, as `history_frame` takes it.
        title: Written above the picture.
        width: Of the picture in inches.

    Raises:
        StudyError: if no trial can be ranked or there is no such column of numbers.
    """
    frame = history_frame(front, y, finished=finished)
    with look():
        height = 1.2 * width + (0.2 if title else 0)
        figure = Picture(figsize=(width, height), layout="constrained")
        upper, middle, lower = figure.subplots(3, sharex=True, height_ratios=(5, 5, 3))
        _draw_volume(upper, frame, measured_from(front))
        _draw_best(middle, frame, y)
        _draw_size(lower, frame)
        lower.set(xlabel="finished trials", xlim=(0, len(frame) + max(1.0, 0.03 * len(frame))))
        lower.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        figure.align_ylabels()
        if title:
            figure.suptitle(title, fontsize=9)
    return figure


def _draw_volume(axes: Axes, frame: pd.DataFrame, reference: str) -> None:
    volume = frame["hypervolume"]
    _draw_steps(axes, frame["n_trials"], volume)
    first, last = float(volume.iloc[0]), float(volume.max())
    low = max(0.0, first - 0.15 * (last - first)) if 0.4 * last < first < last else 0.0
    high = last + 0.08 * (last - low) or 1.0
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    axes.set(ylim=(low, high), ylabel="hypervolume")
    axes.set_yticks(ticks, tick_labels(ticks))
    axes.text(
        0.99, 0.06, reference, ha="right", va="bottom", fontsize=SMALL, color=QUIET, transform=axes.transAxes
    )
    axes.grid(True)


def _draw_steps(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    axes.plot(x, y, drawstyle="steps-post", color=INK, linewidth=1.0)
    axes.plot(x.iloc[-1:], y.iloc[-1:], "o", color=INK, markersize=3)


def _draw_size(axes: Axes, frame: pd.DataFrame) -> None:
    _draw_steps(axes, frame["n_trials"], frame["n_front"])
    axes.set(ylim=(0, 1.15 * max(1, int(frame["n_front"].max()))), ylabel="points on\nthe front")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.grid(True)


def _draw_best(axes: Axes, frame: pd.DataFrame, y: str) -> None:
    scale = scale_of(y, frame[y].dropna(), n_ticks=5)
    scale.apply(axes.yaxis)
    axes.scatter(
        frame["n_trials"], frame[y] * scale.factor, s=7, color=FAINT, linewidth=0, label="each trial"
    )
    axes.plot(
        frame["n_trials"],
        frame["best"] * scale.factor,
        drawstyle="steps-post",
        color=AGGREGATION_COLORS["sum"],
        linewidth=1.2,
        label="best so far",
    )
    axes.set_ylabel(column_label(y))
    axes.grid(True)
    legend_above(axes)
