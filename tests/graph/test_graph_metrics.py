"""Distances and canonical hashes against networkx."""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
from hypothesis import given, settings, strategies as st

from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.metrics import distance_histogram
from strategies import dags, graphs, relabelled


def distances(graph: ConnectivityGraph) -> list[int]:
    """Return the fewest connections of every pair of a node and one of its ancestors."""
    lengths = dict(nx.all_pairs_shortest_path_length(graph.to_networkx()))
    return [steps for row in lengths.values() for steps in row.values() if steps]


@given(graphs())
def test_distances_are_shortest_paths(graph: ConnectivityGraph) -> None:
    found = distances(graph)
    assert distance_histogram(graph.sources) == {d: found.count(d) for d in sorted(set(found))}
    assert graph.max_backprop_distance() == max(found)
    assert graph.mean_backprop_distance() == pytest.approx(sum(found) / len(found), rel=1e-12)


def test_a_lone_node_has_no_distances() -> None:
    graph = ConnectivityGraph((Node("stem", "stem"),), ((),))
    assert (graph.max_backprop_distance(), graph.mean_backprop_distance()) == (0, 0.0)


# ---- canonical hash --------------------------------------------------------------------------------------


@given(graphs(), st.integers(0, 999))
def test_the_hash_ignores_names_and_order(graph: ConnectivityGraph, seed: int) -> None:
    again = relabelled(graph, seed)
    assert again.canonical_hash() == graph.canonical_hash()
    assert len(graph.canonical_hash()) == 64


def same_network(a: ConnectivityGraph, b: ConnectivityGraph) -> bool:
    def alike(one: dict[str, object], other: dict[str, object]) -> bool:
        return all(one[key] == other[key] for key in ("kind", "block", "scale"))

    return bool(nx.is_isomorphic(a.to_networkx(), b.to_networkx(), node_match=alike))


@settings(max_examples=150)
@given(dags(max_units=4, named=False), dags(max_units=4, named=False))
def test_the_hash_tells_what_isomorphism_tells(a: ConnectivityGraph, b: ConnectivityGraph) -> None:
    assert (a.canonical_hash() == b.canonical_hash()) is same_network(a, b)


def test_the_hash_tells_all_graphs_of_three_units_apart() -> None:
    nodes = (Node("s", "stem"), *(Node(f"u{i}") for i in range(3)), Node("h", "head"))
    graphs_by_hash: dict[str, list[ConnectivityGraph]] = {}
    choices = [[s for r in range(1, i + 1) for s in itertools.combinations(range(i), r)] for i in range(1, 5)]
    for sources in itertools.product(*choices):
        if set().union(*sources) == {0, 1, 2, 3}:
            graph = ConnectivityGraph(nodes, ((), *sources))
            graphs_by_hash.setdefault(graph.canonical_hash(), []).append(graph)
    assert sum(map(len, graphs_by_hash.values())) > 50
    firsts = [group[0] for group in graphs_by_hash.values()]
    assert not any(same_network(a, b) for a, b in itertools.combinations(firsts, 2))
    assert all(same_network(group[0], graph) for group in graphs_by_hash.values() for graph in group)


def test_the_hash_tells_a_ring_of_six_from_two_rings_of_three() -> None:
    """Every unit of one has the same neighbourhood as some unit of the other, however far one looks."""
    nodes = (Node("s", "stem"), *(Node(f"u{i}") for i in range(6)), Node("h", "head"))
    two_rings = ConnectivityGraph(nodes, ((), (0,), (0, 1), (0,), (0, 3), (1, 2), (3, 4), (5, 6)))
    one_ring = ConnectivityGraph(nodes, ((), (0,), (0,), (0, 1), (2, 3), (0, 2), (1, 5), (4, 6)))
    assert not same_network(two_rings, one_ring)
    assert two_rings.canonical_hash() != one_ring.canonical_hash()


@pytest.mark.parametrize("changed", [{"kind": "transition"}, {"block": 2}, {"scale": 1}])
def test_the_hash_sees_kind_block_and_scale(changed: dict[str, object]) -> None:
    sources = ((), (0,), (0, 1), (1, 2))
    ends = (Node("s", "stem"), Node("h", "head"))
    hashes = {
        ConnectivityGraph((ends[0], Node("a"), node, ends[1]), sources).canonical_hash()
        for node in (Node("b"), Node("b", **changed))
    }
    assert len(hashes) == 2


def test_labels_of_ones_own_replace_kind_block_and_scale() -> None:
    graph = ConnectivityGraph.from_topology("dense", 3)
    assert graph.canonical_hash([1, 2, 3, 4]) == graph.canonical_hash([1, 2, 3, 4])
    assert graph.canonical_hash([1, 2, 3, 4]) != graph.canonical_hash([1, 2, 4, 3])
    assert graph.canonical_hash(["", "", "", ""]) != graph.canonical_hash()
