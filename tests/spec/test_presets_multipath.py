"""Multi-path networks as specifications: which graphs they are, what routing costs, what is refused."""

from __future__ import annotations

import pytest

from connsearch.cost import edge_costs, network_cost, node_costs
from connsearch.errors import SpecError
from connsearch.graph.build import GraphBuilder
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import preset
from connsearch.spec.presets.multipath import multipath, multipath_graph

SMALL = {"height": 12, "width": 8}
each_number = pytest.mark.parametrize("n", [2, 3, 5])


def small(n: int, **values: object) -> NetworkSpec:
    return multipath(n, depths=(1, 2), widths=(4, 6), hidden=5, input=SMALL, **values)


# ---- graphs --------------------------------------------------------------------------------------------


@each_number
@pytest.mark.parametrize("base", ["plain", "residual"])
@pytest.mark.parametrize("routing", ["connection", "prediction"])
def test_paths_are_of_one_kind_and_meet_only_where_they_are_routed(n: int, base: str, routing: str) -> None:
    graph = multipath_graph(n, (2, 3), base=base, routing=routing)
    inner = [node for node in graph.nodes if node.kind not in ("stem", "head")]
    assert {node.path for node in inner} == set(range(n))
    names = [{node.name.replace(f"path{p}", "path") for node in inner if node.path == p} for p in range(n)]
    assert all(other == names[0] for other in names)
    crossing = {
        graph.nodes[target].part
        for source, target in graph.edges()
        if graph.nodes[source].kind != "stem" and graph.nodes[source].path != graph.nodes[target].path
    }
    assert crossing == {"connected" if routing == "connection" else "prediction", "average"}


@each_number
def test_routing_is_from_one_to_n_then_n_to_n_then_n_to_one(n: int) -> None:
    graph = small(n).graph()
    degrees = graph.in_degrees()
    for path in range(n):
        assert degrees[f"block1.path{path}.routed"] == 1
        assert degrees[f"block2.path{path}.routed"] == n
    assert degrees["head"] == n
    plan = resolve(small(n)).nodes
    assert len(next(p for p in plan if p.node.name == "block1.path0.routed").slots) == 1
    assert next(p for p in plan if p.node.kind == "head").aggregation.name == "mean"


@each_number
@pytest.mark.parametrize("base", ["plain", "residual"])
def test_cross_prediction_has_a_convolution_for_each_pair(n: int, base: str) -> None:
    spec = small(n, base=base, routing="prediction")
    predictions = [p for p in resolve(spec).nodes if p.node.part == "prediction"]
    assert len(predictions) == n + n * n  # one to n, then n to n
    assert all(len(p.chain) == 1 and p.chain[0].bias for p in predictions)


# ---- what routing costs ----------------------------------------------------------------------------------


@each_number
def test_cross_connections_cost_what_the_formula_says(n: int) -> None:
    """m (C h + h + h n + n) parameters, m n H W C + m (C h + h n) multiply-accumulates, m tensors to n."""
    spec = small(n)
    nodes, edges = node_costs(spec), edge_costs(spec)
    bare = NetworkSpec.from_dict(
        spec.to_dict()
        | {
            "parts": [
                {**part.to_dict(), "aggregation": "sum"} if part.name == "connected" else part.to_dict()
                for part in spec.parts
                if part.name != "connected"
            ]
            + [{"name": "connected", "line": "norm_act(norm=none)", "aggregation": "sum"}]
        }
    )
    h, expected_params, expected_macs = 5, 0, 0
    for m, channels, pixels in ((1, 4, 12 * 8), (n, 4, 12 * 8)):
        expected_params += m * (channels * h + h + h * n + n)
        expected_macs += m * n * pixels * channels + m * (channels * h + h * n)
    whole, without = network_cost(spec), network_cost(bare)
    assert whole.params - without.params == expected_params
    assert whole.macs - without.macs == expected_macs
    weighted = {target for (_, target), cost in edges.items() if cost.aggregation_macs}
    assert weighted == {f"block{b}.path{p}.routed" for b in (1, 2) for p in range(n)}
    gates = 4 * h + h + h * n + n
    assert nodes["stem"].params == 3 * 4 * 9 + 2 * 4 + gates


@each_number
def test_cross_prediction_costs_n_times_the_plain_convolutions(n: int) -> None:
    """m n convolutions in place of n; the gates are the same, the weighted tensors are predictions."""
    crossed, predicted = (small(n, base="plain", routing=r) for r in ("connection", "prediction"))
    h, pixels = 5, 12 * 8
    convolutions = {
        name: node.conv_macs
        for name, node in node_costs(predicted).items()
        if name.split(".")[-1][:4] == "from"
    }
    assert sum(convolutions.values()) == n * pixels * 9 * 4 * 4 + n * n * (pixels // 4) * 9 * 4 * 6
    cost = network_cost(predicted)
    assert cost.aggregation_macs == n * pixels * 4 + n * n * (pixels // 4) * 6
    gates = (n + 1) * (4 * h + h + h * n + n)
    assert cost.linear_macs - 6 * 10 == (n + 1) * (4 * h + h * n)
    without = sum(
        cost.params for name, cost in node_costs(crossed).items() if ".unit" in name or name == "head"
    )
    first = n * (4 * 4 * 9 + 2 * 4) + n * (4 * 6 * 9 + 2 * 6)  # the units that predictions replace
    pairs = n * (4 * 4 * 9 + 4) + n * n * (4 * 6 * 9 + 6)
    assert cost.params == without - first + pairs + gates + 3 * 4 * 9 + 2 * 4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("multipath-resnet-20-2", 540_372),
        ("multipath-resnet-20-3", 809_967),
        ("multipath-cnn-2", 597_668),
        ("multipath-cnn-3", 895_231),
    ],
)
def test_paths_multiply_the_base_and_routing_adds_little(name: str, params: int) -> None:
    """X bodies of the base; the stem and the head are shared."""
    assert network_cost(preset(name)).params == params
    n, resnet = int(name[-1]), "resnet" in name
    whole = {node: cost.params for node, cost in node_costs(preset(name)).items()}
    body = sum(p for node, p in whole.items() if ".unit" in node and not node.endswith(("_sum", "_shortcut")))
    if resnet:  # ResNet-20's 269,722 less its stem and head
        gates_beside = sum(p for node, p in whole.items() if node.endswith("_sum"))
        assert body == n * (network_cost(preset("resnet-20")).params - (27 * 16 + 2 * 16) - 650)
        assert gates_beside < 0.01 * params
    assert body > 0.97 * params


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_paths": 1}, r"n_paths must be at least 2, got 1"),
        ({"base": "residul"}, r"unknown base 'residul'\. Did you mean 'residual'\? Known: plain, residual\."),
        ({"routing": "predict"}, r"unknown routing 'predict'\. Did you mean 'prediction'\?"),
        ({"hidden": 0}, r"hidden must be at least 1, got 0"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(multipath(**{"n_paths": 2} | values))


def diamond(**parts: object) -> NetworkSpec:
    """A stem, two readers of it, two joins that read both, a head that reads the joins."""
    builder = GraphBuilder()
    builder.add("stem", "stem")
    for name in ("a", "b"):
        builder.add(name, reads=["stem"])
    for name in ("y1", "y2"):
        builder.add(name, "join", reads=["a", "b"], part=name)
    builder.add("head", "head", reads=["y1", "y2"])
    return NetworkSpec(
        own_graph=builder.graph(),
        blocks=({"width": 4},),
        parts=tuple({"name": name, "aggregation": label} for name, label in parts.items()),
        input=SMALL,
    )


def test_readers_that_want_other_gates_are_refused() -> None:
    """The gates of a node are one softmax: they cannot have two hidden layers."""
    message = r"a: its readers 'y1' and 'y2' ask for different gates: give their aggregations the same param"
    with pytest.raises(SpecError, match=message):
        resolve(diamond(y1="routed(hidden=3)", y2="routed(hidden=4)"))
    resolve(diamond(y1="routed(hidden=3)", y2="routed(hidden=3)"))
    resolve(diamond(y1="routed(hidden=3)", y2="sum"))  # then each source has one routed reader, and no gates


def test_gates_of_a_parent_need_one_parent() -> None:
    spec = diamond(y1="routed(gates_of=parent)", y2="routed(gates_of=parent)")
    plans = {p.node.name: p for p in resolve(spec).nodes}
    assert plans["y1"].gated_by == (0, 0)
    assert plans["y1"].slots == (0, 0)
    assert plans["y2"].slots == (1, 1)
    assert plans["stem"].gates
    assert not plans["a"].gates


@pytest.mark.parametrize(("reads", "number"), [(["stem", "a"], 0), (["a", "sum"], 2)])
def test_a_source_without_one_parent_has_no_gates_of_it(reads: list[str], number: int) -> None:
    builder = GraphBuilder()
    builder.add("stem", "stem")
    builder.add("a", reads=["stem"])
    builder.add("sum", "join", reads=["stem", "a"])
    builder.add("y", "join", reads=reads, part="routed")
    builder.add("head", "head", reads=["sum", "y"])
    spec = NetworkSpec(
        own_graph=builder.graph(),
        blocks=({"width": 4},),
        parts=({"name": "routed", "aggregation": "routed(gates_of=parent)"},),
        input=SMALL,
    )
    message = (
        rf"y: routed\(gates_of=parent\) needs sources that read one node each, got one that reads {number}"
    )
    with pytest.raises(SpecError, match=message):
        resolve(spec)


def test_a_typo_in_whose_gates() -> None:
    with pytest.raises(SpecError, match=r"unknown gates_of 'parents'\. Did you mean 'parent'\?"):
        resolve(diamond(y1="routed(gates_of=parents)", y2="sum"))
