from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.build import graph_across_blocks
from connsearch.graph.topologies import list_topologies
from connsearch.plots.layout import CARRY_STEP, Arc, arc_layout


@given(st.sampled_from(list_topologies()), st.integers(1, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_each_edge_is_one_arc_between_its_nodes(topology: str, n_layers: int, head: bool) -> None:
    graph = ConnectivityGraph.from_topology(topology, n_layers, head=head)
    layout = arc_layout(graph)
    assert sorted((arc.source, arc.target) for arc in layout.arcs) == sorted(graph.edges())
    for arc in layout.arcs:
        assert (arc.left, arc.right) == (layout.xs[arc.source], layout.xs[arc.target])
        assert arc.kind == graph.edge_kind(arc.source, arc.target)


@pytest.fixture(params=["blocks", "across"])
def graph(request: pytest.FixtureRequest, blocks: Callable[..., ConnectivityGraph]) -> ConnectivityGraph:
    return (
        blocks("log_dense", [4, 1, 6])
        if request.param == "blocks"
        else graph_across_blocks("log_dense", [4, 4, 4])
    )


def test_nodes_stand_in_topological_order_within_their_bands(graph: ConnectivityGraph) -> None:
    layout = arc_layout(graph)
    assert all(a < b for a, b in pairwise(layout.xs))
    assert [band.block for band in layout.bands] == [1, 2, 3]
    assert [band.scale for band in layout.bands] == [0, 1, 2]
    assert all(a.right == b.left for a, b in pairwise(layout.bands))
    for x, node in zip(layout.xs, graph.nodes, strict=True):
        band = layout.bands[node.block - 1]
        assert band.left < x < band.right


def test_changes_of_resolution_lie_below_and_the_rest_above(graph: ConnectivityGraph) -> None:
    layout = arc_layout(graph)
    assert {arc.kind for arc in layout.arcs} == {"chain", "skip", "resolution", "output"}
    for arc in layout.arcs:
        side = {"resolution": -1, "chain": 0}.get(arc.kind, 1)
        assert (arc.height > 0) - (arc.height < 0) == side
    assert layout.above == max(arc.height for arc in layout.arcs)
    assert layout.below == -min(arc.height for arc in layout.arcs)


def test_longer_arcs_are_higher_and_come_first(graph: ConnectivityGraph) -> None:
    arcs = arc_layout(graph).arcs
    spans = [arc.right - arc.left for arc in arcs]
    assert spans == sorted(spans, reverse=True)
    curved = sorted((arc.right - arc.left, abs(arc.height)) for arc in arcs if arc.height)
    assert [height for _, height in curved] == sorted(height for _, height in curved)


def test_carries_stand_closer() -> None:
    graph = graph_across_blocks("dense", [2, 2])
    xs = arc_layout(graph).xs
    gaps = {
        b - a
        for (a, b), (m, n) in zip(pairwise(xs), pairwise(graph.nodes), strict=True)
        if m.kind == n.kind == "carry"
    }
    assert gaps == {CARRY_STEP}


def test_a_chain_edge_that_passes_over_a_node_is_an_arc() -> None:
    nodes = [
        Node("stem", "stem"),
        Node("a", path=0),
        Node("b", path=1),
        Node("c", path=0),
        Node("head", "head"),
    ]
    graph = ConnectivityGraph(tuple(nodes), ((), (0,), (0,), (1,), (2, 3)))
    heights = {(arc.source, arc.target): arc.height for arc in arc_layout(graph).arcs}
    assert graph.edge_kind(1, 3) == "chain"
    assert heights[1, 3] > 0 == heights[0, 1]


def test_one_node_has_no_arcs() -> None:
    layout = arc_layout(ConnectivityGraph((Node("stem", "stem"),), ((),)))
    assert (layout.xs, layout.arcs, layout.above, layout.below) == ((0.0,), (), 0.0, 0.0)
    assert layout.left < 0 < layout.right


def test_an_arc_is_a_value() -> None:
    assert Arc(0, 1, "chain", 0.0, 1.0, 0.0) == Arc(0, 1, "chain", 0.0, 1.0, 0.0)


def test_rows_cover_the_line_between_nodes(blocks: Callable[..., ConnectivityGraph]) -> None:
    """A block that is too long is cut into equal parts, short ones share a row with what is before."""
    layout = arc_layout(blocks("chain", [70, 3, 4]))
    rows = layout.rows(30.0)
    assert (rows[0][0], rows[-1][1]) == (layout.left, layout.right)
    assert all(a[1] == b[0] for a, b in pairwise(rows))
    assert all(right - left <= 31 for left, right in rows)
    assert not {end for row in rows for end in row} & set(layout.xs)
    assert [row[1] for row in rows][2:] == [layout.bands[1].right, layout.right]
    assert layout.rows(1000.0) == [(layout.left, layout.right)]
