from __future__ import annotations

import re

import pytest

from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.outline import SCREEN, WIDTH, outline
from connsearch.spec.presets import preset

NAMES = ["resnet-v2-1001", "mixnet-250", "densenet-121", "log-densenet-v1-52-24", "fractalnet-40", "dpn-92"]


@pytest.mark.parametrize("n_layers", [3, SCREEN - 2])
def test_a_graph_that_fits_a_screen_stays_as_it_is(n_layers: int) -> None:
    graph = ConnectivityGraph.from_topology("dense", n_layers, head=True)
    assert outline(graph) == str(graph)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_shown_or_counted(name: str) -> None:
    graph = preset(name).graph()
    shown, left_out = outline(graph).splitlines()[1:], 0
    for line in shown:
        if match := re.fullmatch(r"\.\.\. +(\d+) more like (?:it|the (\d+) above)", line):
            left_out += int(match[1]) * int(match[2] or 1)
    names = [line.split()[0] for line in shown if not line.startswith("...")]
    assert len(names) + left_out == len(graph)
    assert names == sorted(names, key=graph.index)
    assert max(map(len, shown)) <= WIDTH


def test_a_node_that_reads_all_since_another_repeats() -> None:
    lines = outline(preset("densenet-121").graph()).splitlines()
    assert lines[6:9] == [
        "block2.layer1   unit        transition1",
        "...             10 more like it",
        "block2.layer12  unit        transition1 .. block2.layer11",
    ]


def test_what_repeats_starts_with_its_first_node() -> None:
    lines = outline(preset("mixnet-250").graph()).splitlines()
    assert [line.split()[0] for line in lines[2:9]] == [
        *(f"block1.layer1{part}" for part in ("_kept", "_last", "_inner", "_added", "_outer", "")),
        "...",
    ]
    assert lines[8].endswith("  39 more like the 6 above")


def test_nodes_of_other_blocks_are_not_alike() -> None:
    units = [Node(f"block{block}.layer{i}", block=block) for block in (1, 2) for i in range(1, 31)]
    graph = ConnectivityGraph((Node("stem", "stem"), *units), ((), *((i,) for i in range(60))))
    shown = [line.split()[0] for line in outline(graph).splitlines()[1:]]
    assert shown == ["stem", *(f"block{b}.layer{i}" if i else "..." for b in (1, 2) for i in (1, 0, 30))]


def test_many_sources_are_counted() -> None:
    graph = ConnectivityGraph.from_topology("every_other", 60, head=True)
    last = outline(graph).splitlines()[-1]
    assert last.endswith(f", ... ({len(graph.sources[-1])} in all)")
    assert len(last) <= WIDTH < len(str(graph).splitlines()[-1])
