"""Activation memory against what torch allocates and what autograd keeps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from connsearch.cost import network_cost
from connsearch.nn import Network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from measured import images, inference_bytes, training_bytes
from strategies import specs


@given(specs(drops=True))
def test_the_peak_in_evaluation_is_what_torch_allocates(spec: NetworkSpec) -> None:
    assert network_cost(spec).inference_bytes == inference_bytes(Network(spec), images(spec))


@given(specs(drops=True))
def test_what_training_keeps_is_what_autograd_saves(spec: NetworkSpec) -> None:
    assert network_cost(spec).training_bytes == training_bytes(Network(spec), images(spec))


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_every_aggregation_is_measured(aggregation: str) -> None:
    @settings(max_examples=8)
    @given(specs(aggregation=aggregation, own_graph=False, max_layers=6, max_blocks=2))
    def check(spec: NetworkSpec) -> None:
        cost, network, x = network_cost(spec), Network(spec), images(spec)
        assert cost.inference_bytes == inference_bytes(network, x)
        assert cost.training_bytes == training_bytes(network, x)

    check()
