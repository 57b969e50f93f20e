"""Graphs to and from networkx, node-link JSON, GraphML and pairs."""

from __future__ import annotations

import random
from collections.abc import Callable

import networkx as nx
import pytest
from hypothesis import given, strategies as st

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from strategies import dags, graphs

from_networkx = ConnectivityGraph.from_networkx


@given(graphs())
def test_networkx_and_back(graph: ConnectivityGraph) -> None:
    assert from_networkx(graph.to_networkx()) == graph


@given(graphs())
def test_json_and_back(graph: ConnectivityGraph) -> None:
    assert ConnectivityGraph.from_json(graph.to_json()) == graph


@given(graphs())
def test_graphml_and_back(graph: ConnectivityGraph) -> None:
    assert ConnectivityGraph.from_graphml(graph.to_graphml()) == graph


@given(dags())
def test_pairs_and_back(graph: ConnectivityGraph) -> None:
    """Kinds are inferred; the order is that of insertion as far as it is topological."""
    pairs = [(graph.nodes[s].name, graph.nodes[t].name) for s, t in graph.edges()]
    again = ConnectivityGraph.from_edges(pairs)
    assert again.canonical_hash() == graph.canonical_hash()
    assert {n.name: n for n in again.nodes} == {n.name: n for n in graph.nodes}
    assert {(again.nodes[s].name, again.nodes[t].name) for s, t in again.edges()} == set(pairs)


@given(graphs(), st.randoms(use_true_random=False))
def test_nodes_may_be_given_in_any_order(graph: ConnectivityGraph, rng: random.Random) -> None:
    """Edge kinds left out: which of two unordered nodes comes first decides between chain and skip."""
    written = graph.to_networkx()
    names = list(written)
    rng.shuffle(names)
    shuffled: nx.DiGraph = nx.DiGraph()
    shuffled.add_nodes_from((name, written.nodes[name]) for name in names)
    shuffled.add_edges_from(written.edges)
    again = from_networkx(shuffled)
    assert again.canonical_hash() == graph.canonical_hash()
    assert set(again.nodes) == set(graph.nodes)


def test_every_node_and_edge_attribute_is_written() -> None:
    graph = ConnectivityGraph(
        (
            Node("stem", "stem"),
            Node("a", path=1),
            Node("down", "transition", 2, 1),
            Node("head", "head", 2, 1),
        ),
        ((), (0,), (0, 1), (2,)),
    )
    written = graph.to_networkx()
    assert dict(written.nodes(data=True)) == {
        "stem": {"kind": "stem", "block": 1, "scale": 0, "path": 0},
        "a": {"kind": "unit", "block": 1, "scale": 0, "path": 1},
        "down": {"kind": "transition", "block": 2, "scale": 1, "path": 0},
        "head": {"kind": "head", "block": 2, "scale": 1, "path": 0},
    }
    assert list(written.edges(data="kind")) == [
        ("stem", "a", "skip"),
        ("stem", "down", "resolution"),
        ("a", "down", "resolution"),
        ("down", "head", "output"),
    ]


def test_the_networkx_graph_is_a_copy() -> None:
    graph = ConnectivityGraph.from_topology("dense", 3)
    graph.to_networkx().remove_node("layer2")
    assert len(graph.to_networkx()) == 4


def test_kinds_are_inferred_only_where_there_is_one_candidate() -> None:
    graph = ConnectivityGraph.from_edges([(0, 1), (0, 2), (1, 3), (2, 3)])
    assert [(n.name, n.kind) for n in graph.nodes] == [
        ("0", "stem"),
        ("1", "unit"),
        ("2", "unit"),
        ("3", "head"),
    ]
    two = r"^2 nodes read nothing \('0', '1'\): one of them can be the stem; connect or remove the others, "
    with pytest.raises(SpecError, match=two):
        ConnectivityGraph.from_edges([(0, 2), (1, 2)])
    own = digraph(("s", "b"), ("a", "b"), ("b", "h"), kind="stem")
    with pytest.raises(SpecError, match=r"^node 's' is unreachable: it reads nothing and is no stem"):
        ConnectivityGraph.from_networkx(own)
    with pytest.raises(SpecError, match=r"no output needs node '1': connect it or remove it"):
        ConnectivityGraph.from_edges([(0, 1), (0, 2)])


def digraph(*edges: tuple[object, object], **attributes: object) -> nx.DiGraph:
    """Return a graph whose node `a` has the given attributes."""
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_edges_from(edges or (("s", "a"), ("a", "h")))
    if attributes:
        graph.add_node("a", **attributes)
    return graph


def with_edge(**attributes: object) -> nx.DiGraph:
    graph = digraph()
    graph.add_edge("s", "a", **attributes)
    return graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nx.Graph([(0, 1)]),
            r"the graph is undirected: orient it, for example by node order, as nx\.DiGraph",
        ),
        (
            lambda: nx.MultiDiGraph([(0, 1)]),
            r"the graph is a multigraph: parallel edges have no meaning here",
        ),
        (lambda: nx.DiGraph(), r"the graph has no nodes"),
        (
            lambda: digraph((0, 1), (1, 2), (2, 3), (3, 1)),
            r"the graph has a cycle: 1 -> 2 -> 3 -> 1; remove one of",
        ),
        (lambda: digraph((0, 1), (1, 1)), r"the graph has a cycle: 1 -> 1; remove one of its edges"),
        (lambda: digraph((0, 1), (1, "1")), r"two nodes are named '1': names must differ"),
        (
            lambda: digraph(blok=2),
            r"node 'a': unknown attribute 'blok'\. Did you mean 'block'\? Known: block, kind, ",
        ),
        (lambda: digraph(block="2"), r"node 'a': attribute 'block' must be int, got '2'"),
        (lambda: digraph(scale=True), r"node 'a': attribute 'scale' must be int, got True"),
        (lambda: digraph(kind=1), r"node 'a': attribute 'kind' must be str, got 1"),
        (lambda: digraph(kind="untit"), r"node 'a': unknown kind 'untit'\. Did you mean 'unit'\?"),
        (lambda: digraph(kind="stem"), r"node 'a' is a stem, but reads 's'"),
        (lambda: digraph(kind="head"), r"'a' is a head, but 'h' reads it"),
        (lambda: with_edge(weight=2), r"edge \('s', 'a'\): unknown attribute 'weight'\. Known: kind\."),
        (
            lambda: with_edge(kind="skip"),
            r"edge \('s', 'a'\): kind is 'chain' by its nodes, but 'skip' is given",
        ),
    ],
)
def test_a_graph_that_is_no_network_is_refused(make: Callable[[], nx.DiGraph], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_networkx(make())


def test_a_pair_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"edge \('a', 'b'\) is given twice: remove one"):
        ConnectivityGraph.from_edges([("a", "b"), ("b", "c"), ("a", "b")])


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"nodes": 3, "edges": []}'])
def test_text_that_is_no_node_link_json(text: str) -> None:
    with pytest.raises(SpecError, match=r"this is no node-link JSON: "):
        ConnectivityGraph.from_json(text)


@pytest.mark.parametrize("text", ["", "<graphml", "<html></html>"])
def test_text_that_is_no_graphml(text: str) -> None:
    with pytest.raises(SpecError, match=r"this is no GraphML: "):
        ConnectivityGraph.from_graphml(text)


def test_a_scale_that_is_not_given_follows_from_transitions() -> None:
    graph = nx.DiGraph([("stem", "a"), ("a", "down"), ("down", "b"), ("b", "head")])
    graph.nodes["down"]["kind"] = "transition"
    found = ConnectivityGraph.from_networkx(graph)
    assert [node.scale for node in found.nodes] == [0, 0, 1, 1, 1]
