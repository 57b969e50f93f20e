"""What a network learned to read, as pictures: each connection's strength, block by block; gates by class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph
from connsearch.plots.legend import EDGE
from connsearch.plots.style import BAND_COLORS, SMALL, Picture, look, text_width

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    "l2_norm": "L2 norm of the weights",
    "mean_abs_weight": "mean absolute weight",
    "mean_gate": "mean gate",
}
"""What is drawn, by the kind of the numbers."""

_WIDTH, _HEIGHT = 6.9, 9.0  # inches that panels may fill
_CELLS = (0.17, 0.155, 0.14, 0.125, 0.11, 0.1, 0.09, 0.08, 0.07, 0.06)  # inches, of panels in one row
_IN_ROWS, _SMALL_CELLS = (0.15, 0.12, 0.1, 0.08, 0.06), (0.05, 0.04, 0.03, 0.022)  # inches, in several rows
_GAP, _HEAD, _BAR = 0.14, 0.19, 0.62  # inches: between panels; over one; for the colour bar
_COLORS = "viridis"


class _Panel(NamedTuple):
    """A matrix with a name, and words for its rows and columns."""

    title: str
    matrix: npt.NDArray[np.float64]
    rows: Sequence[str]
    columns: Sequence[str]


def plot_strengths(
    graph: ConnectivityGraph, frame: pd.DataFrame, *, relative: bool = False, title: str | None = None
) -> Figure:
    """Return a heat map per block: a row per source, a column per reader, one scale of colours for all.

    Args:
        graph: Of the network; its order of nodes is that of rows and columns.
        frame: What `connsearch.nn.connectivity.connection_strengths` returns, or rows of it.
        relative: Draw each strength over the largest of its reader's, which strengths of several kinds need.
        title: Written above the picture.

    Raises:
        SpecError: if there is no row, a node is not in the graph, or there are several kinds of strengths
            and `relative` is not asked for.
    """
    if frame.empty:
        raise SpecError("there is no connection to draw")
    kinds = list(dict.fromkeys(frame["kind"]))
    if len(kinds) > 1 and not relative:
        raise SpecError(f"strengths of several kinds do not compare ({', '.join(kinds)}): draw them relative")
    if kinds[0] not in WORDS:
        raise SpecError(f"unknown kind {kinds[0]!r} of strengths. {did_you_mean(kinds[0], WORDS)}")
    label = "over the reader's largest" if relative else WORDS[kinds[0]]
    panels = [
        _block_panel(graph, block, rows, "relative" if relative else "value")
        for block, rows in ((b, frame[frame["block"] == b]) for b in sorted(set(frame["block"])))
    ]
    largest = max(float(np.nanmax(panel.matrix)) for panel in panels)
    return _figure(panels, label, title, ("source", "reader"), largest or 1.0)


def plot_shares_by_class(frame: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Return a heat map of gates by class: a row per class, a column per connection.

    Columns that share a budget of one stand together: the readers of a source that is routed, the sources of
    a reader that is gated.

    Args:
        frame: What `connsearch.nn.shares.shares_by_class` returns, or rows of it.
        title: Written above the picture.

    Raises:
        SpecError: if there is no row, or every owner has a single connection.
    """
    if frame.empty:
        raise SpecError("there is no gate to draw")
    classes = list(dict.fromkeys(frame["class"].astype(str)))
    panels = []
    for (kind, owner), rows in frame.groupby(_owners(frame), sort=False):
        if rows[["source", "reader"]].drop_duplicates().shape[0] < 2:
            continue  # a share of one, always
        other = "source" if kind == "gated" else "reader"
        table = rows.assign(**{"class": rows["class"].astype(str)}).pivot_table(
            index="class", columns=other, values="value", sort=False
        )
        names = [str(name) for name in table.columns]
        arrow = f"{short_name(str(owner))} reads" if kind == "gated" else f"{short_name(str(owner))} to"
        matrix = table.reindex(classes).to_numpy(dtype=np.float64)
        panels.append(_Panel(arrow, matrix, classes, [short_name(name) for name in names]))
    if not panels:
        raise SpecError("every gate has one connection to give everything to: there is nothing to draw")
    largest = max(float(np.nanmax(panel.matrix)) for panel in panels)
    return _figure(panels, "mean gate", title, ("class", ""), largest or 1.0, same_rows=True)


def short_name(name: str) -> str:
    """Return the name of a node as short as a tick wants it; a carry has that of what it carries.

    >>> short_name("block2.layer11"), short_name("block3.carry_block1_layer4"), short_name("transition1")
    ('2.11', '1.4', 'trans1')
    """
    name = re.sub(r"^(?:block\d+\.)?carry_(?:(block\d+)_)?", lambda m: f"{m[1]}." if m[1] else "", name)
    name = re.sub(r"^block(\d+)\.", r"\1.", name)
    name = re.sub(r"^transition(\d+)$", r"trans\1", name)
    return re.sub(r"(^|\.)layer(?=\d)", r"\1", name)


# ---- parts ---------------------------------------------------------------------------------------------


def _owners(frame: pd.DataFrame) -> list[npt.NDArray[np.object_]]:
    gated = frame["aggregation"] == "gated"
    owner = frame["reader"].where(gated, frame["source"])
    return [frame["aggregation"].to_numpy(dtype=object), owner.to_numpy(dtype=object)]


def _block_panel(graph: ConnectivityGraph, block: int, rows: pd.DataFrame, column: str) -> _Panel:
    sources = sorted({graph.index(name) for name in rows["source"]})
    readers = sorted({graph.index(name) for name in rows["reader"]})
    matrix = np.full((len(sources), len(readers)), np.nan)
    for source, reader, value in zip(rows["source"], rows["reader"], rows[column], strict=True):
        matrix[sources.index(graph.index(source)), readers.index(graph.index(reader))] = value
    words = [[_within(graph.nodes[i].name, block) for i in nodes] for nodes in (sources, readers)]
    return _Panel(f"block {block}", matrix, *words)


def _within(name: str, block: int) -> str:
    """Return the short name of a node seen from a block: its own layers are numbers."""
    return short_name(name).removeprefix(f"{block}.")


def _figure(
    panels: Sequence[_Panel],
    label: str,
    title: str | None,
    axes_words: tuple[str, str],
    largest: float,
    *,
    same_rows: bool = False,
) -> Figure:
    """Return panels side by side in rows, cells of one size, and a colour bar at the right of the first row.

    Args:
        panels: Some.
        label: Of the colour bar.
        title: Of the picture.
        axes_words: What rows are, what columns are.
        largest: Value of the last colour; the first one is 0.
        same_rows: Whether all panels have the same rows, named once in a row of panels.
    """
    with look():
        arranged = _arranged(panels, same_rows)
        above, below = EDGE + (0.24 if title else 0.0), EDGE + (0.16 if axes_words[1] else 0.0)
        start = EDGE + (0.16 if axes_words[0] else 0.0)
        bar_at = start + arranged.width + 0.12
        width = max(bar_at + _BAR, 2 * EDGE + (text_width(title, 9.0) if title else 0.0))
        height = above + max(arranged.height, 1.1) + below
        figure = Picture(figsize=(width, height))
        norm = Normalize(0.0, largest)
        for panel, place in zip(panels, arranged.places, strict=True):
            n_rows, n_columns = panel.matrix.shape
            size = (n_columns * arranged.cell, n_rows * arranged.cell)
            box = (start + place.x, height - above - place.y - size[1], *size)
            _draw(figure, panel, box, arranged.cell, norm, names_rows=place.names_rows)
        _finish(figure, label, title, axes_words, norm, bar_at)
    return figure


class _Place(NamedTuple):
    """Where a panel's matrix begins, in inches from the left and from the top."""

    x: float
    y: float
    names_rows: bool


class _Arranged(NamedTuple):
    cell: float
    places: list[_Place]
    width: float
    height: float
    n_lines: int


def _arranged(panels: Sequence[_Panel], same_rows: bool) -> _Arranged:
    """Return where panels stand: in one row if the cells then are large enough, else in several."""
    for cell in _CELLS:
        found = _arrangement(panels, cell, same_rows)
        if found.n_lines == 1 and found.width <= _WIDTH:
            return found
    fitting = (_arrangement(panels, cell, same_rows) for cell in (*_IN_ROWS, *_SMALL_CELLS))
    return next(
        (found for found in fitting if found.width <= _WIDTH and found.height <= _HEIGHT),
        _arrangement(panels, _SMALL_CELLS[-1], same_rows),
    )


def _arrangement(panels: Sequence[_Panel], cell: float, same_rows: bool) -> _Arranged:
    places: list[_Place] = []
    x = y = width = low = 0.0
    n_lines = 1
    for panel in panels:
        n_rows, n_columns = panel.matrix.shape
        names, size = _words_width(panel.rows, cell), n_columns * cell
        left = 0.0 if same_rows and x else names
        head = max(size, text_width(panel.title))
        if x and x + left + head > _WIDTH:
            x, y, left, low, n_lines = 0.0, y + low + 0.08, names, 0.0, n_lines + 1
        places.append(_Place(x + left, y + _HEAD, not same_rows or not x))
        x += left + head
        width = max(width, x)
        x += _GAP
        low = max(low, _HEAD + n_rows * cell + _words_width(panel.columns, cell))
    return _Arranged(cell, places, width, y + low, n_lines)


def _ticks(words: Sequence[str], cell: float) -> dict[int, str]:
    """Return the words that fit beside cells: those that are no number, and others as there is room."""
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100) if n * cell >= 0.115), 200)
    chosen: dict[int, str] = {}
    special = [i for i, word in enumerate(words) if not word.isdecimal()]
    for i in special if len(special) * cell < 0.5 * len(words) * cell or every == 1 else special[::every]:
        if all(abs(i - j) * cell >= 0.11 for j in chosen):
            chosen[i] = words[i]
    for i, word in enumerate(words):
        wanted = word.isdecimal() and int(word) % every == 0
        if wanted and all(abs(i - j) * cell >= 0.11 for j in chosen):
            chosen[i] = word
    return dict(sorted(chosen.items()))


def _words_width(words: Sequence[str], cell: float) -> float:
    return max((text_width(word) for word in _ticks(words, cell).values()), default=0.0) + 0.09


def _draw(
    figure: Figure,
    panel: _Panel,
    box: tuple[float, float, float, float],
    cell: float,
    norm: Normalize,
    *,
    names_rows: bool,
) -> None:
    """Draw a matrix in a box, in inches: cells of no connection stay the colour of the background."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.set_facecolor(BAND_COLORS[1])
    axes.imshow(panel.matrix, cmap=_COLORS, norm=norm, interpolation="nearest", aspect="auto")
    axes.set_title(panel.title, fontsize=SMALL, pad=4)
    rows = _ticks(panel.rows, cell) if names_rows else {}
    columns = _ticks(panel.columns, cell)
    axes.set_yticks(list(rows), list(rows.values()))
    axes.set_xticks(list(columns), list(columns.values()), rotation=90)
    axes.tick_params(length=1.5, pad=1.5)
    axes.spines[:].set_visible(False)
    if cell >= 0.1:
        _lines_between(axes, panel.matrix.shape)


def _lines_between(axes: Axes, shape: tuple[int, ...]) -> None:
    for x in range(1, shape[1]):
        axes.axvline(x - 0.5, color="white", linewidth=0.4)
    for y in range(1, shape[0]):
        axes.axhline(y - 0.5, color="white", linewidth=0.4)


def _finish(
    figure: Figure,
    label: str,
    title: str | None,
    axes_words: tuple[str, str],
    norm: Normalize,
    x: float,
) -> None:
    """Add the colour bar, the title and what rows and columns are."""
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    top = max(box.y1 for box in boxes)
    low = min(box.y0 for box in boxes if box.y1 > top - 0.02)
    length = min(max((top - low) * height, 0.9), 2.4)
    bar = figure.add_axes((x / width, top - length / height, 0.1 / width, length / height))
    figure.colorbar(ScalarMappable(norm, _COLORS), cax=bar)
    bar.set_ylabel(label, fontsize=SMALL, labelpad=3)
    bar.spines[:].set_visible(False)
    if title:
        figure.text(EDGE / width, 1 - 0.08 / height, title, va="top", fontsize=9)
    middle = (min(b.y0 for b in boxes) + top) / 2
    if axes_words[0]:
        figure.text(0.06 / width, middle, axes_words[0], rotation=90, va="center", ha="left", fontsize=8)
    if axes_words[1]:
        center = (min(b.x0 for b in boxes) + max(b.x1 for b in boxes)) / 2
        figure.text(center, 0.05 / height, axes_words[1], ha="center", va="bottom", fontsize=8)
