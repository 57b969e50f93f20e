"""NetworkSpec as a value: files, equality, hash, what it refuses and in which words."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.spec import BlockConfig, NetworkSpec, resolve
from connsearch.spec.presets import preset
from strategies import dags, specs

BLOCK = {"topology": "dense", "n_layers": 2}
GRAPH = ConnectivityGraph.from_edges([("s", "a"), ("s", "b"), ("a", "b"), ("b", "h")])


# ---- files -----------------------------------------------------------------------------------------------


@given(specs())
def test_toml_and_back(spec: NetworkSpec) -> None:
    again = NetworkSpec.from_dict(tomllib.loads(spec.to_toml()))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_toml() == spec.to_toml()


def test_an_edge_is_a_line() -> None:
    graph = ConnectivityGraph.from_edges([("s", 'a"],['), ('a"],[', "h")])
    text = NetworkSpec.from_graph(graph).to_toml()
    assert text.endswith('edges = [\n    ["s", "a\\"],["],\n    ["a\\"],[", "h"],\n]\n')
    assert NetworkSpec.from_dict(tomllib.loads(text)).graph() == graph


@given(specs())
def test_json_and_plain_data_and_back(spec: NetworkSpec) -> None:
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert json.loads(json.dumps(spec.to_dict())) == spec.to_dict()


def test_a_file_and_back(tmp_path: Path) -> None:
    spec = NetworkSpec(blocks=[BLOCK], name="one")
    (tmp_path / "net.toml").write_text(spec.to_toml(), encoding="utf-8")
    assert NetworkSpec.from_toml(tmp_path / "net.toml") == spec


def test_only_what_differs_from_the_defaults_is_written() -> None:
    spec = NetworkSpec(
        blocks=[{**BLOCK, "aggregation": "depthwise(form=paper)", "width": 16}],
        input={"channels": 1, "height": 32, "width": 32},
    )
    assert str(spec) == (
        "schema = 1\n"
        "blocks = [\n"
        '    { topology = "dense", aggregation = { name = "depthwise", form = "paper" }, n_layers = 2 },\n'
        "]\n"
        "\n"
        "[input]\n"
        "channels = 1"
    )


def test_the_schema_of_the_file_is_shipped_as_json_schema() -> None:
    schema = NetworkSpec.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["blocks"]
    assert {"schema", "graph", "blocks", "input", "stem"} <= set(schema["properties"])
    assert set(schema["$defs"]) == {"BlockConfig", "InputConfig", "PartConfig"}
    json.dumps(schema)


# ---- equality --------------------------------------------------------------------------------------------


@given(specs())
def test_equal_values_are_one_key(spec: NetworkSpec) -> None:
    again = NetworkSpec(**{name: getattr(spec, name) for name in spec.model_fields_set})
    assert again == spec
    assert len({spec, again}) == 1
    assert spec.model_copy(update={"name": "other"}) != spec


def test_two_spellings_are_one_network() -> None:
    short = NetworkSpec(blocks=[{"topology": "sparse", "n_layers": 3, "unit": "basic"}])
    table = {"name": "sparse", "base": 2}
    long = NetworkSpec(blocks=[BlockConfig(topology=table, n_layers=3, unit="basic(expansion=1)", width=16)])
    assert short == long
    assert hash(short) == hash(long)
    assert resolve(short).canonical_hash() == resolve(long).canonical_hash()


def test_topologies_that_agree_at_a_depth_have_one_plan_hash() -> None:
    def plan_hash(topology: str, n_layers: int) -> str:
        return resolve(NetworkSpec(blocks=[{"topology": topology, "n_layers": n_layers}])).canonical_hash()

    assert plan_hash("log_dense", 9) == plan_hash("sparse(base=2)", 9) == plan_hash("sparse", 9)
    assert plan_hash("dense", 1) == plan_hash("log_dense", 1)
    assert plan_hash("dense", 9) != plan_hash("log_dense", 9)


def test_the_plan_hash_of_a_graph_written_by_hand_is_that_of_its_topology() -> None:
    named = NetworkSpec(blocks=[BLOCK])
    edges = [("x", "y"), ("x", "z"), ("y", "z"), ("x", "out"), ("y", "out"), ("z", "out")]
    by_hand = NetworkSpec.from_graph(ConnectivityGraph.from_edges(edges))
    assert resolve(by_hand).canonical_hash() == resolve(named).canonical_hash()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [{**BLOCK, "width": 17}]},
        {"blocks": [{**BLOCK, "aggregation": "mean"}]},
        {"blocks": [{**BLOCK, "unit": "conv"}]},
        {"blocks": [{**BLOCK, "unit": "basic(activation=elu)"}]},
        {"n_classes": 11},
        {"input": {"height": 31}},
        {"stem": "conv(kernel=5)"},
        {"head": "pool(activation=elu)"},
    ],
    ids=str,
)
def test_the_plan_hash_sees_what_changes_the_network(change: dict[str, Any]) -> None:
    base = {"blocks": [BLOCK]}
    hashes = {resolve(NetworkSpec(**values)).canonical_hash() for values in (base, base | change)}
    assert len(hashes) == 2


def test_the_name_is_no_part_of_the_plan() -> None:
    plans = [resolve(NetworkSpec(blocks=[BLOCK], name=name)) for name in ("one", "two")]
    assert plans[0].canonical_hash() == plans[1].canonical_hash()


# ---- changing it -----------------------------------------------------------------------------------------


def test_other_widths_and_depths() -> None:
    spec = NetworkSpec(blocks=[BLOCK, {**BLOCK, "width": 32}])
    assert spec.widths == (16, 32)
    assert spec.with_widths([5, 6]) == NetworkSpec(blocks=[{**BLOCK, "width": 5}, {**BLOCK, "width": 6}])
    deeper = NetworkSpec(blocks=[{**BLOCK, "n_layers": 7}, {**BLOCK, "width": 32}])
    assert spec.with_depths((7, 2)) == deeper
    assert spec == NetworkSpec(blocks=[BLOCK, {**BLOCK, "width": 32}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3], r"2 blocks need as many values of width, got \[3\]"),
        ([3, 0], r"blocks\[1\]\.width: must be an integer of at least 1, got 0"),
        ([2.5, 3], r"blocks\[0\]\.width: must be an integer of at least 1, got 2\.5"),
        (["3", 3], r"blocks\[0\]\.width: must be an integer of at least 1, got '3'"),
    ],
)
def test_wrong_widths_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        NetworkSpec(blocks=[BLOCK, BLOCK]).with_widths(values)


def test_a_given_graph_has_the_depth_it_has() -> None:
    with pytest.raises(SpecError, match=r"the graph is given: it has the depth it has"):
        NetworkSpec.from_graph(GRAPH).with_depths([3])
    assert NetworkSpec.from_graph(GRAPH).with_widths([3]).widths == (3,)


# ---- graphs of one's own -----------------------------------------------------------------------------------


@given(dags())
def test_any_graph_with_a_stem_and_a_head_is_a_network(graph: ConnectivityGraph) -> None:
    spec = NetworkSpec.from_graph(graph, aggregation="concat", width=3, n_classes=2)
    assert spec.graph() == graph
    assert [plan.node for plan in resolve(spec).nodes] == list(graph.nodes)


def test_a_graph_in_a_file_is_read_back_with_its_attributes() -> None:
    graph = NetworkSpec(scope="global", blocks=[BLOCK, BLOCK]).graph()
    spec = NetworkSpec.from_graph(graph)
    assert len(spec.blocks) == 2
    assert NetworkSpec.from_dict(spec.to_dict()).graph() == graph


def test_nodes_in_a_file_may_be_bare_names() -> None:
    spec = NetworkSpec.from_dict(
        {"blocks": [{}], "graph": {"nodes": ["s", "a", "h"], "edges": [["s", "a"], ["a", "h"], ["s", "h"]]}}
    )
    assert [node.kind for node in spec.graph().nodes] == ["stem", "unit", "head"]
    assert spec.graph().sources == ((), (0,), (0, 1))


# ---- what is refused -------------------------------------------------------------------------------------


def table(nodes: list[Any], edges: list[Any]) -> dict[str, Any]:
    return {"blocks": [{}], "graph": {"nodes": nodes, "edges": edges}}


SAH = [["s", "a"], ["a", "h"]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "blocks: is missing"),
        ({"blocks": []}, "blocks: a network needs at least one block"),
        ({"blocks": [{}]}, "blocks[0].n_layers must be at least 1, unless the graph is given"),
        ({"blocks": [BLOCK, {"n_layers": -1}]},
         "blocks[1].n_layers: should be greater than or equal to 0, got -1"),
        ({"blocks": [{"n_layers": 1, "entry_unit": True}]},
         "blocks[0].n_layers must be at least 2, as entry_unit takes the first"),
        ({"blocks": [{**BLOCK, "width": 0}]}, "blocks[0].width: should be greater than or equal to 1, got 0"),
        ({"blocks": [{**BLOCK, "width": 8.0}]}, "blocks[0].width: must be an integer, got 8.0"),
        ({"blocks": [{**BLOCK, "entry_unit": 1}]}, "blocks[0].entry_unit: must be true or false, got 1"),
        ({"blocks": [{**BLOCK, "topology": "logdense"}]},
         "blocks[0].topology: unknown topology 'logdense'. Did you mean 'log_dense'? Known: chain, dense, "
         "evenly_spaced, every_other, half, harmonic, log_dense, loglog_dense, nearest, random_dag, sparse."),
        ({"blocks": [{**BLOCK, "aggregation": {"name": "gated", "bias": "1"}}]},
         "blocks[0].aggregation: aggregation 'gated': bias must be float, got '1'"),
        ({"blocks": [BLOCK], "scope": "globl"}, "scope: should be 'block' or 'global', got 'globl'"),
        ({"blocks": [BLOCK], "scoep": "global"},
         "scoep: unknown key. Did you mean 'scope'? Known: blocks, carry, compression, drop, graph, head, "
         "hubs, input, layout, n_classes, name, parts, schema, scope, stem, stem_ratio, transition, up."),
        ({"blocks": [BLOCK], "schema": 2}, "schema: should be 1, got 2"),
        ({"blocks": [BLOCK], "compression": 1.5}, "compression: should be less than or equal to 1, got 1.5"),
        ({"blocks": [BLOCK], "n_classes": 0}, "n_classes: should be greater than or equal to 1, got 0"),
        ({"blocks": [BLOCK], "input": {"height": 0}},
         "input.height: should be greater than or equal to 1, got 0"),
        ({"blocks": [BLOCK, {**BLOCK, "topology": "chain"}], "scope": "global"},
         "scope 'global' has one topology for all blocks: give each block the same"),
        ({"blocks": [{**BLOCK, "entry_unit": True}], "scope": "global"}, "entry_unit needs scope 'block'"),
        (table(["s", "a", "h"], SAH) | {"scope": "global"},
         "scope 'global' makes the graph itself: leave out scope or graph"),
        (table(["s", "a", "h"], SAH) | {"blocks": [{"topology": "dense"}]},
         "blocks[0].topology and graph exclude each other: leave one out"),
        (table(["s", "a", "h"], SAH) | {"blocks": [{"n_layers": 1}]},
         "blocks[0].n_layers and graph exclude each other: leave one out"),
        (table(["s", {"name": "a", "block": 2}, "h"], SAH), "graph: node 'a' is in block 2 of 1 blocks"),
        (table(["s", "a", {"name": "h", "kind": "unit"}], SAH), "graph: a network needs one head, got none"),
        (table([{"name": "s", "kind": "stem"}, "a", {"name": "t", "kind": "stem"}, "h"], [*SAH, ["t", "h"]]),
         "graph: a network needs one stem, got s, t"),
        (table(["s", {"name": "a", "part": "joint"}, "h"], SAH) | {"parts": [{"name": "join"}]},
         "graph: node 'a' has an unknown part 'joint'. Did you mean 'join'? Known: join."),
        (table(["s", "a", "h"], SAH) | {"parts": [{"name": "a"}, {"name": "a"}]},
         "parts: 'a' is given twice: rename one"),
        (table(["s", "a", "h"], SAH) | {"parts": [{"name": "a", "line": "identity", "unit": "basic"}]},
         "parts[0]: part 'a': line and unit exclude each other: leave one out"),
        ({"blocks": [BLOCK], "parts": [{"name": "a"}]},
         "parts are for nodes of a given graph: give one, or leave out parts"),
        (table([{"name": "s", "kind": "stem"}, {"name": "t", "kind": "stem"}, "a", "h"], [*SAH, ["t", "a"]]),
         "graph: a network needs one stem, got s, t"),
        (table(["s", "h"], [["s", "a"]]), "graph: edge ('s', 'a') joins a node that is not listed"),
        (table(["s", "h"], [["s", "h"], ["s", "h"]]), "graph: edge ('s', 'h') is given twice: remove one"),
        (table(["s", "h", "s"], [["s", "h"]]), "graph: node 's' is listed twice: remove one"),
        (table(["s", "a", "h"], [*SAH, ["h", "s"]]),
         "graph: the graph has a cycle: s -> a -> h -> s; remove one of its edges"),
        (table(["s", {"name": "a", "blok": 1}, "h"], SAH),
         "graph: node 'a': unknown attribute 'blok'. Did you mean 'block'? "
         "Known: block, kind, part, path, scale."),
        ({"blocks": [{}], "graph": {"nodes": []}},
         "graph: a graph needs a list of edges, got None"),
        ({"blocks": [{}], "graph": 3}, "graph: a graph is a table with nodes and edges, got 3"),
        (table(["s", {"name": "a", "self": 1}, "h"], SAH),
         "graph: node 'a': unknown attribute 'self'. Known: block, kind, part, path, scale."),
        (table([{"kind": "stem"}], []),
         "graph: nodes are names or tables with a name, got one without 'name'"),
        (table(["s"], [["s"]]), "graph: an edge is a list of two names, source and target, got ['s']"),
        (table(["s", "a", "h"], ["sa", ["a", "h"]]),
         "graph: an edge is a list of two names, source and target, got 'sa'"),
        (table(["s", "a", "h"], SAH) | {"blocks": [{}, {}]},
         "graph: no node is in block 2: remove blocks[1]"),
        ({"blocks": [{}], "graph": {"nodes": [], "edge": []}},
         "graph: unknown key 'edge'. Did you mean 'edges'? Known: edges, nodes."),
    ],
)  # fmt: skip
def test_a_wrong_description_is_one_line(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError, match=r".") as caught:
        NetworkSpec.from_dict(data, source="net.toml")
    assert str(caught.value) == f"net.toml: {expected}"


def equal_channels(aggregation: str, *numbers: int) -> str:
    got = ", ".join(map(str, numbers))
    needs = f"aggregation '{aggregation}' needs sources of equal channels, got {got}"
    return f"{needs}: make them equal or use 'concat'"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"stem_ratio": 2, "blocks": [{"topology": "dense", "n_layers": 2, "width": 6}]},
         "block1.layer2: " + equal_channels("sum", 12, 6)),
        ({"blocks": [BLOCK, {**BLOCK, "aggregation": "depthwise(form=paper)"}], "compression": 0.5},
         "block2.layer2: " + equal_channels("depthwise(form=paper)", 8, 16)),
        ({"blocks": [BLOCK], "input": {"height": 1, "width": 1}, "head": "pool", "stem": "conv"}, ""),
        ({"blocks": [BLOCK, BLOCK], "input": {"height": 1, "width": 5}, "transition": "pool"},
         "transition1: no pixel is left of 1x5: use fewer blocks or a larger input"),
        ({"blocks": [BLOCK, BLOCK], "input": {"height": 2, "width": 2}, "transition": "pool"}, ""),
        ({"blocks": [{**BLOCK, "unit": "basic(norm=instance)"}], "input": {"height": 1, "width": 1}},
         "block1.layer1: norm 'instance' of a single value is always 0: use a larger input or norm 'batch'"),
        ({"blocks": [{**BLOCK, "unit": "basic(norm=instance)"}], "input": {"height": 1, "width": 2}}, ""),
        ({"blocks": [{**BLOCK, "unit": "basic(norm=layer)", "width": 1}], "input": {"height": 1, "width": 1}},
         "block1.layer1: norm 'layer' of a single value is always 0: use a larger input or norm 'batch'"),
        ({"blocks": [{**BLOCK, "unit": "basic(norm=layer)", "width": 2}], "input": {"height": 1, "width": 1}},
         ""),
        ({"blocks": [{**BLOCK, "unit": "basic(groups=3)"}]},
         "blocks[0].unit: 16 channels do not divide into 3 groups: change width or groups"),
        ({"blocks": [{**BLOCK, "unit": "basic(groups=4)"}]}, ""),
        ({"blocks": [{**BLOCK, "unit": "conv(groups=0)"}]},
         "blocks[0].unit: 16 channels do not divide into 0 groups: change width or groups"),
        ({"blocks": [{**BLOCK, "unit": "basic(kernel=2)"}]},
         "blocks[0].unit: kernel must be odd and at least 1, got 2"),
        ({"blocks": [{**BLOCK, "unit": "separable(kernel=-1)"}]},
         "blocks[0].unit: kernel must be odd and at least 1, got -1"),
        ({"blocks": [{**BLOCK, "unit": "bottleneck(expansion=0)"}]},
         "blocks[0].unit: expansion must be at least 1, got 0"),
        ({"blocks": [{**BLOCK, "unit": "dense_bottleneck(inner=0)"}]},
         "blocks[0].unit: inner must be at least 1, got 0"),
        ({"blocks": [{**BLOCK, "unit": "basic(norm=bach)"}]},
         "blocks[0].unit: unknown norm 'bach'. Did you mean 'batch'? Known: batch, channel, instance, layer, "
         "none."),
        ({"blocks": [{**BLOCK, "unit": "basic(activation=rely)"}]},
         "blocks[0].unit: unknown activation 'rely'. Did you mean 'relu'? Known: elu, gelu, leaky_relu, "
         "mish, none, relu, silu."),
        ({"blocks": [{**BLOCK, "unit": "conv(order=pro)"}]},
         "blocks[0].unit: unknown order 'pro'. Did you mean 'pre'? Known: post, pre."),
        ({"blocks": [{**BLOCK, "aggregation": "depthwise(form=papr)"}]},
         "blocks[0].aggregation: aggregation 'depthwise': unknown form 'papr'. Did you mean 'paper'? "
         "Known: normalized, paper."),
        ({"blocks": [{**BLOCK, "aggregation": "routed(hidden=0)"}]},
         "blocks[0].aggregation: aggregation 'routed': hidden must be at least 1, got 0"),
        ({"blocks": [{**BLOCK, "topology": "sparse(base=1)"}]},
         "blocks[0].topology: topology 'sparse': base must be at least 2, got 1"),
        ({"blocks": [{**BLOCK, "topology": "chain"}], "drop": "stochastic_depth"},
         "drop: 'stochastic_depth' finds nothing to drop: no node adds or averages several sources"),
        ({"blocks": [BLOCK], "drop": "swapout(survival=2.0)"},
         "drop: drop 'swapout': survival must lie between 0 and 1, got 2.0"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused(values: dict[str, Any], expected: str) -> None:
    """An empty message: the neighbour of a bound, which is accepted."""
    if not expected:
        assert resolve(NetworkSpec(**values))
        return
    with pytest.raises(SpecError, match=r".") as caught:
        resolve(NetworkSpec(**values))
    assert str(caught.value) == expected


def test_sources_of_different_resolution_are_refused() -> None:
    graph = ConnectivityGraph.from_networkx(_skipping_a_transition())
    with pytest.raises(
        SpecError, match=r"^b: its sources differ in resolution: 32x32, 16x16; carry them to one"
    ):
        resolve(NetworkSpec.from_graph(graph))


def _skipping_a_transition() -> Any:
    import networkx as nx

    graph = nx.DiGraph([("s", "a"), ("a", "t"), ("a", "b"), ("t", "b"), ("b", "h")])
    graph.nodes["t"].update(kind="transition", block=2, scale=1)
    graph.nodes["b"].update(block=2, scale=1)
    graph.nodes["h"].update(block=2, scale=1)
    return graph


@pytest.mark.parametrize("kind", ["transition", "carry"])
def test_what_changes_resolution_reads_as_the_block_it_leaves(kind: str) -> None:
    graph = ConnectivityGraph(
        (
            Node("s", "stem"),
            Node("a"),
            Node("t", kind, 2, 1),
            Node("b", "unit", 2, 1),
            Node("h", "head", 2, 1),
        ),
        ((), (0,), (0, 1), (2,), (2, 3)),
    )
    blocks = [{"aggregation": "mean"}, {"aggregation": "concat"}]
    plans = {plan.node.name: plan for plan in resolve(NetworkSpec(graph=graph, blocks=blocks)).nodes}
    assert (plans["t"].aggregation, plans["h"].aggregation) == (("mean", ()), ("concat", ()))


def test_the_canonical_hash_minds_the_order_of_sources_where_it_matters() -> None:
    """Highway gates fold their sources oldest first: the two are different functions."""

    def hashed(aggregation: str, order: str) -> str:
        units = {"a": "conv(kernel=3)", "b": "conv(kernel=5)"}
        nodes = [{"name": "s", "kind": "stem"}, *({"name": n, "part": n} for n in order), "j"]
        nodes += [{"name": "h", "kind": "head"}]
        edges = [["s", "a"], ["s", "b"], ["a", "j"], ["b", "j"], ["j", "h"]]
        spec = NetworkSpec.from_dict(
            {
                "graph": {"nodes": nodes, "edges": edges},
                "blocks": [{"aggregation": aggregation}],
                "parts": [{"name": name, "unit": unit} for name, unit in units.items()],
            }
        )
        return resolve(spec).canonical_hash()

    assert hashed("sum", "ab") == hashed("sum", "ba")
    assert hashed("gated", "ab") != hashed("gated", "ba")


def test_a_full_record_of_a_network_with_its_own_graph_is_read_again() -> None:
    spec = NetworkSpec.from_dict(table(["s", "a", "h"], SAH))
    assert NetworkSpec.from_dict(spec.to_full_dict()) == spec


def test_the_canonical_hash_tells_what_training_drops_and_which_head_is_the_networks_own() -> None:
    plain = preset("resnet-20")
    dropped = plain.model_copy(update={"drop": "stochastic_depth"})
    assert resolve(plain).canonical_hash() != resolve(dropped).canonical_hash()

    def hashed(*heads: str) -> str:
        nodes = [{"name": "s", "kind": "stem"}, "a", *({"name": h, "kind": "head"} for h in heads)]
        edges = [["s", "a"], ["s", "early"], ["a", "late"]]
        spec = NetworkSpec.from_dict({"graph": {"nodes": nodes, "edges": edges}, "blocks": [{}]})
        return resolve(spec).canonical_hash()

    assert hashed("early", "late") != hashed("late", "early")


def test_a_drop_says_when_no_unit_is_added() -> None:
    spec = preset("dpn-92").model_copy(update={"drop": "stochastic_depth"})
    with pytest.raises(SpecError, match=r"^drop: 'stochastic_depth' finds nothing .* what a unit gives out$"):
        resolve(spec)
