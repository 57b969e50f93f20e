"""The connectivity of a network as a matrix: which node reads which, or what a number says of each edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph, Node
from connsearch.plots.legend import EDGE, legend_below
from connsearch.plots.style import BAND_COLORS, EDGE_COLORS, EDGE_WORDS, INK, SMALL, Picture, look, text_width

_SIDE, _LARGE = 2.9, 6.0  # inches of the matrix
_NO_VALUE, _BEHIND_SIGNED = "#8E8E8E", "#D5D8DD"  # the middle of the signed colours is nearly white
_BAR = 0.62  # inches for the colour bar and its ticks


def plot_connectivity(
    graph: ConnectivityGraph,
    values: Mapping[tuple[str, str], float] | None = None,
    *,
    title: str | None = None,
    label: str = "value",
) -> Figure:
    """Return a heat map of the edges: a row per source, a column per target, lines between blocks.

    Args:
        graph: What to draw.
        values: A number per edge, by the names of source and target, for example the norm of the weight
            with which the target reads the source; edges without one stay grey. Without values an edge
            has the colour of its kind.
        title: Written above the picture.
        label: What the values are, written beside the colour bar.

    Raises:
        SpecError: if a value is given for what is no edge of the graph.
    """
    matrix = kind_matrix(graph) if values is None else value_matrix(graph, values)
    with look():
        side = min(max(_SIDE, 0.055 * len(graph)), _LARGE)
        bar = _BAR if values is not None else 0.1
        names = _tick_names(graph.nodes, side)
        words = max(map(text_width, names.values())) + 0.34
        head = values is not None or any(node.block != graph.nodes[0].block for node in graph.nodes)
        figure = Picture(figsize=(words + side + bar, side))
        bottom = _add_legend(figure, graph) if values is None else EDGE
        axes = _add_axes(figure, words, bottom, side, title, head)
        if values is None:
            kinds = ListedColormap(list(EDGE_COLORS.values()))
            axes.imshow(matrix, cmap=kinds, vmin=-0.5, vmax=len(EDGE_COLORS) - 0.5, interpolation="nearest")
        else:
            _draw_values(figure, axes, graph, matrix, label)
        _draw_frame(axes, graph.nodes, names)
    return figure


def kind_matrix(graph: ConnectivityGraph) -> npt.NDArray[np.float64]:
    """Return source x target: the place of the edge's kind in `EDGE_COLORS`, nan for no edge."""
    kinds = list(EDGE_COLORS)
    matrix = np.full((len(graph), len(graph)), np.nan)
    for source, target in graph.edges():
        matrix[source, target] = kinds.index(graph.edge_kind(source, target))
    return matrix


def value_matrix(
    graph: ConnectivityGraph, values: Mapping[tuple[str, str], float]
) -> npt.NDArray[np.float64]:
    """Return source x target: the value of the edge, nan where there is none.

    Raises:
        SpecError: if a value is given for what is no edge of the graph.
    """
    matrix = np.full((len(graph), len(graph)), np.nan)
    for (source, target), value in values.items():
        at = graph.index(source), graph.index(target)
        if at[0] not in graph.sources[at[1]]:
            hint = did_you_mean(source, [graph.nodes[i].name for i in graph.sources[at[1]]])
            raise SpecError(f"no edge ({source!r}, {target!r}) to give a value to. {hint}")
        matrix[at] = value
    return matrix


# ---- parts ---------------------------------------------------------------------------------------------


def _add_axes(
    figure: Figure, words: float, bottom: float, side: float, title: str | None, head: bool
) -> Axes:
    """Size the figure and return square axes, with room over them for words if there are any."""
    bottom += words
    width, top = figure.get_figwidth(), EDGE + 0.18 * head + (0.26 if title else 0)
    total = bottom + side + top
    figure.set_figheight(total)
    if title:
        figure.text(EDGE / width, 1 - 0.08 / total, title, va="top", fontsize=9)
    axes = figure.add_axes((words / width, bottom / total, side / width, side / total))
    axes.set_facecolor(BAND_COLORS[0])
    return axes


def _draw_values(
    figure: Figure, axes: Axes, graph: ConnectivityGraph, matrix: npt.NDArray[np.float64], label: str
) -> None:
    """Draw edges grey, values over them, and the colour bar; signed values get two hues around zero."""
    is_edge = np.where(np.isnan(kind_matrix(graph)), np.nan, 0.0)
    axes.imshow(is_edge, cmap=ListedColormap([_NO_VALUE]), interpolation="nearest")
    finite = matrix[np.isfinite(matrix)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    signed = low < 0 < high
    if signed:
        axes.set_facecolor(_BEHIND_SIGNED)
    image = axes.imshow(
        matrix, cmap="RdBu_r" if signed else "viridis", norm=Normalize(low, high), interpolation="nearest"
    )
    x0, y0, width, height = axes.get_position().bounds
    inch = 1 / figure.get_figwidth()
    bar = figure.add_axes((x0 + width + 0.08 * inch, y0, 0.1 * inch, height))
    figure.colorbar(image, cax=bar)
    bar.set_title(label, fontsize=SMALL, loc="right", pad=4)
    bar.spines[:].set_visible(False)


def _draw_frame(axes: Axes, nodes: Sequence[Node], names: Mapping[int, str]) -> None:
    """Draw ticks, the lines between blocks, and the diagonal that no edge crosses."""
    n_nodes = len(nodes)
    axes.set(xlim=(-0.5, n_nodes - 0.5), ylim=(n_nodes - 0.5, -0.5), xlabel="target", ylabel="source")
    axes.set_yticks(list(names), list(names.values()))
    axes.set_xticks(list(names), list(names.values()), rotation=90)
    axes.tick_params(length=2, pad=2)
    axes.spines[:].set_visible(False)
    axes.plot([-0.5, n_nodes - 0.5], [-0.5, n_nodes - 0.5], color="#C4C4C4", linewidth=0.6, zorder=1)
    borders = [i - 0.5 for i, (a, b) in enumerate(pairwise(nodes), start=1) if a.block != b.block]
    for border in borders:
        axes.axhline(border, color=INK, linewidth=0.6, zorder=3)
        axes.axvline(border, color=INK, linewidth=0.6, zorder=3)
    if borders:
        _name_blocks(axes, nodes, borders)


def _name_blocks(axes: Axes, nodes: Sequence[Node], borders: Sequence[float]) -> None:
    step = axes.get_position().width * _figure_width(axes) / len(nodes)
    for left, right in pairwise([-0.5, *borders, len(nodes) - 0.5]):
        block = nodes[int(left + 1)].block
        words = [w for w in (f"block {block}", f"{block}") if text_width(w) <= (right - left) * step - 0.04]
        if words:
            axes.annotate(
                words[0],
                ((left + right) / 2, -0.5),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL,
                annotation_clip=False,
            )


def _tick_names(nodes: Sequence[Node], side: float) -> dict[int, str]:
    """Return the labels of rows and columns: all names if they fit, else every second, fifth, ... number."""
    if side / len(nodes) >= 0.115:
        return {i: node.name for i, node in enumerate(nodes)}
    every = next((n for n in (2, 5, 10, 20, 50, 100, 200) if n * side / len(nodes) >= 0.125), 500)
    return {i: str(i) for i in range(0, len(nodes), every)}


def _figure_width(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    return float(figure.get_figwidth()) if figure else 0.0


def _add_legend(figure: Figure, graph: ConnectivityGraph) -> float:
    occurring = {graph.edge_kind(*edge) for edge in graph.edges()}
    kinds = [kind for kind in EDGE_WORDS if kind in occurring]
    handles = [Patch(facecolor=EDGE_COLORS[kind], edgecolor="none") for kind in kinds]
    if not kinds:
        return EDGE
    return legend_below(figure, handles, [EDGE_WORDS[kind] for kind in kinds], None, EDGE) + 0.04
