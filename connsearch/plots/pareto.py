"""The Pareto front as a picture: what accuracy costs, and which connectivity buys it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from connsearch.errors import StudyError
from connsearch.plots.labels import Label, Points, Scene, place_labels
from connsearch.plots.legend import EDGE, legend_below
from connsearch.plots.scales import Scale, scale_of
from connsearch.plots.style import (
    FAINT,
    INK,
    QUIET,
    TIMES,
    Marker,
    Picture,
    base_name,
    colors_of,
    look,
    markers_of,
    text_width,
)
from connsearch.search.reading.pareto import ParetoFront

_LABEL_ROOM = 0.2  # of the vertical axis, below the front: two lines of text
_NAMELESS = "not stated"
_AREAS = {"other": 11.0, "front": 26.0}  # of marks, in square points


def plot_pareto(
    front: ParetoFront, *, x: str = "macs", y: str = "val_error", title: str | None = None, width: float = 3.5
) -> Figure:
    """Return the front in two columns: its points, the staircase they span, and the other trials, faint.

    Colours are aggregations, markers are topologies. The knee has a ring, and it and the two ends say
    what they are. The front is that of the two columns drawn, also when the study has other objectives.

    Args:
        front: The trials.
        x: Column of the horizontal axis.
        y: Column of the vertical axis; errors are drawn in percent.
        title: Written above the picture.
        width: Of the picture in inches: 3.5 is one column of a paper, 7.2 two.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
    """
    drawn = drawing_of(front, x, y)
    with look():
        figure = Picture(figsize=(width, width))
        bottom = add_legends(figure, drawn)
        axes = add_axes(figure, drawn, bottom, title)
        _draw_marks(axes, drawn)
        line = draw_staircase(axes, drawn)
        draw_labels(axes, drawn, line)
    return figure


@dataclass(frozen=True)
class Drawing:
    """What a picture of a front shows.

    Attributes:
        front: The trials and the front in the two columns drawn.
        x: The horizontal axis.
        y: The vertical axis.
        colors: Of each aggregation that occurs.
        markers: Of each topology that occurs.
    """

    front: ParetoFront
    x: Scale
    y: Scale
    colors: dict[str, str]
    markers: dict[str, Marker]

    def xy(self, rows: pd.DataFrame) -> Points:
        """Return rows x, y in drawn units."""
        return rows[list(self.front.objectives)].to_numpy(dtype=np.float64) * (self.x.factor, self.y.factor)

    def steps(self) -> Points:
        """Return the points of the front from the best x to the best y."""
        points = self.xy(self.front.points)
        return points if self.front.directions[0] == "minimize" else points[::-1]


def drawing_of(front: ParetoFront, x: str, y: str) -> Drawing:
    """Return what a picture of a front in two columns shows.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
    """
    if front.trials.empty:
        raise StudyError("there is no complete trial to draw yet: run the study first")
    plane = front.projected(x, y)
    if plane.trials.empty:
        raise StudyError(f"no trial has both {x!r} and {y!r}: there is nothing to draw")
    trials = plane.trials
    return Drawing(
        plane,
        scale_of(x, trials[x]),
        scale_of(y, trials[y], pad=_LABEL_ROOM),
        colors_of(names_in(trials, "aggregation")),
        markers_of(names_in(trials, "topology")),
    )


def names_in(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the registered name in each label of a column, "" where there is none."""
    return [base_name(label) for label in rows[column]] if column in rows.columns else [""] * len(rows)


# ---- parts ---------------------------------------------------------------------------------------------


def add_axes(figure: Figure, drawn: Drawing, bottom: float, title: str | None) -> Axes:
    """Size the figure and return axes that leave room for the labels of their ticks."""
    width = float(figure.get_figwidth())
    left = max(map(text_width, drawn.y.tick_labels), default=0.1) + 0.36
    right = max(0.1, text_width(drawn.x.tick_labels[-1]) / 2) if drawn.x.tick_labels else 0.1
    top = 0.3 if title else 0.1
    bottom += 0.42
    height = min(0.68 * width, 3.4)
    total = bottom + height + top
    figure.set_figheight(total)
    axes = figure.add_axes((left / width, bottom / total, (width - left - right) / width, height / total))
    drawn.x.apply(axes.xaxis)
    drawn.y.apply(axes.yaxis)
    axes.grid(True)
    if title:
        figure.text(left / width, 1 - 0.08 / total, title, va="top", fontsize=9)
    return axes


def _draw_marks(axes: Axes, drawn: Drawing) -> None:
    """Add one collection per aggregation and topology, for the front and for the other trials."""
    for name, rows in (("other", drawn.front.dominated), ("front", drawn.front.points)):
        pairs = list(zip(names_in(rows, "aggregation"), names_in(rows, "topology"), strict=True))
        for pair in sorted(set(pairs)):
            marker = drawn.markers[pair[1]]
            x, y = drawn.xy(rows[[other == pair for other in pairs]]).T
            axes.scatter(
                x,
                y,
                s=_AREAS[name] * marker.area,
                marker=marker.matplotlib,
                facecolor=drawn.colors[pair[0]],
                edgecolor="white",
                linewidth=0.4 if name == "front" else 0.0,
                alpha=1.0 if name == "front" else 0.28,
                zorder=4 if name == "front" else 2,
                label=f"{name}: {pair[1]} {TIMES} {pair[0]}",
            )


def draw_staircase(axes: Axes, drawn: Drawing) -> Points:
    """Draw what is attained, at each x the best y so far, and return the corners of the whole line."""
    points = drawn.steps()
    axes.plot(*points.T, drawstyle="steps-post", color=INK, linewidth=0.9, zorder=3, label="front")
    ways = zip((drawn.x, drawn.y), drawn.front.directions, strict=True)
    worst_x, worst_y = [scale.high if way == "minimize" else scale.low for scale, way in ways]
    before, after = (points[0, 0], worst_y), (worst_x, points[-1, 1])
    for line in ((before, points[0]), (points[-1], after)):
        axes.plot(*zip(*line, strict=True), color=FAINT, linewidth=0.6, linestyle=(0, (2, 2)), zorder=1)
    return np.vstack([before, corners(points), after])


def corners(points: Points) -> Points:
    """Return a staircase as rows x, y: from each point along x, then along y to the next."""
    line = np.repeat(points, 2, axis=0)[:-1]
    line[1::2, 0] = points[1:, 0]
    return line


def draw_labels(axes: Axes, drawn: Drawing, line: Points) -> None:
    """Ring the knee; write beside it and beside the ends of the front what they are."""
    points, knee = drawn.front.points, drawn.front.knee()
    labels = []
    if knee is not None:
        row = points[points["trial"] == knee]
        x, y = drawn.xy(row).T
        axes.scatter(x, y, s=75, facecolor="none", edgecolor=INK, linewidth=1.0, zorder=5, label="knee")
        labels.append(_label(drawn, row, "knee: ", INK, radius=4.0))
    for end in sorted({0, len(points) - 1}):
        labels.append(_label(drawn, points.iloc[[end]], "", QUIET))
    place_labels(axes, labels, Scene(drawn.xy(points), drawn.xy(drawn.front.dominated), line))


def _label(drawn: Drawing, row: pd.DataFrame, prefix: str, color: str, radius: float = 0.0) -> Label:
    """Return the label of one trial: its number, then its topology and aggregation if they are known."""
    trial = row.iloc[0]
    words = [str(trial[c]) for c in ("topology", "aggregation") if c in row.columns and base_name(trial[c])]
    x, y = drawn.xy(row)[0]
    text = f"{prefix}trial {trial['trial']}\n" + f" {TIMES} ".join(words)
    return Label(text.strip(), x, y, color, radius)


# ---- legends -------------------------------------------------------------------------------------------


def add_legends(figure: Figure, drawn: Drawing, bottom: float = EDGE) -> float:
    """Add a legend of aggregations and one of topologies that occur; return where they end, in inches."""
    swatches = [Patch(facecolor=color, edgecolor="none") for color in drawn.colors.values()]
    shapes = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker.matplotlib,
            color=QUIET,
            markeredgecolor="none",
            markersize=5 * marker.area**0.5,
        )
        for marker in drawn.markers.values()
    ]
    top = bottom
    for title, names, handles in (
        ("topology", drawn.markers, shapes),
        ("aggregation", drawn.colors, swatches),
    ):
        if any(names):
            labels = [name or _NAMELESS for name in names]
            top = legend_below(figure, handles, labels, title, top) + 0.07
    return top
