"""The picture of a whole network: an arc diagram on one line, or as many lines as it has scales or paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from connsearch.graph import ConnectivityGraph
from connsearch.plots.grid import GridLayout, grid_layout, has_lines
from connsearch.plots.layout import MARGIN, Arc, ArcLayout, Band, arc_layout
from connsearch.plots.legend import EDGE
from connsearch.plots.marks import (
    Point,
    add_legends,
    draw_edges,
    draw_labels,
    draw_nodes,
    node_labels,
    step_inches,
)
from connsearch.plots.style import BAND_COLORS, BOX_COLOR, QUIET, SMALL, TIMES, Picture, look, text_width
from connsearch.spec.given import check_network
from connsearch.spec.network import NetworkSpec

_NARROW, _WIDE = 3.5, 7.2  # inches, one and two columns of a paper
_MOST_PAGES = 3  # how many times as wide one line of arcs may get
_ROW_GAP = 0.08  # inches between rows of a longer one
_STEP, _LEAST_STEP = 0.3, 0.07  # inches between layers: where there is room, and at the least
_SCALE_GAP, _PATH_GAP = 0.66, 0.42  # inches between lines: of scales, of paths
_BOX = (-0.26, 0.72)  # of a block on its line, in distances between lines: its bottom and its top


def plot_graph(
    graph: ConnectivityGraph | NetworkSpec,
    *,
    title: str | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> Figure:
    """Return the picture of a graph or a network, 3.5 inches wide or as wide as it needs, long ones in rows.

    On one line, layers read along the line and in arcs above it; transitions and carries read in arcs below
    it. A network that comes back to a higher resolution is drawn as its U, a line for each scale, a carried
    feature in the column of the layer that it comes from; parallel paths have a line each. Lines get thinner
    and fainter as they get more, so that density shows as shade.

    Args:
        graph: What to draw.
        title: Written above the picture.
        sizes: Height and width of the feature maps by scale, written beside blocks or lines.

    Raises:
        SpecError: if it is neither.
    """
    if not isinstance(graph, ConnectivityGraph):
        check_network(graph)
        graph = graph.graph()
    with look():
        return (_plot_lines if has_lines(graph) else _plot_arcs)(graph, title, sizes or {})


# ---- one line ------------------------------------------------------------------------------------------


def _plot_arcs(graph: ConnectivityGraph, title: str | None, sizes: Mapping[int, tuple[int, int]]) -> Figure:
    layout = arc_layout(graph)
    width = _figure_width(layout.right - layout.left)
    if width > _MOST_PAGES * _WIDE:
        return _plot_rows(graph, layout, title, sizes)
    figure = Picture(figsize=(width, 3.0))
    labelled = len(layout.bands) > 1 or bool(sizes)
    axes = _add_axes(figure, layout, _arc_legends(figure, graph, layout), title, labelled)
    points = [(x, 0.0) for x in layout.xs]
    _draw_bands(axes, layout.bands, sizes, labelled)
    draw_edges(axes, [(arc.kind, _arc_points(arc)) for arc in layout.arcs])
    draw_nodes(axes, graph.nodes, points)
    draw_labels(axes, node_labels(graph.nodes, layout.xs, step_inches(axes)), points)
    return figure


def _figure_width(units: float) -> float:
    roomy = min(max(_STEP * units, _NARROW), _WIDE)
    return max(roomy, _LEAST_STEP * units) + 2 * EDGE


def _arc_legends(figure: Figure, graph: ConnectivityGraph, layout: ArcLayout) -> float:
    return add_legends(figure, {node.kind for node in graph.nodes}, {arc.kind for arc in layout.arcs})


def _add_axes(figure: Figure, layout: ArcLayout, bottom: float, title: str | None, labelled: bool) -> Axes:
    """Size the figure and return axes in which x is in layers and y too, but stretched."""
    width = float(figure.get_figwidth()) - 2 * EDGE
    step = width / (layout.right - layout.left)
    low, high, height = _heights(layout, width, step, labelled)
    axes = _sized_axes(figure, bottom, height, title)
    room = max(0.0, 0.13 / step - MARGIN)  # for half the label of the first and the last node
    axes.set(xlim=(layout.left - room, layout.right + room), ylim=(low, high))
    return axes


def _heights(layout: ArcLayout, width: float, step: float, labelled: bool) -> tuple[float, float, float]:
    """Return how low and how high a line of arcs reaches, and its height in inches."""
    below, above = layout.below, max(layout.above, 0.5)
    arcs = min(max(0.32 * width, 0.9), 2.6, 1.6 * step * (above + below))  # inches, above and below the line
    if layout.above == layout.below == 0:
        arcs = 0.25
    inch = (above + below) / arcs
    low, high = -below - 0.24 * inch, above + (0.26 if labelled else 0.12) * inch
    return low, high, (high - low) / inch


def _plot_rows(
    graph: ConnectivityGraph, layout: ArcLayout, title: str | None, sizes: Mapping[int, tuple[int, int]]
) -> Figure:
    """Draw a long line in rows; an arc that leaves a row at its right enters the next one at its left."""
    rows = layout.rows(_WIDE / _LEAST_STEP)
    step = _WIDE / max(right - left for left, right in rows)
    figure = Picture(figsize=(_WIDE + 2 * EDGE, 3.0))
    bottom = _arc_legends(figure, graph, layout)
    low, high, height = _heights(layout, _WIDE, step, labelled=True)
    total = bottom + len(rows) * (height + _ROW_GAP) - _ROW_GAP + (0.28 if title else EDGE)
    figure.set_figheight(total)
    _write_title(figure, title)
    texts = node_labels(graph.nodes, layout.xs, step)
    for number, (left, right) in enumerate(reversed(rows)):
        below = bottom + number * (height + _ROW_GAP)
        across = _WIDE + 2 * EDGE
        place = (EDGE / across, below / total, (right - left) * step / across, height / total)
        axes = figure.add_axes(place, xlim=(left, right), ylim=(low, high))
        axes.set_axis_off()
        _draw_row(axes, graph, layout, texts, sizes)
    return figure


def _draw_row(
    axes: Axes,
    graph: ConnectivityGraph,
    layout: ArcLayout,
    texts: Mapping[int, str],
    sizes: Mapping[int, tuple[int, int]],
) -> None:
    """Draw what lies, wholly or in part, between the ends of the axes."""
    left, right = axes.get_xlim()
    here = [i for i, x in enumerate(layout.xs) if left < x < right]
    points = [(layout.xs[i], 0.0) for i in here]
    bands = [band for band in layout.bands if band.left < right and band.right > left]
    _draw_bands(
        axes, [replace(b, left=max(b.left, left), right=min(b.right, right)) for b in bands], sizes, True
    )
    arcs = [arc for arc in layout.arcs if arc.left < right and arc.right > left]
    draw_edges(axes, [(arc.kind, _arc_points(arc)) for arc in arcs])
    draw_nodes(axes, [graph.nodes[i] for i in here], points)
    draw_labels(axes, {n: texts[i] for n, i in enumerate(here) if i in texts}, points)


def _sized_axes(figure: Figure, bottom: float, height: float, title: str | None) -> Axes:
    """Add axes of a height in inches over what ends at `bottom`, and a title; size the figure to them."""
    across = float(figure.get_figwidth())
    total = bottom + height + (0.28 if title else EDGE)
    figure.set_figheight(total)
    axes = figure.add_axes((EDGE / across, bottom / total, 1 - 2 * EDGE / across, height / total))
    axes.set_axis_off()
    _write_title(figure, title)
    return axes


def _write_title(figure: Figure, title: str | None) -> None:
    if title:
        across, total = figure.get_size_inches()
        figure.text(EDGE / across, 1 - 0.06 / total, title, va="top", fontsize=9)


def _draw_bands(
    axes: Axes, bands: Sequence[Band], sizes: Mapping[int, tuple[int, int]], labelled: bool
) -> None:
    step = step_inches(axes)
    first, last = axes.get_xlim()
    for number, band in enumerate(bands):
        left = first if number == 0 else band.left
        right = last if number == len(bands) - 1 else band.right
        axes.axvspan(left, right, facecolor=BAND_COLORS[(band.block - 1) % 2], edgecolor="none", zorder=0)
        words = _band_words(band, sizes) if labelled else []
        text = next((word for word in words if text_width(word) <= (right - left) * step - 0.06), None)
        if text:
            axes.annotate(
                text,
                ((left + right) / 2, axes.get_ylim()[1]),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=SMALL,
                zorder=5,
            )


def _band_words(band: Band, sizes: Mapping[int, tuple[int, int]]) -> list[str]:
    """Return the labels a band may have, the fullest first."""
    words = _block_words(band.block)
    if band.scale in sizes:
        words.insert(0, f"block {band.block} · {_size(sizes[band.scale])}")
    return words


def _block_words(block: int) -> list[str]:
    return [f"block {block}", f"b{block}", f"{block}"]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}{TIMES}{size[1]}"


def _arc_points(arc: Arc) -> tuple[Point, ...]:
    ends = (arc.left, 0.0), (arc.right, 0.0)
    if arc.height == 0:
        return ends
    lift = 4 / 3 * arc.height  # a cubic whose top is at `height`
    return ends[0], (arc.left, lift), (arc.right, lift), ends[1]


# ---- several lines -------------------------------------------------------------------------------------


def _plot_lines(graph: ConnectivityGraph, title: str | None, sizes: Mapping[int, tuple[int, int]]) -> Figure:
    layout = grid_layout(graph)
    words = [_size(sizes[scale]) if scale in sizes else "" for scale in layout.scales]
    margin = max([text_width(word) + 0.1 for word in words if word], default=0.0)  # inches, left of all nodes
    figure = Picture(figsize=(_figure_width(layout.right - layout.left) + margin, 3.0))
    kinds = {node.kind for node in graph.nodes}, {link.kind for link in layout.links}
    axes = _add_lines(figure, layout, margin, add_legends(figure, *kinds), title)
    points = list(zip(layout.xs, layout.ys, strict=True))
    if layout.scales:
        _draw_boxes(axes, layout)
        _draw_scales(axes, words)
    else:
        bands = _path_bands(graph, layout)
        _draw_bands(axes, bands, sizes, labelled=len(bands) > 1 or bool(sizes))
    draw_edges(axes, [(link.kind, link.points) for link in layout.links])
    draw_nodes(axes, graph.nodes, points)
    draw_labels(axes, node_labels(graph.nodes, layout.xs, step_inches(axes), layout.ys), points)
    return figure


def _add_lines(figure: Figure, layout: GridLayout, margin: float, bottom: float, title: str | None) -> Axes:
    """Size the figure and return axes in which x is in layers, y in lines."""
    units = layout.right - layout.left
    step = (float(figure.get_figwidth()) - 2 * EDGE - margin) / units
    gap = _SCALE_GAP if layout.scales else _PATH_GAP
    low = min(layout.ys) - max(-_BOX[0], 0.2 / gap)
    high = _BOX[1] + 0.06 if layout.scales else _top(layout) + 0.26 / gap
    axes = _sized_axes(figure, bottom, (high - low) * gap, title)
    axes.set(xlim=(layout.left - margin / step, layout.right), ylim=(low, high))
    return axes


def _top(layout: GridLayout) -> float:
    """Return how high the edges rise over the first line."""
    return max([0.2, *(0.75 * y for link in layout.links for _, y in link.points)])


def _draw_boxes(axes: Axes, layout: GridLayout) -> None:
    """Draw a ground for each block; the names are alike, and at most a little wider than it."""
    step = step_inches(axes)
    words = [_block_words(box.block) for box in layout.boxes]
    room = [(box.right - box.left) * step + 0.12 for box in layout.boxes]
    fits = [
        all(text_width(word[i]) <= most for word, most in zip(words, room, strict=True)) for i in range(3)
    ]
    for box, word in zip(layout.boxes, words, strict=True):
        width, height = box.right - box.left, _BOX[1] - _BOX[0]
        corner = (box.left, box.y + _BOX[0])
        axes.add_patch(Rectangle(corner, width, height, facecolor=BOX_COLOR, edgecolor="none", zorder=0.5))
        if any(fits):
            _write(axes, word[fits.index(True)], (box.left + width / 2, box.y + _BOX[1]), (0, -2), "top")


def _write(axes: Axes, text: str, at: Point, offset: tuple[float, float], vertical: str) -> None:
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va=vertical,
        fontsize=SMALL,
        zorder=5,
        path_effects=[withStroke(linewidth=1.6, foreground=BOX_COLOR)],
    )


def _draw_scales(axes: Axes, words: Sequence[str]) -> None:
    """Draw a line for each scale, with the size of its maps at the left."""
    left, right = axes.get_xlim()
    ys = [-line for line in range(len(words))]
    axes.hlines(ys, left, right, color=BAND_COLORS[1], linewidth=0.6, zorder=0.2)
    for line, word in enumerate(words):
        axes.annotate(
            word, (left, -line), ha="left", va="center", fontsize=SMALL, color=QUIET, zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _path_bands(graph: ConnectivityGraph, layout: GridLayout) -> list[Band]:
    """Return a band per block, at the scale that it begins with; neighbours meet half-way."""
    columns: dict[int, list[float]] = {}
    scales: dict[int, int] = {}
    for node, x in zip(graph.nodes, layout.xs, strict=True):
        columns.setdefault(node.block, []).append(x)
        scales.setdefault(node.block, node.scale)
    inner = [(max(a) + min(b)) / 2 for a, b in pairwise(columns.values())]
    edges = pairwise([layout.left, *inner, layout.right])
    return [Band(block, scales[block], *ends) for block, ends in zip(columns, edges, strict=True)]
