"""Legends: below a picture, in as many columns as its width holds, or in a row above its axes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from connsearch.plots.style import SMALL, text_width

_HANDLE, _GAP = 0.27, 0.17  # inches: a handle and the space after it; between columns
EDGE = 0.08  # inches left free at each side of a figure


def n_columns(labels: Sequence[str], width: float) -> int:
    """Return the most columns, evenly filled from the top, that fit into a width in inches."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if len(parts) == columns and row_width([max(part, key=text_width) for part in parts]) <= width:
            return columns
    return 1


def row_width(labels: Sequence[str]) -> float:
    """Return the width in inches of a legend of one row."""
    return sum(text_width(label) + _HANDLE + _GAP for label in labels) - _GAP


def legend_below(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], title: str | None, bottom: float
) -> float:
    """Add a legend whose lower left corner is `bottom` inches up; return where its top is, in inches."""
    width = float(figure.get_figwidth()) - 2 * EDGE
    legend = Legend(
        figure,
        handles,
        labels,
        title=title,
        loc="lower left",
        bbox_to_anchor=(EDGE, bottom),
        bbox_transform=figure.dpi_scale_trans,
        ncols=n_columns(labels, width),
        alignment="left",
        title_fontsize=SMALL,
        borderpad=0.0,
        borderaxespad=0.0,
        labelspacing=0.35,
        handlelength=_HANDLE * 72 / SMALL - 0.5,
        handletextpad=0.5,
        columnspacing=_GAP * 72 / SMALL,
    )
    legend.set_in_layout(False)
    figure.legends.append(legend)
    box = legend.get_tightbbox()
    return bottom + (float(box.height) / figure.dpi if box else 0.0)


def legend_above(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Add a legend of one row above the right end of axes, by default of what they show with a label."""
    axes.legend(
        handles=handles if handles is not None else axes.get_legend_handles_labels()[0],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        handlelength=1.3,
        borderaxespad=0.1,
        columnspacing=1.0,
    )
