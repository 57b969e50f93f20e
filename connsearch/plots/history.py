"""How a study went: what each further trial added."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from connsearch.errors import StudyError
from connsearch.plots.scales import column_label, scale_of, tick_labels
from connsearch.plots.style import AGGREGATION_COLORS, FAINT, INK, Picture, look
from connsearch.search.hypervolume import hypervolume, non_dominated
from connsearch.search.pareto import ParetoFront


def plot_history(
    front: ParetoFront, *, y: str = "val_error", title: str | None = None, width: float = 3.5
) -> Figure:
    """Return two panels over the number of finished trials: the hypervolume, and `y` with its best so far.

    Args:
        front: The trials, counted in the order of their numbers.
        y: Column of the lower panel.
        title: Written above the picture.
        width: Of the picture in inches.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
    """
    frame = history_frame(front, y)
    with look():
        figure = Picture(figsize=(width, 0.95 * width + (0.2 if title else 0)), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        _draw_volume(upper, frame)
        _draw_best(lower, frame, y)
        lower.set(xlabel="finished trials", xlim=(0, len(frame) + max(1.0, 0.03 * len(frame))))
        lower.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        figure.align_ylabels()
        if title:
            figure.suptitle(title, fontsize=9)
    return figure


def history_frame(front: ParetoFront, y: str = "val_error") -> pd.DataFrame:
    """Return a row per complete trial, by number: `n_trials` so far, `hypervolume`, `y`, `best` y so far.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
    """
    if front.trials.empty:
        raise StudyError("there is no complete trial to draw yet: run the study first")
    front.require_numbers(y)
    order = np.argsort(front.trials["trial"].to_numpy(), kind="stable")
    values = front.trials[y].iloc[order].astype(float).reset_index(drop=True)
    ways = dict(zip(front.objectives, front.directions, strict=True))
    best = values.cummin() if ways.get(y, "minimize") == "minimize" else values.cummax()
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, len(values) + 1),
            "hypervolume": _volumes(front, order),
            y: values,
            "best": best.ffill(),
        }
    )


def _volumes(front: ParetoFront, order: np.ndarray) -> list[float]:
    """Return the hypervolume after each trial; only what is not dominated so far is looked at again."""
    kept = np.empty((0, len(front.objectives)))
    volumes = []
    for row in front.losses[order]:
        kept = np.vstack([kept, row])
        kept = kept[non_dominated(kept, np.arange(len(kept)))]
        volumes.append(hypervolume(kept, front.reference_losses))
    return volumes


def _draw_volume(axes: Axes, frame: pd.DataFrame) -> None:
    volume = frame["hypervolume"]
    axes.plot(frame["n_trials"], volume, drawstyle="steps-post", color=INK, linewidth=1.0)
    axes.plot(frame["n_trials"].iloc[-1:], volume.iloc[-1:], "o", color=INK, markersize=3)
    high = 1.08 * float(volume.max()) or 1.0
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(0, high) if 0 <= tick <= high]
    axes.set(ylim=(0, high), ylabel="hypervolume")
    axes.set_yticks(ticks, tick_labels(ticks))
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
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        handlelength=1.2,
        borderaxespad=0.1,
        columnspacing=1.0,
    )
