from __future__ import annotations

import io
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import networkx as nx
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node, predecessors
from connsearch.graph.build import GraphBuilder, graph_across_blocks, graph_of_rule
from connsearch.plots import plot_connectivity, plot_graph
from connsearch.plots.heat import kind_matrix, value_matrix
from connsearch.plots.marks import line_look, node_labels
from connsearch.plots.style import EDGE_COLORS, EDGE_WORDS, SMALL
from connsearch.spec import resolve
from connsearch.spec.presets import PRESETS, preset

SMALL_DAG = ConnectivityGraph.from_networkx(nx.DiGraph([("in", "a"), ("in", "b"), ("a", "b"), ("b", "out")]))
RISING = graph_of_rule(predecessors("log_dense", 30), [4, 6, 9, 7, 4], scales=[0, 1, 2, 1, 0])
SIZES = {0: (32, 24), 1: (16, 12), 2: (8, 6)}
Blocks = Callable[..., ConnectivityGraph]


@pytest.fixture(
    params=["dag", "chain", "log", "dense", "across", "short", "long", "rising", "u", "paths", "columns"]
)
def graph(request: pytest.FixtureRequest, blocks: Blocks) -> ConnectivityGraph:
    return {
        "dag": lambda: SMALL_DAG,
        "chain": lambda: ConnectivityGraph.from_topology("chain", 1),
        "log": lambda: ConnectivityGraph.from_topology("log_dense", 12, head=True),
        "dense": lambda: blocks("dense", [16, 16, 16]),
        "across": lambda: graph_across_blocks("log_dense", [6, 6, 6]),
        "short": lambda: blocks("chain", [1] * 7),
        "long": lambda: ConnectivityGraph.from_topology("log_dense", 150),
        "rising": lambda: RISING,
        "u": lambda: preset("unet").graph(),
        "paths": lambda: multipath(3),
        "columns": lambda: preset("fractalnet-20").graph(),
    }[request.param]()


def multipath(n_paths: int) -> ConnectivityGraph:
    """Two blocks of parallel units and joins; in between, every path reads every path."""
    graph = GraphBuilder()
    paths = [graph.add("stem", "stem")] * n_paths
    for block in (1, 2):
        place: dict[str, Any] = {"block": block, "scale": block - 1}
        for i in (1, 2):
            units = [
                graph.add(f"block{block}.path{p}.layer{i}", reads=[paths[p]], path=p, **place)
                for p in range(n_paths)
            ]
            paths = [
                graph.add(f"block{block}.path{p}.join{i}", "join", reads={*units, paths[p]}, path=p, **place)
                for p in range(n_paths)
            ]
    graph.add("head", "head", reads=paths, block=2, scale=1)
    return graph.graph()


def arcs_of(figure: Figure) -> dict[str, PathCollection]:
    return {str(c.get_label()): c for c in figure.axes[0].collections if isinstance(c, PathCollection)}


def legend_words(figure: Figure) -> set[str]:
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def assert_words_are_readable(figure: Figure) -> None:
    """No two words overlap, none leaves the figure, none is smaller than 7 points."""
    texts = [t for axes in figure.axes for t in axes.texts] + list(figure.texts)
    texts += [t for legend in figure.legends for t in legend.get_texts()]
    figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    for (word, a), (other, b) in combinations(boxes, 2):
        assert not a.padded(-0.5).overlaps(b.padded(-0.5)), (word, other)
    for word, box in boxes:
        assert box.x0 >= 0, word
        assert box.y0 >= 0, word
        assert box.x1 <= figure.bbox.x1, word
        assert box.y1 <= figure.bbox.y1, word
    assert min(t.get_fontsize() for t in texts) >= SMALL


def test_as_many_arcs_as_edges_by_kind(graph: ConnectivityGraph) -> None:
    arcs = arcs_of(plot_graph(graph))
    kinds = [graph.edge_kind(*edge) for edge in graph.edges()]
    assert {kind: len(c.get_paths()) for kind, c in arcs.items()} == {k: kinds.count(k) for k in set(kinds)}
    assert sum(len(c.get_paths()) for c in arcs.values()) == graph.n_edges


def test_a_marker_per_node_by_kind(graph: ConnectivityGraph) -> None:
    kinds = [node.kind for node in graph.nodes]
    drawn = {str(line.get_label()): len(line.get_xydata()) for line in plot_graph(graph).axes[0].lines}
    assert drawn == {kind: kinds.count(kind) for kind in set(kinds)}


def test_the_legend_explains_what_occurs(graph: ConnectivityGraph) -> None:
    edge_kinds = {graph.edge_kind(*edge) for edge in graph.edges()}
    expected = {node.kind for node in graph.nodes} | {EDGE_WORDS[kind] for kind in edge_kinds}
    assert legend_words(plot_graph(graph)) == expected


def test_words_are_readable(graph: ConnectivityGraph) -> None:
    assert_words_are_readable(plot_graph(graph, title="A title", sizes=SIZES))


def test_all_arcs_and_nodes_are_inside_the_axes(graph: ConnectivityGraph) -> None:
    figure = plot_graph(graph)
    axes = figure.axes[0]
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    for collection in arcs_of(figure).values():
        for path in collection.get_paths():
            box = path.get_extents()
            assert x0 <= box.x0 <= box.x1 <= x1
            assert y0 <= box.y0 <= box.y1 <= y1


def test_blocks_are_named_with_their_sizes_where_they_fit(blocks: Blocks) -> None:
    graph = blocks("dense", [8, 8, 1])
    plain = {t.get_text() for t in plot_graph(graph).axes[0].texts}
    assert {"block 1", "block 2"} <= plain
    sized = {t.get_text() for t in plot_graph(graph, sizes={0: (32, 24), 1: (16, 12)}).axes[0].texts}
    assert {"block 1 · 32\N{MULTIPLICATION SIGN}24", "block 2 · 16\N{MULTIPLICATION SIGN}12"} <= sized
    single = ConnectivityGraph.from_topology("chain", 4)
    assert not {t for t in plot_graph(single).axes[0].texts if "block" in t.get_text()}


def test_sizes_are_those_of_scales_though_some_are_skipped() -> None:
    scales, sizes = [0, 2, 4], {0: (64, 64), 2: (16, 16), 4: (4, 4)}
    for there_and_back in ([], [2, 0]):
        graph = graph_of_rule(predecessors("chain", 9), [3] * 3, scales=scales)
        if there_and_back:
            graph = graph_of_rule(predecessors("chain", 15), [3] * 5, scales=scales + there_and_back)
        words = {t.get_text() for t in plot_graph(graph, sizes=sizes).axes[0].texts}
        for number, (height, _) in enumerate(sizes.values(), start=1):
            size = f"{height}\N{MULTIPLICATION SIGN}{height}"
            assert (size if there_and_back else f"block {number} · {size}") in words


def test_a_network_that_rises_is_drawn_as_its_u() -> None:
    """A line for each scale with the size of its maps; decoders stand right of encoders, as high as they."""
    axes = plot_graph(RISING, sizes=SIZES).axes[0]
    words = {t.get_text(): t.xy for t in axes.texts}
    assert {f"{h}\N{MULTIPLICATION SIGN}{w}" for h, w in SIZES.values()} <= set(words)
    blocks = [words[f"block {b}"] for b in range(1, 6)]
    assert [x for x, _ in blocks] == sorted(x for x, _ in blocks)
    heights = [y for _, y in blocks]
    assert heights[0] == heights[4] > heights[1] == heights[3] > heights[2]


def test_parallel_paths_stand_over_each_other() -> None:
    axes = plot_graph(multipath(3), sizes=SIZES).axes[0]
    units = next(line for line in axes.lines if line.get_label() == "unit").get_xydata()
    assert sorted({y for _, y in units}) == [-2, -1, 0]
    assert len({x for x, _ in units}) == 4
    assert {"block 1 · 32\N{MULTIPLICATION SIGN}24", "block 2 · 16\N{MULTIPLICATION SIGN}12"} <= {
        t.get_text() for t in axes.texts
    }


def test_small_graphs_show_names_large_ones_numbers() -> None:
    assert {t.get_text() for t in plot_graph(SMALL_DAG).axes[0].texts} == {"in", "a", "b", "out"}
    numbers = {t.get_text() for t in plot_graph(ConnectivityGraph.from_topology("dense", 100)).axes[0].texts}
    assert numbers == {str(n) for n in range(5, 101, 5)}


def test_layers_without_numbers_are_counted_within_their_block() -> None:
    names = [chr(ord("a") + i) * 8 for i in range(20)]
    nodes = [Node("stem", "stem"), *(Node(name, block=1 + i // 10) for i, name in enumerate(names))]
    assert node_labels(nodes, [float(i) for i in range(21)], 0.2) == {
        i + 1: str(i % 10 + 1) for i in range(20)
    }
    assert node_labels(nodes, [float(i) for i in range(21)], 0.0001) == {}


def test_layers_keep_the_numbers_of_their_names() -> None:
    """A convolution of the stem or a merge is no numbered layer; two units of one layer have one number."""
    names = ["stem_conv", "block1.layer1", "block1.layer2", "block1.merge", "block2.layer1_in"]
    names += ["block2.layer1_out", *(f"block2.layer{i}" for i in range(2, 6))]
    nodes = [Node("stem", "stem"), *(Node(name, block=int("block2" in name) + 1) for name in names)]
    numbers = node_labels(nodes, [float(i) for i in range(11)], 0.2)
    assert numbers == {2: "1", 3: "2", 5: "1", 7: "2", 8: "3", 9: "4", 10: "5"}


def test_more_edges_are_fainter_and_thinner() -> None:
    looks = [line_look(n) for n in (1, 30, 500, 5000)]
    assert looks == sorted(looks, reverse=True)
    assert all(width >= 0.3 and alpha >= 0.1 for width, alpha in looks)


def test_the_figure_grows_with_the_graph() -> None:
    widths = [
        plot_graph(ConnectivityGraph.from_topology("chain", n)).get_figwidth() for n in (2, 14, 60, 300)
    ]
    assert widths == sorted(set(widths))
    assert widths[0] < 3.7
    assert widths[2] < 7.4


def test_a_very_long_network_is_drawn_in_rows() -> None:
    """Every node once; an arc over the end of a row goes on in the next; it fits a page."""
    plan = resolve(preset("resnet-v2-1001"))
    figure = plot_graph(plan.graph, title="A title", sizes=plan.sizes())
    width, height = figure.get_size_inches()
    assert width < 7.4
    assert height < 10
    assert len(figure.axes) == 9
    nodes = sum(len(line.get_xydata()) for axes in figure.axes for line in axes.lines)
    assert nodes == len(plan.graph)
    arcs = sum(
        len(c.get_paths()) for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection)
    )
    assert plan.graph.n_edges + 8 <= arcs <= plan.graph.n_edges + 16
    named = [t.get_text() for axes in figure.axes for t in axes.texts if "block" in t.get_text()]
    assert named[0] == "block 3 · 8\N{MULTIPLICATION SIGN}8"
    assert len(named) == 9
    assert_words_are_readable(figure)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_drawn_readably(name: str) -> None:
    plan = resolve(preset(name))
    assert_words_are_readable(plot_graph(plan.graph, title=name, sizes=plan.sizes()))


@pytest.mark.parametrize("name", ["dense", "fc-log-densenet-103"])
def test_large_graphs_are_quick(name: str) -> None:
    graph = ConnectivityGraph.from_topology("dense", 100) if name == "dense" else preset(name).graph()
    start = time.perf_counter()
    plot_graph(graph).savefig(io.BytesIO(), format="png", dpi=200)
    assert time.perf_counter() - start < 10  # about 1.5 s on an idle core


# ---- heat map ------------------------------------------------------------------------------------------


def test_the_matrix_is_the_adjacency(graph: ConnectivityGraph) -> None:
    matrix = kind_matrix(graph)
    kinds = list(EDGE_COLORS)
    found = {(int(s), int(t)) for s, t in zip(*(matrix == matrix).nonzero(), strict=True)}
    assert found == set(graph.edges())
    assert all(kinds[int(matrix[s, t])] == graph.edge_kind(s, t) for s, t in graph.edges())


def test_heat_map_words_are_readable(graph: ConnectivityGraph) -> None:
    figure = plot_connectivity(graph, title="A title")
    assert_words_are_readable(figure)
    axes = figure.axes[0]
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    edge_kinds = {graph.edge_kind(*edge) for edge in graph.edges()}
    assert legend_words(figure) == {EDGE_WORDS[kind] for kind in edge_kinds}


def test_blocks_are_separated(blocks: Blocks) -> None:
    axes = plot_connectivity(blocks("dense", [8, 8])).axes[0]
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0.0, 8.5], [1.0, 8.5]] in lines
    assert [[8.5, 0.0], [8.5, 1.0]] in lines
    assert {t.get_text() for t in axes.texts} == {"block 1", "block 2"}


@pytest.mark.parametrize("sign", [1, -1, None])
def test_values_get_a_colour_bar(sign: int | None) -> None:
    edges = [("in", "a"), ("in", "b"), ("b", "out")]
    values = {edge: (sign or (-1) ** i) * (i + 1.0) for i, edge in enumerate(edges)}
    figure = plot_connectivity(SMALL_DAG, values, label="weight")
    image, bar = figure.axes[0].images[-1], figure.axes[1]
    matrix = image.get_array()
    assert [matrix[0, 1], matrix[0, 2], matrix[2, 3]] == list(values.values())
    assert matrix.mask.sum() == 16 - 3
    assert bar.get_title("right") == "weight"
    low, high = image.get_clim()
    assert (low == -high) is (sign is None)
    assert low <= min(values.values()) <= max(values.values()) <= high


def test_no_values_at_all() -> None:
    assert len(plot_connectivity(SMALL_DAG, {}).axes) == 2


def test_values_belong_to_edges() -> None:
    with pytest.raises(SpecError, match=r"no edge \('in', 'out'\) to give a value to. Known: b."):
        value_matrix(SMALL_DAG, {("in", "out"): 1.0})
    with pytest.raises(SpecError, match=r"no node 'inn'. Did you mean 'in'"):
        value_matrix(SMALL_DAG, {("inn", "out"): 1.0})
