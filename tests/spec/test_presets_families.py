"""What holds of any network, drawn from every family of presets that gives its graph."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import HealthCheck, given, settings

from connsearch.cost import CostModel, network_cost
from connsearch.nn import Network
from connsearch.spec import NetworkSpec, resolve
from measured import images, inference_bytes, training_bytes
from strategies import FAMILIES, families


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_written_counted_and_measured(family: str) -> None:
    @settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
    @given(families(family))
    def check(spec: NetworkSpec) -> None:
        again = NetworkSpec.from_dict(tomllib.loads(spec.to_toml()))
        assert again == spec
        assert resolve(again) == resolve(spec)
        cost, network, x = network_cost(spec), Network(spec), images(spec)
        assert CostModel(spec).cost(spec.widths) == cost
        assert cost.params == sum(p.numel() for p in network.parameters())
        assert cost.inference_bytes == inference_bytes(network, x)
        assert cost.training_bytes == training_bytes(network, x)

    check()
