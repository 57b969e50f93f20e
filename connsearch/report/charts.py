"""Charts of a study as plain numbers: axes with their ticks, points in drawn units, colours and marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from connsearch.plots.files import drawn_columns
from connsearch.plots.pareto import Drawing, drawing_of, names_in
from connsearch.plots.scales import Scale, scale_of
from connsearch.plots.style import colors_of, markers_of
from connsearch.search.reading.history import history_frame, measured_from
from connsearch.search.reading.pareto import ParetoFront

if TYPE_CHECKING:
    from connsearch.plots.style import Marker

_PATH = {
    Path.MOVETO: "M",
    Path.LINETO: "L",
    Path.CURVE3: "Q",
    Path.CURVE4: "C",
    Path.CLOSEPOLY: "Z",
}  # of matplotlib, in SVG


def axis(scale: Scale) -> dict[str, Any]:
    """Return an axis in drawn units."""
    return {
        "label": scale.label,
        "low": scale.low,
        "high": scale.high,
        "log": scale.log,
        "ticks": list(scale.ticks),
        "words": list(scale.tick_labels),
    }


# ---- the front -----------------------------------------------------------------------------------------


def front_panels(front: ParetoFront) -> list[dict[str, Any]]:
    """Return a panel for each pair of columns that show the front: how well networks do against each cost.

    Each has two axes, the staircase of the front in these two columns, and `points` (trial, x, y).
    """
    if front.trials.empty:
        return []
    x, y = drawn_columns(front)
    others = [name for name in front.objectives if name not in (x, y)] if len(front.objectives) > 2 else []
    return [front_panel(drawing_of(front, column, y)) for column in (x, *others)]


def front_panel(drawn: Drawing) -> dict[str, Any]:
    """Return the panel of two columns, as `front_panels` does."""
    rows = drawn.front.trials
    points = zip(rows["trial"].tolist(), *drawn.xy(rows).T.tolist(), strict=True)
    return {
        "x": axis(drawn.x),
        "y": axis(drawn.y),
        "ways": list(drawn.front.directions),
        "steps": drawn.steps().tolist(),
        "points": [list(point) for point in points],
    }


def keys(front: ParetoFront) -> dict[str, Any]:
    """Return what colours and marks mean, and which the trials have.

    Colours are aggregations, marks are topologies, as in all pictures of fronts.
    """
    aggregations, topologies = (names_in(front.trials, name) for name in ("aggregation", "topology"))
    return {
        "colors": colors_of(aggregations),
        "marks": {name: mark_path(marker) for name, marker in markers_of(topologies).items()},
        "of": {
            int(trial): [aggregation, topology]
            for trial, aggregation, topology in zip(
                front.trials["trial"], aggregations, topologies, strict=True
            )
        },
    }


def mark_path(marker: Marker) -> str:
    """Return a marker as an SVG path around 0, 0, of an area of about one."""
    style = MarkerStyle(marker.matplotlib)
    path = style.get_transform().transform_path(style.get_path())
    size = marker.area**0.5
    words = []
    for vertices, code in path.iter_segments(simplify=False):
        numbers = [float(n) * size for n in vertices] if code != Path.CLOSEPOLY else []
        numbers[1::2] = [-n for n in numbers[1::2]]  # y points up in one library and down in the other
        words.append(_PATH[code] + " ".join(f"{n:.3g}" for n in numbers))
    return "".join(words)


# ---- how it went ---------------------------------------------------------------------------------------


def history(front: ParetoFront, finished: Sequence[int]) -> dict[str, Any] | None:
    """Return hypervolume and best value against finished trials; None if no trial can be ranked."""
    if front.trials.empty:
        return None
    y = drawn_columns(front)[1]
    frame = history_frame(front, y, finished=finished)
    values = scale_of(y, frame[y].dropna(), n_ticks=5)
    return {
        "n": _count_axis(len(frame)),
        "volume": {
            "axis": axis(_volume_scale(frame["hypervolume"])),
            "steps": _pairs(frame["n_trials"], frame["hypervolume"]),
            "note": measured_from(front),
        },
        "best": {
            "axis": axis(values),
            "steps": _pairs(frame["n_trials"], frame["best"] * values.factor),
            "trials": [
                [int(row["n_trials"]), float(row[y]) * values.factor, int(row["trial"])]
                for row in frame[frame[y].notna()].to_dict("records")
            ],
        },
        "size": {"steps": _pairs(frame["n_trials"], frame["n_front"])},
    }


def _volume_scale(values: pd.Series) -> Scale:
    first, last = float(values.iloc[0]), float(values.max())
    from_zero = not 0.4 * last < first < last
    return scale_of("hypervolume", [0.0, last] if from_zero else [first, last], n_ticks=4)


def _count_axis(n: int) -> dict[str, Any]:
    found = axis(scale_of("finished trials", [0, n], n_ticks=6))
    whole = [(tick, word) for tick, word in zip(found["ticks"], found["words"], strict=True) if tick % 1 == 0]
    return found | {"ticks": [tick for tick, _ in whole], "words": [word for _, word in whole]}


def _pairs(x: pd.Series, y: pd.Series) -> list[list[float]]:
    return [[float(a), float(b)] for a, b in zip(x, y, strict=True) if pd.notna(b)]


# ---- intervals -----------------------------------------------------------------------------------------


def errors_axis(values: Iterable[float]) -> dict[str, Any]:
    """Return an axis for fractions, in percent."""
    return axis(scale_of("val_error", list(values), n_ticks=7))
