"""Graphs of whole networks: blocks joined by transitions, and one rule across blocks with carries."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from connsearch.graph import ConnectivityGraph, predecessors
from connsearch.graph.build import graph_across_blocks, graph_of_blocks
from connsearch.registry import Ref
from strategies import topologies


def test_two_blocks_written_out() -> None:
    graph = graph_of_blocks([("dense", 3, True), ("log_dense", 2, False)])
    assert str(graph).splitlines()[1:] == [
        "stem           stem        image",
        "block1.layer1  unit        stem",
        "block1.layer2  unit        block1.layer1",
        "block1.layer3  unit        block1.layer1, block1.layer2",
        "transition1    transition  block1.layer1 .. block1.layer3",
        "block2.layer1  unit        transition1",
        "block2.layer2  unit        transition1, block2.layer1",
        "head           head        block2.layer1, block2.layer2",
    ]
    assert [(n.block, n.scale) for n in graph.nodes] == [(1, 0)] * 4 + [(2, 1)] * 4


def test_one_rule_across_blocks_written_out() -> None:
    graph = graph_across_blocks("log_dense", [2, 2])
    assert str(graph).splitlines()[1:] == [
        "stem                        stem        image",
        "block1.layer1               unit        stem",
        "block1.layer2               unit        stem, block1.layer1",
        "block2.carry_stem           carry       stem",
        "block2.carry_block1_layer1  carry       block1.layer1",
        "block2.carry_block1_layer2  carry       block1.layer2",
        "block2.layer1               unit        block2.carry_block1_layer1, block2.carry_block1_layer2",
        "block2.layer2               unit        block2.carry_stem, block2.carry_block1_layer2, "
        "block2.layer1",
        "head                        head        block2.carry_block1_layer1, block2.layer1, block2.layer2",
    ]


@given(topologies(), st.lists(st.tuples(st.integers(2, 9), st.booleans()), min_size=1, max_size=4))
@settings(max_examples=30)
def test_each_block_is_wired_by_its_rule(topology: Ref, blocks: list[tuple[int, bool]]) -> None:
    graph = graph_of_blocks([(topology, n, entry) for n, entry in blocks])
    position = 0
    for number, (n_layers, entry) in enumerate(blocks, start=1):
        first = position + entry  # the block's node 0
        assert not entry or graph.sources[first] == (position,)
        rule = predecessors(topology, n_layers - entry)
        for j, sources in enumerate(rule, start=1):
            assert graph.sources[first + j] == tuple(first + i for i in sources)
        names = [f"block{number}.layer{i}" for i in range(1, n_layers + 1)]
        assert [node.name for node in graph.nodes[position + 1 : position + 1 + n_layers]] == names
        position += n_layers + 1
    assert graph.nodes[position].kind == "head"
    assert len(graph) == position + 1


@given(topologies(), st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=30)
def test_carries_change_nothing_but_resolution(topology: Ref, depths: list[int]) -> None:
    """Without its carries, the graph is the rule; with them, no edge but a carry's changes the scale."""
    graph = graph_across_blocks(topology, depths)

    def origin(index: int) -> int:
        return origin(graph.sources[index][0]) if graph.nodes[index].kind == "carry" else index

    layers = [i for i, node in enumerate(graph.nodes) if node.kind != "carry"]
    rule = [{layers.index(origin(s)) for s in graph.sources[i]} for i in layers[1:]]
    assert rule == [set(sources) for sources in predecessors(topology, sum(depths))]
    for source, target in graph.edges():
        steps = graph.nodes[target].scale - graph.nodes[source].scale
        assert steps == (graph.nodes[target].kind == "carry")
    carried = [(origin(i), node.scale) for i, node in enumerate(graph.nodes) if node.kind == "carry"]
    assert len(set(carried)) == len(carried)  # once for each change of scale, shared by all readers
    assert [
        sum(n.kind == "unit" and n.block == b for n in graph.nodes) for b in range(1, len(depths) + 1)
    ] == depths


@given(st.lists(st.tuples(topologies(), st.integers(2, 9), st.booleans()), min_size=1, max_size=4))
def test_blocks_that_are_not_checked_again_would_pass(blocks: list[tuple[Ref, int, bool]]) -> None:
    graph = graph_of_blocks(blocks)
    assert ConnectivityGraph(graph.nodes, graph.sources) == graph
