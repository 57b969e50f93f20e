"""Networks without some connections: what goes, what stays the same, what cannot go."""

from __future__ import annotations

from typing import Any

import pytest

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import preset
from connsearch.spec.pruned import Pruner


def network(
    aggregation: str = "depthwise", topology: str = "dense", depths=(3, 2), **settings: Any
) -> NetworkSpec:
    block = {"topology": topology, "aggregation": aggregation, "unit": "conv"}
    blocks = [{**block, "n_layers": n, "width": 4 * 2**i} for i, n in enumerate(depths)]
    return NetworkSpec.from_dict(
        {"input": {"channels": 3, "height": 8, "width": 8}, "blocks": blocks, **settings}
    )


def reads(spec: NetworkSpec) -> dict[str, list[str]]:
    graph = spec.graph()
    names = [node.name for node in graph.nodes]
    return {name: [names[i] for i in sources] for name, sources in zip(names, graph.sources, strict=True)}


def test_an_edge_is_removed_and_all_else_stays() -> None:
    spec = network()
    left = Pruner(spec).without({("stem", "block1.layer3")})
    expected = reads(spec)
    expected["block1.layer3"].remove("stem")
    assert reads(left) == expected
    assert left.name == "network-pruned"
    assert [node.chain for node in resolve(left).nodes] == [node.chain for node in resolve(spec).nodes]
    before, after = network_cost(spec), network_cost(left)
    assert before.params - after.params == 2 * 4  # a weight and a bias for each channel
    assert before.aggregation_macs - after.aggregation_macs == 4 * 8 * 8


def test_what_is_left_survives_a_file(tmp_path) -> None:
    left = Pruner(network("routed")).without({("stem", "block1.layer3"), ("stem", "block1.layer2")})
    path = tmp_path / "left.toml"
    path.write_text(left.to_toml())
    assert NetworkSpec.from_toml(path) == left


def test_a_node_that_nothing_reads_goes_with_all_that_it_read() -> None:
    spec = network(depths=(3, 2))
    removed = {("block1.layer1", reader) for reader in ("block1.layer2", "block1.layer3", "transition1")}
    left = Pruner(spec).without(removed)
    assert "block1.layer1" not in reads(left)
    assert network_cost(left).n_layers == 4
    assert network_cost(left).n_edges == network_cost(spec).n_edges - 3 - 1


def test_a_single_source_that_was_weighted_still_is() -> None:
    for aggregation in ("depthwise", "weighted", "routed", "depthwise(form=paper)"):
        left = Pruner(network(aggregation)).without({("stem", "block1.layer2")})
        node = next(n for n in resolve(left).nodes if n.node.name == "block1.layer2")
        assert node.aggregation is not None
        assert dict(node.aggregation.params)["single"] is True
        assert len(node.sources) == 1
    left = Pruner(network("gated")).without({("stem", "block1.layer2")})
    assert next(n for n in resolve(left).nodes if n.node.name == "block1.layer2").aggregation is None


def test_parts_are_shared_by_nodes_alike_and_keep_what_they_said() -> None:
    left = Pruner(network()).without({("stem", "block1.layer2"), ("transition1", "block2.layer2")})
    parts = {node.name: node.part for node in left.graph().nodes if node.part}
    assert parts == {"block1.layer2": "part-pruned", "block2.layer2": "part-pruned"}
    assert len(left.parts) == 1
    spec = preset("multipath-resnet-20-2")
    joins = [node.name for node in spec.graph().nodes if node.part == "connected" and node.block > 1]
    assert joins
    assert all(Pruner(spec).least_sources(name) == 2 for name in joins)


@pytest.mark.parametrize(
    "transition", ["pool", "conv", "pool(kind=max, bias=true)", "conv(kernel=5, activation=relu)"]
)
def test_a_transition_that_compresses_keeps_its_width(transition: str) -> None:
    spec = network("concat", depths=(4, 2), compression=0.5, transition=transition)
    before = next(n for n in resolve(spec).nodes if n.node.kind == "transition")
    left = Pruner(spec).without({("block1.layer2", "transition1"), ("stem", "transition1")})
    after = next(n for n in resolve(left).nodes if n.node.kind == "transition")
    assert after.out_shape == before.out_shape
    assert after.in_shape.channels == before.in_shape.channels - 8
    assert after.chain[1:] != before.chain[1:]


def test_a_block_that_loses_all_its_nodes_goes() -> None:
    graph = ConnectivityGraph.from_networkx(_three_blocks())
    spec = NetworkSpec.from_dict({
        "graph": graph, "input": {"channels": 3, "height": 8, "width": 8},
        "blocks": [{"aggregation": "weighted", "unit": "conv", "width": 4}] * 3,
    })  # fmt: skip
    left = Pruner(spec).without({("b", "c")})
    assert len(left.blocks) == 2
    assert {node.name: node.block for node in left.graph().nodes} == {"stem": 1, "a": 1, "c": 2, "head": 2}


def _three_blocks():
    import networkx as nx

    graph = nx.DiGraph()
    for name, kind, block in [
        ("stem", "stem", 1),
        ("a", "unit", 1),
        ("b", "unit", 2),
        ("c", "unit", 3),
        ("head", "head", 3),
    ]:
        graph.add_node(name, kind=kind, block=block, scale=0)
    graph.add_edges_from([("stem", "a"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "head")])
    return graph


@pytest.mark.parametrize(
    ("spec", "reader", "reason"),
    [
        (network("sum"), "block1.layer3", "'sum' does not weigh its sources"),
        (network(), "block1.layer1", "reads a single source"),
        (network("concat", compression=0.5, transition="pool"), "transition1", ""),
        (network("concat", head="pool"), "head", ""),
        (network("concat"), "block1.layer3", ""),
    ],
    ids=["sum", "single", "compressing", "head", "concat"],
)
def test_obstacles(spec: NetworkSpec, reader: str, reason: str) -> None:
    found = Pruner(spec).obstacle(reader)
    assert found == "" if not reason else reason in found


def test_a_concatenation_read_in_groups_is_left_alone() -> None:
    spec = network("concat", topology="dense")
    grouped = spec.model_copy(
        update={"blocks": tuple(b.model_copy(update={"unit": "conv(groups=2)"}) for b in spec.blocks)}
    )
    with pytest.raises(
        SpecError, match=r"\('stem', 'block1.layer3'\) cannot be removed: no convolution reads all"
    ):
        Pruner(grouped).without({("stem", "block1.layer3")})


def test_a_line_as_wide_as_what_it_reads_is_left_alone() -> None:
    spec = NetworkSpec.from_dict({
        "input": {"channels": 3, "height": 8, "width": 8},
        "blocks": [{"aggregation": "concat", "unit": "conv", "width": 4}],
        "parts": [{"name": "up", "line": "deconv(stride=1, keep=true)"}],
        "graph": {"nodes": [{"name": "stem", "kind": "stem"}, "a", {"name": "up", "part": "up"},
                            {"name": "head", "kind": "head"}],
                  "edges": [["stem", "a"], ["stem", "up"], ["a", "up"], ["up", "head"]]},
    })  # fmt: skip
    assert Pruner(spec).obstacle("up") == "what it gives out is as wide as what it reads"


@pytest.mark.parametrize(
    ("removed", "match"),
    [
        ({("stem", "block1.layr3")}, r"no node 'block1.layr3'. Did you mean 'block1.layer3'"),
        ({("block1.layer3", "block1.layer2")}, r"no edge \('block1.layer3', 'block1.layer2'\) to remove"),
        ({("stem", "block1.layer1")}, "cannot be removed: it reads a single source"),
        ({("stem", "block1.layer2"), ("block1.layer1", "block1.layer2")}, "would keep 0 sources, of 1"),
    ],
)
def test_what_cannot_be_removed_is_an_error(removed: set[tuple[str, str]], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        Pruner(network()).without(removed)


def test_networks_that_drop_connections_at_random_are_refused() -> None:
    spec = network("sum", topology="dense", drop="stochastic_depth")
    with pytest.raises(SpecError, match="drops connections at random by 'stochastic_depth'"):
        Pruner(spec)


def test_weak_edges_are_those_below_but_a_reader_keeps_its_strongest() -> None:
    pruner = Pruner(network(depths=(3,)))
    strengths = {("stem", "block1.layer2"): 0.1, ("block1.layer1", "block1.layer2"): 1.0,
                 ("stem", "block1.layer3"): 0.2, ("block1.layer1", "block1.layer3"): 0.3,
                 ("block1.layer2", "block1.layer3"): 0.1}  # fmt: skip
    assert pruner.weak(strengths, 0.1) == set()
    assert pruner.weak(strengths, 0.15) == {("stem", "block1.layer2"), ("block1.layer2", "block1.layer3")}
    weak = pruner.weak(strengths, 0.5)
    assert weak == {("stem", "block1.layer2"), ("block1.layer2", "block1.layer3"), ("stem", "block1.layer3")}
    assert Pruner(network(depths=(3,))).weak(dict.fromkeys(strengths, 0.0), 0.5) == {
        ("stem", "block1.layer2"), ("stem", "block1.layer3"), ("block1.layer1", "block1.layer3"),
    }  # fmt: skip


def test_an_edge_without_a_strength_is_not_weak() -> None:
    assert Pruner(network()).weak({}, 1.0) == set()
