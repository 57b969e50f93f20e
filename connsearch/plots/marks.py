"""What pictures of graphs are made of: edges, nodes, names and legends, whatever the layout."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from connsearch.graph import Node
from connsearch.plots.legend import EDGE, legend_below, row_width
from connsearch.plots.style import EDGE_COLORS, EDGE_WORDS, NODE_LOOKS, SMALL, text_width

Point = tuple[float, float]

_SIZES = {"carry": 0.6, "join": 0.75}  # of markers, as a share of a layer's


def step_inches(axes: Axes) -> float:
    """Return how many inches lie between two neighbouring layers."""
    left, right = axes.get_xlim()
    figure = axes.get_figure(root=True)
    across = float(figure.get_figwidth()) if figure else 0.0
    return axes.get_position().width * across / (right - left)


# ---- edges ---------------------------------------------------------------------------------------------


def draw_edges(axes: Axes, edges: Iterable[tuple[str, Sequence[Point]]]) -> None:
    """Add one collection per kind of edge; rare kinds are drawn over frequent ones.

    Args:
        axes: Where to draw.
        edges: Kind and points of each: two of a straight line, or of cubic curves in a row.
    """
    of_kind: dict[str, list[Sequence[Point]]] = {kind: [] for kind in EDGE_COLORS}
    for kind, points in edges:
        of_kind[kind].append(points)
    n_edges = sum(map(len, of_kind.values()))
    for kind, some in sorted(of_kind.items(), key=lambda item: -len(item[1])):
        if some:
            width, alpha = line_look(math.sqrt(len(some) * n_edges)) if kind != "chain" else (0.8, 0.9)
            axes.add_collection(
                PathCollection(
                    [_path(points) for points in some],
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


def _path(points: Sequence[Point]) -> Path:
    code = Path.LINETO if len(points) == 2 else Path.CURVE4
    return Path(points, [Path.MOVETO, *[code] * (len(points) - 1)])


# ---- nodes ---------------------------------------------------------------------------------------------


def draw_nodes(axes: Axes, nodes: Sequence[Node], points: Sequence[Point]) -> None:
    """Add a marker for each node, by kind."""
    size = _marker_size(axes)
    for kind, (marker, color) in NODE_LOOKS.items():
        some = [point for point, node in zip(points, nodes, strict=True) if node.kind == kind]
        if some:
            axes.plot(
                [x for x, _ in some],
                [y for _, y in some],
                linestyle="none",
                marker=marker,
                color=color,
                label=kind,
                zorder=4,
                clip_on=False,
                markersize=size * _SIZES.get(kind, 1.0),
                markeredgecolor="white",
                markeredgewidth=size / 14,
            )


def _marker_size(axes: Axes) -> float:
    """Return the diameter of a node in points: half the distance between two, within reason."""
    return float(np.clip(0.55 * 72 * step_inches(axes), 2.2, 7.0))


# ---- names ---------------------------------------------------------------------------------------------


def draw_labels(axes: Axes, texts: Mapping[int, str], points: Sequence[Point]) -> None:
    """Write texts below nodes."""
    down = -_marker_size(axes) / 2 - 1.5
    for index, text in texts.items():
        axes.annotate(
            text,
            points[index],
            xytext=(0, down),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=SMALL,
            zorder=6,
            path_effects=[withStroke(linewidth=1.6, foreground="white", alpha=0.85)],
        )


def node_labels(
    nodes: Sequence[Node], xs: Sequence[float], step: float, lines: Sequence[float] = ()
) -> dict[int, str]:
    """Return the labels that fit side by side: all names, else the numbers of every 1st, 2nd, 5th ... layer.

    Args:
        nodes: All nodes of the graph.
        xs: Their positions in layers.
        step: Inches between two layers.
        lines: On which line each stands, if there are several.
    """
    names = {i: node.name.rpartition(".")[2] for i, node in enumerate(nodes) if node.kind != "carry"}
    if _fit(names, xs, step, lines):
        return names
    numbers = _numbers(nodes)
    for every in (1, 2, 5, 10, 20, 50, 100):
        some = {i: str(n) for i, n in numbers.items() if n % every == 0}
        if _fit(some, xs, step, lines):
            return some
    return {}


def _numbers(nodes: Sequence[Node]) -> dict[int, int]:
    """Return the numbers in the names of units, once each; of units without any, those within their block."""
    units = [(i, node) for i, node in enumerate(nodes) if node.kind == "unit"]
    found: dict[tuple[int, int, int], int] = {}
    for i, node in units:
        number = re.search(r"(\d+)\D*$", node.name.rpartition(".")[2])
        if number:
            found.setdefault((node.block, node.path, int(number[1])), i)
    if found:
        return {i: number for (_, _, number), i in found.items()}
    runs = (list(run) for _, run in groupby(units, key=lambda pair: pair[1].block))
    return {i: number for run in runs for number, (i, _) in enumerate(run, start=1)}


def _fit(texts: Mapping[int, str], xs: Sequence[float], step: float, lines: Sequence[float]) -> bool:
    half = {i: text_width(text) / 2 for i, text in texts.items()}
    order = sorted(texts, key=lambda i: (lines[i] if lines else 0.0, xs[i]))
    return all(
        (xs[b] - xs[a]) * step >= half[a] + half[b] + 0.04
        for a, b in pairwise(order)
        if not lines or lines[a] == lines[b]
    )


# ---- legends -------------------------------------------------------------------------------------------


def add_legends(figure: Figure, node_kinds: Collection[str], edge_kinds: Collection[str]) -> float:
    """Add the legends of what occurs and return where they end, in inches from the bottom."""
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
