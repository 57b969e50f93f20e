"""Labels beside points that cover neither each other nor, where it can be helped, anything drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from connsearch.plots.style import FAINT, SMALL

Points = npt.NDArray[np.float64]

_DISTANCES = (5.0, 8.0, 13.0, 20.0, 30.0, 42.0, 56.0)  # points from the mark's middle to the text
_DIRECTIONS = ((1, 1), (-1, -1), (1, 0), (0, 1), (1, -1), (-1, 0), (0, -1), (-1, 1))
_SIDES = {1: "left", 0: "center", -1: "right"}
_HEIGHTS = {1: "bottom", 0: "center", -1: "top"}
_LEADER = 10.0  # points; farther labels get a thin line to their mark


@dataclass(frozen=True)
class Label:
    """A text and the point it belongs to, in data coordinates; the mark there has a radius in points."""

    text: str
    x: float
    y: float
    color: str
    radius: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What is drawn already, as rows x, y in data coordinates: marks, marks that matter less, a line."""

    marks: npt.ArrayLike
    faint: npt.ArrayLike
    line: npt.ArrayLike


def place_labels(axes: Axes, labels: Sequence[Label], scene: Scene) -> None:
    """Annotate each point at the cheapest place; earlier labels choose first.

    The limits and the position of the axes must be final.
    """
    marks, faint, line = (_pixels(axes, points) for points in (scene.marks, scene.faint, scene.line))
    taken: list[Bbox] = []
    for label in labels:
        costs = []
        for (away, way), box in _places(axes, label):
            costs.append((_cost(box, axes.bbox, taken, marks, faint, line) + away, away, way, box))
        _, away, way, box = min(costs, key=lambda found: found[0])
        _annotate(axes, label, way, away, leader=away > _LEADER)
        taken.append(box)


def _places(axes: Axes, label: Label) -> Iterator[tuple[tuple[float, tuple[int, int]], Bbox]]:
    """Yield distance, direction and the box in pixels of each place for a label."""
    probe = _annotate(axes, label, (1, 1), 0.0, leader=False)
    size = np.array(probe.get_window_extent().size)
    probe.remove()
    figure = axes.get_figure(root=True)
    per_point = figure.dpi / 72 if figure else 1.0
    at = _pixels(axes, (label.x, label.y))[0]
    for away, way in product(_DISTANCES, _DIRECTIONS):
        near = at + np.array(way) * (away + label.radius) / np.hypot(*way) * per_point
        lower = near - size * (1 - np.array(way)) / 2
        yield (away, way), Bbox([lower, lower + size]).padded(2.0)


def _annotate(axes: Axes, label: Label, way: tuple[int, int], away: float, *, leader: bool) -> Annotation:
    shift = (away + label.radius) / np.hypot(*way)
    arrow = {
        "arrowstyle": "-",
        "color": FAINT,
        "linewidth": 0.5,
        "shrinkA": 0,
        "shrinkB": 4 + label.radius,
        "relpos": ((1 - way[0]) / 2, (1 - way[1]) / 2),
    }
    return axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(shift * way[0], shift * way[1]),
        textcoords="offset points",
        ha=_SIDES[way[0]],
        va=_HEIGHTS[way[1]],
        fontsize=SMALL,
        color=label.color,
        zorder=6,
        linespacing=1.1,
        arrowprops=arrow if leader else None,
        path_effects=[withStroke(linewidth=1.6, foreground="white", alpha=0.8)],
    )


def _cost(box: Bbox, frame: Bbox, taken: Sequence[Bbox], marks: Points, faint: Points, line: Points) -> float:
    """Return how bad a place is, in points of distance that one would accept to avoid it."""
    outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
    return (
        10_000 * outside
        + 10_000 * sum(box.overlaps(other) for other in taken)
        + 60 * _inside(box.padded(3.0), marks)
        + 25 * sum(_crosses(box, a, b) for a, b in pairwise(line))
        + 2.5 * _inside(box, faint)
    )


def _inside(box: Bbox, points: Points) -> int:
    return int(((points >= box.min) & (points <= box.max)).all(axis=1).sum())


def _crosses(box: Bbox, a: Points, b: Points) -> bool:
    """Return whether the rectangle around a segment meets a box; exact for the lines of a staircase."""
    return bool((np.minimum(a, b) <= box.max).all() and (np.maximum(a, b) >= box.min).all())


def _pixels(axes: Axes, points: npt.ArrayLike) -> Points:
    return np.asarray(axes.transData.transform(np.asarray(points, dtype=np.float64).reshape(-1, 2)))
