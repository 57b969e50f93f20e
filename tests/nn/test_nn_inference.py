"""Evaluation without gradients, on folded constants, against the definition."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.ir import lower, optimize
from connsearch.ir.liveness import live_reads, peak_elements
from connsearch.nn import Network
from connsearch.nn.build import CompiledNetwork, build
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec
from connsearch.spec.presets import preset
from strategies import FAMILIES, families, specs
from test_nn_network import images, randomise

PAIRS = list(itertools.product(sorted(TOPOLOGIES), sorted(AGGREGATIONS)))


def network(aggregation: str = "depthwise", unit: str = "bottleneck", topology: str = "dense") -> Network:
    block = {"topology": topology, "aggregation": aggregation, "unit": unit, "n_layers": 4, "width": 6}
    spec = NetworkSpec(input={"channels": 2, "height": 7, "width": 6}, n_classes=3, blocks=[block, block])
    return randomise(Network(spec)).eval()


def pair(definition: Network) -> tuple[Network, CompiledNetwork]:
    return definition, build(copy.deepcopy(definition)).eval()


def assert_equal(definition: Network, compiled: CompiledNetwork, *, tolerance: float = 1e-10) -> None:
    x = images(definition.spec).to(next(definition.parameters()).dtype)
    with torch.no_grad():
        expected, found = definition.logits_by_head(x), compiled.logits_by_head(x)
    assert compiled._inference is not None  # it did not run the definition
    assert list(found) == list(expected)
    for name, logits in expected.items():
        assert found[name].is_contiguous()
        torch.testing.assert_close(found[name], logits, rtol=tolerance, atol=tolerance)


# ---- values --------------------------------------------------------------------------------------------


@given(spec=specs(drops=True))
def test_generated_networks(spec: NetworkSpec) -> None:
    assert_equal(*pair(randomise(Network(spec)).eval()))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@settings(max_examples=4)
@given(data=st.data())
def test_families(family: str, data: st.DataObject) -> None:
    assert_equal(*pair(randomise(Network(data.draw(families(family)))).eval()))


@pytest.mark.parametrize(("topology", "aggregation"), PAIRS)
def test_every_topology_and_aggregation(topology: str, aggregation: str) -> None:
    assert_equal(*pair(network(aggregation, topology=topology)))


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_every_unit(unit: str) -> None:
    assert_equal(*pair(network("concat", unit)))
