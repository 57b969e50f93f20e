"""The arc diagram: a whole network on one line, readable from four nodes to hundreds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from connsearch.graph import ConnectivityGraph, Node
from connsearch.plots.layout import MARGIN, Arc, ArcLayout, Band, arc_layout
from connsearch.plots.legend import EDGE, legend_below, row_width
from connsearch.plots.style import (
    BAND_COLORS,
    EDGE_COLORS,
    EDGE_WORDS,
    NODE_LOOKS,
    SMALL,
    TIMES,
    Picture,
    look,
    text_width,
)

_NARROW, _WIDE = 3.5, 7.2  # inches, one and two columns of a paper
_STEP, _LEAST_STEP = 0.3, 0.07  # inches between layers: where there is room, and at the least


def plot_graph(
    graph: ConnectivityGraph, *, title: str | None = None, sizes: Sequence[tuple[int, int]] = ()
) -> Figure:
    """Return the arc diagram of a graph, 3.5 inches wide or as wide as its nodes need.

    Layers read along the line and in arcs above it; transitions and carries read in arcs below it. Lines
    get thinner and fainter as they get more, so that density shows as shade.

    Args:
        graph: What to draw.
        title: Written above the picture.
        sizes: Height and width of the feature maps at scale 0, 1, ..., written beside the blocks.
    """
    layout = arc_layout(graph)
    with look():
        figure = Picture(figsize=(_figure_width(layout), 3.0))
        bottom = _add_legends(figure, graph, layout)
        axes = _add_axes(figure, layout, bottom, title)
        _draw_bands(axes, layout.bands, sizes)
        _draw_arcs(axes, layout.arcs)
        _draw_nodes(axes, graph, layout)
        _draw_labels(axes, graph.nodes, layout)
    return figure


# ---- measures ------------------------------------------------------------------------------------------


def _figure_width(layout: ArcLayout) -> float:
    units = layout.right - layout.left
    roomy = min(max(_STEP * units, _NARROW), _WIDE)
    return max(roomy, _LEAST_STEP * units) + 2 * EDGE


def _add_axes(figure: Figure, layout: ArcLayout, bottom: float, title: str | None) -> Axes:
    """Size the figure and return axes in which x is in layers and y too, but stretched."""
    across = float(figure.get_figwidth())
    width = across - 2 * EDGE
    step = width / (layout.right - layout.left)
    below, above = layout.below, max(layout.above, 0.5)
    arcs = min(max(0.32 * width, 0.9), 2.6, 1.6 * step * (above + below))  # inches, above and below the line
    if layout.above == layout.below == 0:
        arcs = 0.25
    inch = (above + below) / arcs
    labelled = len(layout.bands) > 1
    low, high = -below - 0.24 * inch, above + (0.26 if labelled else 0.12) * inch
    height, top = (high - low) / inch, 0.28 if title else EDGE
    total = bottom + height + top
    figure.set_figheight(total)
    axes = figure.add_axes((EDGE / across, bottom / total, width / across, height / total))
    room = max(0.0, 0.13 / step - MARGIN)  # for half the label of the first and the last node
    axes.set(xlim=(layout.left - room, layout.right + room), ylim=(low, high))
    axes.set_axis_off()
    if title:
        figure.text(EDGE / across, 1 - 0.06 / total, title, va="top", fontsize=9)
    return axes


def _step_inches(axes: Axes) -> float:
    """Return how many inches lie between two neighbouring layers."""
    left, right = axes.get_xlim()
    figure = axes.get_figure(root=True)
    across = float(figure.get_figwidth()) if figure else 0.0
    return axes.get_position().width * across / (right - left)


# ---- parts ---------------------------------------------------------------------------------------------


def _draw_bands(axes: Axes, bands: Sequence[Band], sizes: Sequence[tuple[int, int]]) -> None:
    step = _step_inches(axes)
    first, last = axes.get_xlim()
    for number, band in enumerate(bands):
        left = first if number == 0 else band.left
        right = last if number == len(bands) - 1 else band.right
        axes.axvspan(left, right, facecolor=BAND_COLORS[number % 2], edgecolor="none", zorder=0)
        words = _band_words(band, sizes) if len(bands) > 1 or sizes else []
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


def _band_words(band: Band, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Return the labels a band may have, the fullest first."""
    words = [f"block {band.block}", f"b{band.block}", f"{band.block}"]
    if band.scale < len(sizes):
        height, width = sizes[band.scale]
        words.insert(0, f"block {band.block} · {height}{TIMES}{width}")
    return words


def _draw_arcs(axes: Axes, arcs: Sequence[Arc]) -> None:
    """Add one collection per kind of edge; rare kinds are drawn over frequent ones."""
    of_kind = {kind: [arc for arc in arcs if arc.kind == kind] for kind in EDGE_COLORS}
    for kind, some in sorted(of_kind.items(), key=lambda item: -len(item[1])):
        if some:
            width, alpha = line_look(math.sqrt(len(some) * len(arcs))) if kind != "chain" else (0.8, 0.9)
            axes.add_collection(
                PathCollection(
                    [_path(arc) for arc in some],
                    facecolors="none",
                    edgecolors=EDGE_COLORS[kind],
                    linewidths=width,
                    alpha=alpha,
                    zorder=2,
                    label=kind,
                    capstyle="round",
                ),
                autolim=False,
            )


def line_look(n_edges: float) -> tuple[float, float]:
    """Return the width in points and the opacity of a line that is one of so many, or effectively so."""
    return float(np.clip(2.8 * n_edges**-0.26, 0.3, 1.1)), float(np.clip(4.0 * n_edges**-0.42, 0.1, 0.85))


def _path(arc: Arc) -> Path:
    ends = (arc.left, 0.0), (arc.right, 0.0)
    if arc.height == 0:
        return Path(ends, [Path.MOVETO, Path.LINETO])
    lift = 4 / 3 * arc.height  # a cubic whose top is at `height`
    inner = (arc.left, lift), (arc.right, lift)
    return Path([ends[0], *inner, ends[1]], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])


def _draw_nodes(axes: Axes, graph: ConnectivityGraph, layout: ArcLayout) -> None:
    size = _marker_size(axes)
    for kind, (marker, color) in NODE_LOOKS.items():
        xs = [x for x, node in zip(layout.xs, graph.nodes, strict=True) if node.kind == kind]
        if xs:
            axes.plot(
                xs,
                [0.0] * len(xs),
                linestyle="none",
                marker=marker,
                color=color,
                label=kind,
                zorder=4,
                clip_on=False,
                markersize=size * (0.6 if kind == "carry" else 1),
                markeredgecolor="white",
                markeredgewidth=size / 14,
            )


def _marker_size(axes: Axes) -> float:
    """Return the diameter of a node in points: half the distance between two, within reason."""
    return float(np.clip(0.55 * 72 * _step_inches(axes), 2.2, 7.0))


# ---- node labels ---------------------------------------------------------------------------------------


def _draw_labels(axes: Axes, nodes: Sequence[Node], layout: ArcLayout) -> None:
    texts = node_labels(nodes, layout.xs, _step_inches(axes))
    down = -_marker_size(axes) / 2 - 1.5
    for index, text in texts.items():
        axes.annotate(
            text,
            (layout.xs[index], 0),
            xytext=(0, down),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL,
            zorder=6,
            path_effects=[withStroke(linewidth=1.6, foreground="white", alpha=0.85)],
        )


def node_labels(nodes: Sequence[Node], xs: Sequence[float], step: float) -> dict[int, str]:
    """Return the labels that fit side by side: all names, else the numbers of every 1st, 2nd, 5th ... layer.

    Args:
        nodes: All nodes of the graph.
        xs: Their positions in layers.
        step: Inches between two layers.
    """
    names = {i: node.name.rpartition(".")[2] for i, node in enumerate(nodes) if node.kind != "carry"}
    if _fit(names, xs, step):
        return names
    numbers = _numbers(nodes)
    for every in (1, 2, 5, 10, 20, 50, 100):
        some = {i: str(n) for i, n in numbers.items() if n % every == 0}
        if _fit(some, xs, step):
            return some
    return {}


def _numbers(nodes: Sequence[Node]) -> dict[int, int]:
    """Return, for each unit, the number its name ends in, or else its number within its block."""
    units = [(i, node) for i, node in enumerate(nodes) if node.kind == "unit"]
    found = {i: re.search(r"\d+$", node.name) for i, node in units}
    if all(found.values()):
        return {i: int(match[0]) for i, match in found.items() if match}
    runs = (list(run) for _, run in groupby(units, key=lambda pair: pair[1].block))
    return {i: number for run in runs for number, (i, _) in enumerate(run, start=1)}


def _fit(texts: dict[int, str], xs: Sequence[float], step: float) -> bool:
    half = {i: text_width(text) / 2 for i, text in texts.items()}
    return all(
        (xs[b] - xs[a]) * step >= half[a] + half[b] + 0.04
        for a, b in zip(texts, list(texts)[1:], strict=False)
    )


# ---- legends -------------------------------------------------------------------------------------------


def _add_legends(figure: Figure, graph: ConnectivityGraph, layout: ArcLayout) -> float:
    """Add the legends of what occurs and return where they end, in inches from the bottom."""
    node_kinds, edge_kinds = {node.kind for node in graph.nodes}, {arc.kind for arc in layout.arcs}
    nodes = [(_node_handle(kind), str(kind)) for kind in NODE_LOOKS if kind in node_kinds]
    edges = [(_edge_handle(kind), word) for kind, word in EDGE_WORDS.items() if kind in edge_kinds]
    fits = row_width([label for _, label in nodes + edges]) <= figure.get_figwidth() - 2 * EDGE
    rows = [nodes + edges] if fits else [edges, nodes]
    top = EDGE
    for row in filter(None, rows):
        top = (
            legend_below(figure, [handle for handle, _ in row], [label for _, label in row], None, top) + 0.06
        )
    return top


def _node_handle(kind: str) -> Line2D:
    marker, color = NODE_LOOKS[kind]
    size = 4.0 if kind == "carry" else 5.5
    return Line2D([], [], linestyle="none", marker=marker, color=color, markersize=size)


def _edge_handle(kind: str) -> Line2D:
    return Line2D([], [], color=EDGE_COLORS[kind], linewidth=1.2)
