"""Exact cost against torch: parameters, FLOPs that torch's own counter sees, and the sum over parts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch.utils.flop_counter import FlopCounterMode

from connsearch.cost import (
    CONVENTIONS,
    Cost,
    CostModel,
    NetworkCost,
    edge_costs,
    network_cost,
    node_costs,
)
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from strategies import specs

each_aggregation = pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))


def counted(network: Network, spec: NetworkSpec) -> int:
    image = torch.zeros(1, spec.input.channels, spec.input.height, spec.input.width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    return int(counter.get_total_flops())


@given(specs())
def test_params_and_flops_are_those_of_the_built_network(spec: NetworkSpec) -> None:
    cost, network = network_cost(spec), Network(spec)
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert cost.flops() == counted(network, spec)
    assert cost.n_edges == spec.graph().n_edges
    assert cost.n_layers == sum(node.kind == "unit" for node in spec.graph().nodes)


@given(specs())
def test_a_built_node_has_the_parameters_of_the_counted_one(spec: NetworkSpec) -> None:
    network, nodes, edges = Network(spec), node_costs(spec), edge_costs(spec)
    assert list(nodes) == [node.name for node in spec.graph().nodes]
    for name, own in nodes.items():
        into = Cost.total([cost for (_, target), cost in edges.items() if target == name])
        assert (own + into).params == sum(p.numel() for p in network.node(name).parameters())


@given(specs())
def test_nodes_and_edges_add_up_to_the_network(spec: NetworkSpec) -> None:
    nodes, edges, whole = node_costs(spec), edge_costs(spec), network_cost(spec)
    graph = spec.graph()
    assert list(edges) == [(graph.nodes[s].name, graph.nodes[t].name) for s, t in graph.edges()]
    total = Cost.total([*nodes.values(), *edges.values()])
    assert NetworkCost.of(total, inference_bytes=whole.inference_bytes, training_bytes=whole.training_bytes,
                          n_layers=whole.n_layers, n_edges=whole.n_edges) == whole  # fmt: skip


@each_aggregation
def test_weighted_sources_are_counted_one_by_one(aggregation: str) -> None:
    """One multiply-accumulate for each element of each source that has a weight."""
    spec = NetworkSpec(
        blocks=[{"topology": "dense", "aggregation": aggregation, "n_layers": 3, "width": 4}],
        input={"height": 5, "width": 7},
    )
    pixels, cost = 4 * 5 * 7, network_cost(spec)
    every = 2 + 3 + 4  # sources of nodes that read several
    weighted = {"depthwise": every, "weighted": every, "gated": every - 3, "routed": every - 1}
    assert cost.aggregation_macs == cost.source_elements == weighted.get(aggregation, 0) * pixels
    assert cost.add_elements == (3 * pixels if aggregation in ("sum", "mean") else 0)
    assert cost.macs == cost.conv_macs + cost.linear_macs + cost.aggregation_macs


# ---- at other widths -------------------------------------------------------------------------------------


@given(specs(), st.data())
def test_the_cost_model_is_the_cost_at_every_width(spec: NetworkSpec, data: st.DataObject) -> None:
    model = CostModel(spec)
    assert model.cost(spec.widths) == network_cost(spec)
    groups = [dict(block.unit.params).get("groups", 1) for block in spec.blocks]
    widths = [int(g) * data.draw(st.integers(1, 9)) for g in groups]
    cost = network_cost(spec.with_widths(widths))
    assert model.cost(widths) == cost
    assert (model.macs(widths), model.params(widths)) == (cost.macs, cost.params)


@pytest.mark.parametrize("widths", [[4], [4, 4, 4], [4, 0], [4, 4.5], [4, True]])
def test_the_cost_model_refuses_widths_that_are_none(widths: list[Any]) -> None:
    model = CostModel(NetworkSpec(blocks=[{"n_layers": 2}, {"n_layers": 2}]))
    with pytest.raises(SpecError, match=r"^2 blocks need an integer width of at least 1 each, got \["):
        model.cost(widths)
    if len(widths) != 2:
        for ask in (model.macs, model.params):
            with pytest.raises(SpecError, match=r"^2 blocks need as many widths, got \["):
                ask(widths)


@given(specs(), st.data())
def test_a_wider_block_never_costs_less(spec: NetworkSpec, data: st.DataObject) -> None:
    """What the width solver relies on."""
    model = CostModel(spec)
    widths = [data.draw(st.integers(1, 12)) * int(dict(b.unit.params).get("groups", 1)) for b in spec.blocks]
    block = data.draw(st.integers(0, len(widths) - 1))
    wider = [*widths]
    wider[block] += data.draw(st.integers(1, 5)) * int(dict(spec.blocks[block].unit.params).get("groups", 1))
    assert model.macs(widths) <= model.macs(wider)
    assert model.params(widths) < model.params(wider)


# ---- Cost as a value -------------------------------------------------------------------------------------


def test_costs_add_field_by_field() -> None:
    one, other = Cost(1, 2, 3, 4, 5, 6, 7), Cost(params=10, source_elements=1)
    assert one + other == other + one == Cost(11, 2, 3, 4, 5, 7, 7)
    assert Cost.total([one, one, other]) == Cost(12, 4, 6, 8, 10, 13, 14)
    assert Cost.total([]) == Cost()


@pytest.mark.parametrize(("convention", "flops"), [
    ("2mac", 2 * (200 + 30)),
    ("sparsenet", 2 * (200 + 30) + 2 * 5000),
    ("delugenet", 2 * (200 + 30) + 2 * 5000 + 3 * 60_000 + 2 * 700_000),
])  # fmt: skip
def test_each_convention_counts_its_terms(convention: str, flops: int) -> None:
    cost = Cost(1, 200, 30, 4, 5000, 60_000, 700_000)
    assert cost.macs == 234
    assert cost.flops(convention) == flops
    assert set(CONVENTIONS) == {"2mac", "sparsenet", "delugenet"}


def test_an_unknown_convention_is_named() -> None:
    message = (
        r"unknown FLOP convention 'delugnet'\. Did you mean 'delugenet'\? Known: 2mac, delugenet, sparsenet\."
    )
    with pytest.raises(SpecError, match=message):
        Cost().flops("delugnet")


def test_plain_data_have_units_in_their_keys() -> None:
    cost = NetworkCost(7, 200, 30, 4, 5, 6, 7, inference_bytes=1, training_bytes=2, n_layers=3, n_edges=4)
    assert cost.to_dict() == {
        "params": 7,
        "macs": 234,
        "macs_by": {"conv": 200, "linear": 30, "aggregation": 4},
        "flops": {"2mac": 460, "delugenet": 460 + 10 + 18 + 14, "sparsenet": 470},
        "peak_activation_bytes": {"inference": 1, "training": 2},
        "n_layers": 3,
        "n_edges": 4,
    }


@given(specs())
def test_every_number_is_a_plain_integer(spec: NetworkSpec) -> None:
    def leaves(value: Any) -> list[Any]:
        return [leaf for v in value.values() for leaf in leaves(v)] if isinstance(value, dict) else [value]

    for cost in (network_cost(spec), CostModel(spec).cost(spec.widths)):
        assert {type(leaf) for leaf in leaves(cost.to_dict())} == {int}


@pytest.mark.parametrize("module", ["connsearch", "connsearch.graph", "connsearch.spec", "connsearch.cost"])
def test_it_imports_no_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
