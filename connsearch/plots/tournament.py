"""A tournament as pictures: how far apart the contestants are, and what topology and aggregation do to it."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from connsearch.plots.scales import Scale, scale_of
from connsearch.plots.style import (
    FAINT,
    INK,
    QUIET,
    SMALL,
    TIMES,
    Picture,
    base_name,
    colors_of,
    look,
    markers_of,
    text_width,
)
from connsearch.search.tournament.standings import Standing, Standings
from connsearch.search.tournament.text import p_word

_ROW = 0.185  # inches
_SEEDS_BELOW = 0.29  # of a row, under the interval
_CELL = (0.62, 0.4)  # inches: width and height of a cell of the matrix
_DARK = 0.4  # of the colour scale, beyond which text is white


def plot_tournament(found: Standings, *, title: str | None = None, width: float = 3.5) -> Figure:
    """Return a forest plot: a row for each contestant, the best on top, with its mean, interval and seeds.

    Colours are aggregations and markers topologies, as in every picture. Below each interval are the single
    trainings, to the right p values of the difference to the best, whose mean is the vertical line. What is
    not told from the best at 5 % has a bold name.

    Args:
        found: The standings.
        title: Written above the picture; by default MACs and number of seeds.
        width: Of the picture in inches: 3.5 is one column of a paper, 7.2 two.
    """
    rows = found.rows
    names = [_name(row) for row in rows]
    left = max(text_width(name) for name in names) * 1.12 + 0.12
    right, top, bottom = 0.5, 0.36, 0.44
    height = _ROW * len(rows)
    total = top + height + bottom
    shown = np.array([value for row in rows for value in (*row.errors, *_ends(row))])
    scale = scale_of("val_error", shown)
    with look():
        figure = Picture(figsize=(width, total))
        axes = figure.add_axes((left / width, bottom / total, (width - left - right) / width, height / total))
        _draw_rows(axes, rows, names, scale)
        _draw_p_values(axes, rows)
        figure.text(0.06 / width, 1 - 0.07 / total, title or _title(found), va="top", fontsize=8.5)
    return figure


def _title(found: Standings) -> str:
    seeds = f"{found.rounds} seed{'s' if found.rounds > 1 else ''}"
    unfinished = "" if found.is_complete else f" of {found.asked}, unfinished"
    return f"{_macs(found)}, {seeds}{unfinished}"


def _macs(found: Standings) -> str:
    return f"{found.shape}".partition(",")[0]


def _name(row: Standing) -> str:
    return f"{row.contestant.topology} {TIMES} {row.contestant.aggregation}"


def _ends(row: Standing) -> list[float]:
    return [end for end in row.interval if not math.isnan(end)]


def _draw_rows(axes: Axes, rows: tuple[Standing, ...], names: list[str], scale: Scale) -> None:
    colors = colors_of([base_name(row.contestant.aggregation.label) for row in rows])
    markers = markers_of([base_name(row.contestant.topology.label) for row in rows])
    scale.apply(axes.xaxis)
    axes.set(ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.axvline(rows[0].mean * scale.factor, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    for y, (row, label) in enumerate(zip(rows, axes.get_yticklabels(), strict=True)):
        color = colors[base_name(row.contestant.aggregation.label)]
        marker = markers[base_name(row.contestant.topology.label)]
        if row.p >= 0.05:
            label.set_fontweight("bold")
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="#F6F7F9", linewidth=0, zorder=0)
        ends = [scale.factor * end for end in _ends(row)]
        if ends:
            axes.plot(ends, [y, y], color=color, linewidth=1.6, solid_capstyle="butt", zorder=3)
        axes.scatter(
            scale.factor * row.mean,
            y,
            s=24 * marker.area,
            marker=marker.matplotlib,
            facecolor=color,
            edgecolor="white",
            linewidth=0.5,
            zorder=4,
            label=f"mean: {label.get_text()}",
        )
        axes.scatter(
            [scale.factor * error for error in row.errors],
            [y + _SEEDS_BELOW] * len(row.errors),
            s=4.5,
            color=color,
            alpha=0.5,
            linewidth=0,
            zorder=2,
            label=f"seeds: {label.get_text()}",
        )


def _draw_p_values(axes: Axes, rows: tuple[Standing, ...]) -> None:
    """Write beside each row how likely luck puts it behind the best."""
    words = ["best", *(p_word(row.p) for row in rows[1:])]
    for y, word in enumerate(words):
        axes.annotate(
            word,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=QUIET,
        )
    axes.annotate(
        "p", (1, 1), xycoords="axes fraction", xytext=(5, 3), textcoords="offset points", fontsize=SMALL,
        fontstyle="italic", color=QUIET,
    )  # fmt: skip


def plot_tournament_matrix(found: Standings, *, title: str | None = None) -> Figure:
    """Return mean errors as a matrix: a row for each topology, a column for each aggregation, and averages.

    Rows and columns are in the order of their means, the best first. Pairs that are one network have the
    value of that network, set in italics after the first; pairs that were left out are empty, and so are
    averages over them.

    Args:
        found: The standings.
        title: Written above the picture; by default MACs and number of seeds.
    """
    means, first = _matrix(found)
    rows, columns = (_order(means, axis) for axis in (0, 1))
    grid = np.array([[means.get((row, column), math.nan) for column in columns] for row in rows]) * 100
    left = max(map(text_width, [*rows, "average"])) + 0.2
    bottom, top, gap = 0.1, 0.54, 0.07
    size = (left + (len(columns) + 1) * _CELL[0] + gap + 0.1, bottom + (len(rows) + 1) * _CELL[1] + gap + top)
    with look():
        figure = Picture(figsize=size)
        norm = Normalize(float(np.nanmin(grid)), float(np.nanmax(grid)))
        parts = {
            (0, 0): grid,
            (0, 1): grid.mean(axis=1, keepdims=True),
            (1, 0): grid.mean(axis=0, keepdims=True),
        }
        for (below, beside), values in parts.items():
            x = left + beside * (len(columns) * _CELL[0] + gap)
            y = bottom + (0 if below else _CELL[1] + gap)
            n_rows, n_columns = values.shape
            box = (x / size[0], y / size[1], n_columns * _CELL[0] / size[0], n_rows * _CELL[1] / size[1])
            axes = figure.add_axes(box)
            axes.imshow(values, cmap="viridis_r", norm=norm, aspect="auto")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, pad=3, top=False, labeltop=not below, labelbottom=False)
            axes.set_xticks(range(n_columns), [] if below else ["average"] if beside else columns)
            axes.set_yticks(range(n_rows), [] if beside else ["average"] if below else rows)
            again = set() if below or beside else {
                (i, j) for i, row in enumerate(rows) for j, column in enumerate(columns)
                if (row, column) in means and (row, column) not in first
            }  # fmt: skip
            _write_cells(axes, values, norm, again)
        words = f"{title or _title(found)}: validation error (%)"
        figure.text(0.08 / size[0], 1 - 0.08 / size[1], words, va="top", fontsize=8.5)
    return figure


def _matrix(found: Standings) -> tuple[dict[tuple[str, str], float], set[tuple[str, str]]]:
    """Return the mean of each pair by topology and aggregation, and the first pair of each network."""
    means, first = {}, set()
    for row in found.rows:
        for place, name in enumerate(row.contestant.pairs):
            topology, _, aggregation = name.partition(" x ")
            means[topology, aggregation] = row.mean
            if place == 0:
                first.add((topology, aggregation))
    return means, first


def _order(means: dict[tuple[str, str], float], axis: int) -> list[str]:
    """Return topologies or aggregations, those of least mean error first."""
    values = dict.fromkeys(pair[axis] for pair in means)
    return sorted(values, key=lambda name: float(np.mean([m for p, m in means.items() if p[axis] == name])))


def _write_cells(axes: Axes, values: np.ndarray, norm: Normalize, again: set[tuple[int, int]]) -> None:
    for (i, j), value in np.ndenumerate(values):
        if math.isnan(value):
            continue
        axes.text(
            j,
            i,
            f"{value:.2f}" if value < 10 else f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=SMALL,
            fontstyle="italic" if (i, j) in again else "normal",
            color="white" if norm(value) > _DARK else INK,
        )
