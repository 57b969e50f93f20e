from __future__ import annotations

from collections import Counter

import pytest

from connsearch.graph import ConnectivityGraph, Node, predecessors
from connsearch.graph.build import GraphBuilder, graph_across_blocks, graph_of_rule
from connsearch.plots.grid import GridLayout, grid_layout, has_lines, rises
from connsearch.spec.presets import preset

LOG = graph_of_rule(predecessors("log_dense", 18), [3, 4, 5, 4, 2], scales=[0, 1, 2, 1, 0])


@pytest.fixture(params=["log", "unet", "fc-densenet-56", "hypercolumn", "fractalnet-20", "multipath-cnn-2"])
def graph(request: pytest.FixtureRequest) -> ConnectivityGraph:
    return LOG if request.param == "log" else preset(request.param).graph()


def cells(layout: GridLayout) -> list[tuple[float, float]]:
    return list(zip(layout.xs, layout.ys, strict=True))


def test_each_edge_is_one_link_between_its_nodes(graph: ConnectivityGraph) -> None:
    layout = grid_layout(graph)
    assert sorted((link.source, link.target) for link in layout.links) == sorted(graph.edges())
    at = cells(layout)
    for link in layout.links:
        assert (link.points[0], link.points[-1]) == (at[link.source], at[link.target])
        assert link.kind == graph.edge_kind(link.source, link.target)
        assert len(link.points) == 2 or len(link.points) % 3 == 1


def test_no_two_nodes_share_a_place_and_edges_go_right(graph: ConnectivityGraph) -> None:
    layout = grid_layout(graph)
    assert max(Counter(cells(layout)).values()) == 1
    for source, target in graph.edges():
        assert layout.xs[source] <= layout.xs[target]
    assert layout.left < min(layout.xs) <= max(layout.xs) < layout.right


def test_a_straight_link_passes_no_node(graph: ConnectivityGraph) -> None:
    layout = grid_layout(graph)
    for link in layout.links:
        (x0, y0), (x1, y1) = link.points[0], link.points[-1]
        if len(link.points) == 2 and y0 == y1:
            assert not [x for x, y in cells(layout) if y == y0 and x0 < x < x1]


def test_lines_are_scales_and_carried_features_keep_their_column() -> None:
    layout = grid_layout(LOG)
    assert layout.scales == (0, 1, 2)
    assert [-y for y in layout.ys] == [node.scale for node in LOG.nodes]
    carries = [i for i, node in enumerate(LOG.nodes) if node.kind == "carry"]
    assert carries
    assert all(layout.xs[i] == layout.xs[LOG.sources[i][0]] for i in carries)
    assert [(box.block, box.scale) for box in layout.boxes] == [(1, 0), (2, 1), (3, 2), (4, 1), (5, 0)]
    edges = [edge for box in layout.boxes for edge in (box.left, box.right)]
    assert edges == sorted(edges)


def test_a_second_copy_in_a_column_gets_one_of_its_own() -> None:
    graph = GraphBuilder()
    graph.add("stem", "stem")
    copies = [graph.add(f"copy{i}", "carry", reads=["stem"], scale=1) for i in range(2)]
    graph.add("up", "carry", reads=[graph.add("join", "join", reads=copies, scale=1)])
    graph.add("head", "head", reads=["up", "stem"])
    layout = grid_layout(graph.graph())
    assert layout.xs[1] == layout.xs[0] < layout.xs[2]


def test_parallel_nodes_stand_in_one_column() -> None:
    names = ["stem", "a", "b", "a2", "head"]
    nodes = tuple(
        Node(name, kind, path=path)
        for name, kind, path in zip(
            names, ["stem", "unit", "unit", "unit", "head"], [0, 0, 1, 0, 0], strict=True
        )
    )
    layout = grid_layout(ConnectivityGraph(nodes, ((), (0,), (0,), (1,), (2, 3))))
    assert cells(layout) == [(0, 0), (1, 0), (1, -1), (2, 0), (3, 0)]
    assert layout.scales == ()
    free = next(link for link in layout.links if (link.source, link.target) == (2, 4))
    assert free.points[3] == (2, -1)  # along its own path as far as it is free


def test_what_stands_on_one_line() -> None:
    assert not has_lines(graph_across_blocks("log_dense", [4, 4, 4]))
    assert not has_lines(preset("resnet-20").graph())
    assert rises(LOG)
    assert has_lines(preset("fractalnet-20").graph())
    assert not rises(preset("fractalnet-20").graph())
