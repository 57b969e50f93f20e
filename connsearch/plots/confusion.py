"""Which classes are taken for which, as a heat map: true classes in rows, predicted ones in columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from connsearch.errors import DataError
from connsearch.plots.legend import EDGE
from connsearch.plots.style import SMALL, Picture, look, text_width
from connsearch.text import si

_CELLS = (0.34, 0.07)  # inches: where counts are written, and at most classes
_LARGEST = 7.0  # inches of the matrix
_BAR = 0.62
_NAME_LINE = 0.115  # inches that a name needs
_SMALLEST = 4.0  # points, of names where classes are many
_LEAST = 1.6  # inches of the matrix
_COLORS, _ROOT = "Blues", 0.5  # the colour goes with the root of a share, so that few mistakes are seen too
_TICKS = (0, 1, 5, 20, 50, 100)


def plot_confusion(
    counts: npt.NDArray[np.int64], class_names: Sequence[str], *, title: str | None = None
) -> Figure:
    """Return a heat map of shares of each true class, with counts in the cells where these have room.

    Args:
        counts: K K: how often each class (row) was taken for each (column), as `Confusion.counts`.
        class_names: K.
        title: Written above the picture.

    Raises:
        DataError: if the counts are not K K.
    """
    size = len(class_names)
    if counts.shape != (size, size):
        raise DataError(f"a confusion of {size} classes has {size} x {size} counts, got {counts.shape}")
    support = counts.sum(1, keepdims=True)
    shares = np.where(support > 0, counts / np.maximum(support, 1), np.nan)
    written = [[si(float(count)) for count in row] for row in counts]
    with look():
        cell = _cell(size, written)
        names = [_shortened(name) for name in class_names]
        points = min(SMALL, max(_SMALLEST, cell / _NAME_LINE * SMALL))
        words = max(text_width(name, points) for name in names) + 0.12
        side, left, below = size * cell, words + 0.2, words + 0.2
        width, height = left + side + _BAR, below + side + EDGE + (0.26 if title else 0.06)
        figure = Picture(figsize=(width, height))
        axes = figure.add_axes((left / width, below / height, side / width, side / height))
        axes.imshow(shares, cmap=_COLORS, norm=PowerNorm(_ROOT, 0, 1), interpolation="nearest")
        _names(axes, names, points)
        if cell >= _CELLS[0]:
            _write(axes, written, shares)
        _lines(axes, size, cell)
        _bar(figure, axes)
        if title:
            figure.text(EDGE / width, 1 - 0.08 / height, title, va="top", fontsize=9)
    return figure


def _cell(size: int, written: Sequence[Sequence[str]]) -> float:
    """Return the side of a cell in inches: large enough for the counts if they fit, else for the names."""
    for_counts = max(_CELLS[0], max(text_width(text) for row in written for text in row) + 0.08)
    if size * for_counts <= _LARGEST:
        return max(for_counts, _LEAST / size)
    return max(min(_NAME_LINE, _LARGEST / size), _CELLS[1])


def _shortened(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _names(axes: Axes, names: Sequence[str], points: float) -> None:
    places = range(len(names))
    axes.set_yticks(places, names, fontsize=points)
    axes.set_xticks(places, names, rotation=90, fontsize=points)
    axes.tick_params(length=0, pad=2)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set_visible(False)


def _write(axes: Axes, written: Sequence[Sequence[str]], shares: npt.NDArray[np.float64]) -> None:
    """Write each count that is not 0 into its cell, dark on light and light on dark."""
    for row, texts in enumerate(written):
        for column, text in enumerate(texts):
            if text != "0":
                color = "white" if shares[row, column] > 0.3 else "#333333"
                axes.text(column, row, text, ha="center", va="center", fontsize=SMALL - 1, color=color)


def _lines(axes: Axes, size: int, cell: float) -> None:
    width, color = (0.6, "#D5D8DD") if cell >= _CELLS[0] else (0.25, "#E9ECF0")
    for place in range(size + 1):
        axes.axhline(place - 0.5, color=color, linewidth=width)
        axes.axvline(place - 0.5, color=color, linewidth=width)


def _bar(figure: Figure, axes: Axes) -> None:
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    length = min(box.height * height, 2.4)
    bar = figure.add_axes((box.x1 + 0.1 / width, box.y1 - length / height, 0.1 / width, length / height))
    figure.colorbar(ScalarMappable(PowerNorm(_ROOT, 0, 100), _COLORS), cax=bar, ticks=_TICKS)
    bar.minorticks_off()
    bar.set_ylabel("share of the true class (%)", fontsize=SMALL, labelpad=3)
    bar.spines[:].set_visible(False)
