"""ConnectivityGraph as a value: what it refuses, equality, hash, what it says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from strategies import dags, graphs

STEM, A, B, HEAD = Node("stem", "stem"), Node("a"), Node("b"), Node("head", "head")
GOOD = ((STEM, A, B, HEAD), ((), (0,), (0, 1), (2,)))


def test_the_smallest_graphs() -> None:
    assert ConnectivityGraph((STEM,), ((),)).n_edges == 0
    assert ConnectivityGraph((STEM, HEAD), ((), (0,))).n_edges == 1
    assert ConnectivityGraph((STEM, A), ((), (0,))).in_degrees() == {"stem": 0, "a": 1}


@pytest.mark.parametrize(
    ("nodes", "sources", "message"),
    [
        ((), (), r"a graph needs nodes and sources of each, got 0, 0"),
        ((STEM, A), ((),), r"a graph needs nodes and sources of each, got 2, 1"),
        ((STEM, A, HEAD), ((), (), (0, 1)), r"node 'a' is unreachable: it reads nothing and is no stem"),
        ((STEM, Node("t", "stem"), HEAD), ((), (0,), (1,)), r"node 't' is a stem, but reads 'stem'"),
        ((STEM, A, HEAD), ((), (0, 0), (1,)), r"node 'a' reads 'stem' twice"),
        ((STEM, A, HEAD), ((), (1,), (1,)), r"node 'a' reads \(1,\): sources must ascend within 0\.\.0"),
        ((STEM, A, HEAD), ((), (2,), (1,)), r"node 'a' reads \(2,\): sources must ascend within 0\.\.0"),
        ((STEM, A, HEAD), ((), (-1,), (1,)), r"node 'a' reads "),
        ((STEM, A, B, HEAD), ((), (0,), (1, 0), (2,)),
         r"node 'b' reads \(1, 0\): sources must ascend within 0\.\.1"),
        ((STEM, A, B, HEAD), ((), (0,), (0,), (2,)), r"no output needs node 'a': connect it or remove it"),
        ((STEM, A, B), ((), (0,), (0,)), r"no output needs node 'a': connect it or remove it"),
        ((STEM, HEAD, A), ((), (0,), (1,)), r"'head' is a head, but 'a' reads it"),
        ((STEM, Node("stem"), HEAD), ((), (0,), (1,)), r"two nodes are named 'stem': names must differ"),
        ((STEM, Node("a"), Node("a.b"), HEAD), ((), (0,), (1,), (2,)),
         r"node 'a\.b' would lie inside node 'a'"),
        ((STEM, Node("a..b"), HEAD), ((), (0,), (1,)),
         r"node name 'a\.\.b': must be words joined by single dots"),
        ((STEM, Node(""), HEAD), ((), (0,), (1,)), r"node name '': must be words joined by single dots"),
    ],
)  # fmt: skip
def test_what_is_no_network_is_refused(
    nodes: tuple[Node, ...], sources: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        ConnectivityGraph(nodes, sources)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "units"},
            r"node 'a': unknown kind 'units'\. Did you mean 'unit'\? Known: carry, head, join, ",
        ),
        ({"block": 0}, r"node 'a': need block >= 1, scale >= 0 and path >= 0, got Node\(.*block=0"),
        ({"scale": -1}, r"need block >= 1, scale >= 0 and path >= 0, got Node\(.*scale=-1"),
        ({"path": -1}, r"need block >= 1, scale >= 0 and path >= 0, got Node\(.*path=-1"),
    ],
)
def test_a_wrong_node_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Node("a", **values)


def test_several_heads_each_keep_what_they_read() -> None:
    nodes = (STEM, A, Node("early", "head"), B, HEAD)
    graph = ConnectivityGraph(nodes, ((), (0,), (1,), (1,), (3,)))
    assert graph.in_degrees() == {"stem": 0, "a": 1, "early": 1, "b": 1, "head": 1}


def test_it_is_frozen_equal_and_hashable_by_content() -> None:
    graph = ConnectivityGraph(*GOOD)
    with pytest.raises(AttributeError, match="cannot assign"):
        graph.nodes = ()
    assert graph == ConnectivityGraph(*GOOD)
    assert len({graph, ConnectivityGraph(*GOOD)}) == 1
    other_edge = ConnectivityGraph(GOOD[0], ((), (0,), (1,), (2,)))
    other_name = ConnectivityGraph((STEM, A, Node("c"), HEAD), GOOD[1])
    assert len({graph, other_edge, other_name}) == 3


def test_reading_metrics_does_not_change_the_value() -> None:
    graph = ConnectivityGraph(*GOOD)
    graph.max_backprop_distance(), graph.readers, graph.index("a")
    assert (graph, hash(graph)) == (ConnectivityGraph(*GOOD), hash(ConnectivityGraph(*GOOD)))


@given(graphs())
def test_edges_readers_and_degrees_agree(graph: ConnectivityGraph) -> None:
    edges = list(graph.edges())
    assert edges == sorted(edges, key=lambda e: (e[1], e[0]))
    assert len(edges) == graph.n_edges == sum(graph.in_degrees().values())
    assert {(s, r) for s, readers in enumerate(graph.readers) for r in readers} == set(edges)
    assert graph.in_degrees() == {n.name: sum(t == i for _, t in edges) for i, n in enumerate(graph.nodes)}
    assert [graph.index(node.name) for node in graph.nodes] == list(range(len(graph)))


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"no node 'heed'\. Did you mean 'head'\? Known: a, b, head, stem\."):
        ConnectivityGraph(*GOOD).index("heed")


def test_it_prints_itself() -> None:
    graph = ConnectivityGraph(*GOOD)
    assert repr(graph) == "ConnectivityGraph(4 nodes, 4 edges)"
    assert str(graph) == (
        "ConnectivityGraph(4 nodes, 4 edges)\n"
        "stem  stem        image\n"
        "a     unit        stem\n"
        "b     unit        stem, a\n"
        "head  head        b"
    )


def test_what_each_edge_is_for() -> None:
    nodes = (
        Node("stem", "stem"),
        Node("a1"), Node("a2"), Node("left", path=1), Node("left2", path=1),
        Node("carry_a1", "carry", 2, 1), Node("down", "transition", 2, 1),
        Node("b1", "unit", 2, 1), Node("b2", "unit", 2, 1),
        Node("head", "head", 2, 1),
    )  # fmt: skip
    sources = ((), (0,), (0, 1), (0, 2), (1, 3), (1,), (2, 4), (5, 6), (5, 6, 7), (5, 8))
    graph = ConnectivityGraph(nodes, sources)
    kinds = {(nodes[s].name, nodes[t].name): graph.edge_kind(s, t) for s, t in graph.edges()}
    assert kinds == {
        ("stem", "a1"): "chain",
        ("stem", "a2"): "skip",
        ("a1", "a2"): "chain",
        ("stem", "left"): "skip",  # another path: nothing of its own came before
        ("a2", "left"): "skip",
        ("a1", "left2"): "skip",
        ("left", "left2"): "chain",
        ("a1", "carry_a1"): "resolution",
        ("a2", "down"): "resolution",
        ("left2", "down"): "resolution",
        ("carry_a1", "b1"): "skip",
        ("down", "b1"): "chain",
        ("carry_a1", "b2"): "skip",
        ("down", "b2"): "skip",
        ("b1", "b2"): "chain",
        ("carry_a1", "head"): "output",
        ("b2", "head"): "output",
    }


@given(dags())
def test_one_chain_edge_at_most_leads_into_a_node(graph: ConnectivityGraph) -> None:
    for target, sources in enumerate(graph.sources):
        kinds = [graph.edge_kind(source, target) for source in sources]
        assert kinds.count("chain") == (graph.nodes[target].kind == "unit" and target - 1 in sources)


@given(graphs())
def test_a_source_is_released_by_its_last_reader(graph: ConnectivityGraph) -> None:
    for index, released in enumerate(graph.released):
        assert list(released) == [
            source
            for source in graph.sources[index]
            if not any(source in later for later in graph.sources[index + 1 :])
        ]
