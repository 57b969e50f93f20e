"""The compiled network against the definition, on generated networks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from pairs import assert_same, blocks, joining

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.ir import lower
from connsearch.ir.passes.partial_sums import partial_sums
from connsearch.ir.pipelines import INFERENCE, PIPELINES
from connsearch.kernels import use_backend
from connsearch.nn import Network, build
from connsearch.nn.verify import Comparison, verify_network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from strategies import FAMILIES, adding, families, specs

PAIRS = list(itertools.product(sorted(TOPOLOGIES), sorted(AGGREGATIONS)))


def assert_equal(spec: NetworkSpec, pipeline: str = "fused") -> None:
    assert_same(Comparison(spec, batch=6, steps=2), pipeline)


@pytest.mark.parametrize("pipeline", sorted({*PIPELINES} - {INFERENCE}))
@pytest.mark.parametrize("aggregation", [*sorted(AGGREGATIONS), "depthwise(form=paper)"])
def test_every_pipeline_equals_the_definition(aggregation: str, pipeline: str) -> None:
    assert_equal(blocks("dense", aggregation), pipeline)


@pytest.mark.large
@pytest.mark.parametrize(("topology", "aggregation"), PAIRS)
def test_every_pair_equals_the_definition(topology: str, aggregation: str) -> None:
    assert_equal(blocks(topology, aggregation))


@given(specs(drops=True))
@settings(max_examples=20)
def test_generated_networks_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


@given(st.sampled_from(sorted(FAMILIES)).flatmap(families))
@settings(max_examples=8)
def test_families_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


def test_networks_that_add_equal_the_definition() -> None:
    rewritten = 0

    @given(adding())
    @settings(max_examples=20)
    def check(spec: NetworkSpec) -> None:
        nonlocal rewritten
        lowered = lower(spec)
        rewritten += partial_sums(lowered) is not lowered
        assert_equal(spec)

    check()
    assert rewritten  # what is new about networks that add


@pytest.mark.large
@given(joining())
@settings(max_examples=500)
def test_five_hundred_generated_networks_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["densenet-bc-100-12", "sparsenet-40-12"])
def test_working_precision_is_as_good_as_the_definition(name: str, backend: str) -> None:
    spec = preset(name).replaced(input=InputConfig(height=8, width=8), n_classes=4)
    with use_backend(backend):
        verify_network(spec, batch=4, steps=2).raise_if_wrong()


@given(specs())
@settings(max_examples=20)
def test_state_dicts_are_interchangeable(spec: NetworkSpec) -> None:
    network, compiled = Network(spec), build(spec)
    assert list(network.state_dict()) == list(compiled.state_dict())
    compiled.load_state_dict(network.state_dict())
    network.load_state_dict(compiled.state_dict())


def test_build_of_a_network_shares_its_weights() -> None:
    network = Network(blocks("dense", "depthwise"))
    compiled = build(network)
    assert all(a is b for a, b in zip(network.parameters(), compiled.parameters(), strict=True))


def test_an_unknown_pipeline_is_told() -> None:
    with pytest.raises(SpecError, match=r"unknown pipeline 'fusd'\. Did you mean 'fused'\?"):
        build(blocks("dense", "sum"), pipeline="fusd")


def test_images_of_another_shape_are_told() -> None:
    with pytest.raises(SpecError, match=r"images must be B x 3 x 9 x 7, got 2 x 3 x 9 x 9"):
        build(blocks("dense", "sum"))(torch.zeros(2, 3, 9, 9))
