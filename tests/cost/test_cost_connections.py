"""What connections cost, against networks from which one was really removed."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings

from connsearch.cost import edge_costs, network_cost
from connsearch.cost.connections import Connection, connections
from connsearch.errors import SpecError
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import preset
from connsearch.spec.pruned import Pruner
from strategies import specs


def network(aggregation: str, topology: str = "dense") -> NetworkSpec:
    block = {"topology": topology, "aggregation": aggregation, "n_layers": 4, "width": 6}
    return NetworkSpec.from_dict(
        {"name": "n", "input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 4, "blocks": [block]}
    )


def check(spec: NetworkSpec, connection: Connection, *, n_before: int) -> bool:
    """Compare with the network without the connection; False where it cannot be removed alone."""
    try:
        less = Pruner(spec).without([(connection.source, connection.target)])
    except SpecError:
        return False
    if len(less.graph().nodes) != n_before:
        return False  # nodes that nothing reads any more went too
    before, after = network_cost(spec), network_cost(less)
    assert (before.macs - after.macs, before.params - after.params) == (connection.macs, connection.params)
    return True


@pytest.mark.parametrize(
    "spec",
    [
        network("concat"),
        network("depthwise", "log_dense"),
        preset("densenet-40-12").replaced(n_classes=7),
        preset("log-densenet-v1-52-24"),
    ],
    ids=lambda spec: spec.name,
)
def test_against_networks_without_a_connection(spec: NetworkSpec) -> None:
    found = connections(spec)
    readers = [connection.target for connection in found]
    some = [c for c in found if readers.count(c.target) > 2][::29]
    n = len(spec.graph().nodes)
    assert sum(check(spec, connection, n_before=n) for connection in some) >= min(2, len(some)) > 0


@settings(max_examples=40)
@given(spec=specs())
def test_all_edges_are_there_and_cost_what_they_own_at_least(spec: NetworkSpec) -> None:
    own, found = edge_costs(spec), connections(spec)
    assume(spec.drop is None)
    assert [(c.source, c.target) for c in found] == list(own)
    for connection, cost in zip(found, own.values(), strict=True):
        assert connection.macs >= cost.macs
        assert connection.params >= cost.params
        assert connection.bytes_read > 0
    assert sum(c.macs for c in found) <= network_cost(spec).macs


def test_a_sum_costs_its_reading_alone() -> None:
    found = connections(network("sum"))
    assert {(c.macs, c.params) for c in found} == {(0, 0)}
    assert {c.bytes_read for c in found} == {4 * 6 * 8 * 8}


def test_a_concatenated_map_costs_its_share_of_the_convolution() -> None:
    stem, last = connections(network("concat"))[-2:]
    assert (stem.target, last.target) == ("head", "head")
    into = [c for c in connections(network("concat")) if c.target == "block1.layer3"]
    assert [c.macs for c in into] == [
        6 * 6 * 9 * 64
    ] * 3  # of each source: 6 x 6 kernels of 3 x 3, 8 x 8 pixels
    assert [c.params for c in into] == [6 * 6 * 9 + 2 * 6] * 3  # and a norm's weight and bias
