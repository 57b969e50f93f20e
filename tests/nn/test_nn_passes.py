"""Each pass alone, and passes in any order, against the definition: values, gradients, evaluation."""

from __future__ import annotations

from functools import reduce
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings, strategies as st
from pairs import assert_same, joining

from connsearch.ir import PIPELINES, Program, lower
from connsearch.ir.pipelines import INFERENCE, PASSES, Pass
from connsearch.nn import Network
from connsearch.nn.inference import Inference
from connsearch.nn.verify import Comparison, nudged, randomise
from connsearch.spec import NetworkSpec

TRAINING = [rewrite.__name__ for rewrite in PIPELINES["fused"]]
EVALUATION = [rewrite.__name__ for rewrite in PIPELINES[INFERENCE]]


def assert_trains_alike(spec: NetworkSpec, names: list[str]) -> None:
    with patch.dict(PIPELINES, drawn=tuple(PASSES[name] for name in names)):
        assert_same(Comparison(spec, batch=4, steps=1), "drawn")


def assert_evaluates_alike(spec: NetworkSpec, names: list[str]) -> None:
    """In float64, up to what a rounding of images and parameters changes."""
    torch.manual_seed(0)
    network = Network(spec).double().eval()
    randomise(network)
    shape = (spec.input.channels, spec.input.height, spec.input.width)
    images = torch.randn(2, *shape, dtype=torch.float64)
    passes: list[Pass] = [PASSES[name] for name in names]
    lowered = lower(spec)
    program: Program = reduce(lambda made, rewrite: rewrite(made), passes, lowered)
    with torch.no_grad():
        expected = network(images)
        other, changed = nudged(network, images, 8 * torch.finfo(torch.float64).eps)
        rounding = float((other(changed) - expected).abs().max())
        found = Inference(network, program).run(images)[-1]
    assert float((found - expected).abs().max()) <= 1e-10 + 1000 * rounding


@pytest.mark.parametrize("name", TRAINING)
def test_a_pass_alone_trains_like_the_definition(name: str) -> None:
    @given(joining())
    @settings(max_examples=6)
    def check(spec: NetworkSpec) -> None:
        assert_trains_alike(spec, [name])

    check()


@pytest.mark.parametrize("name", EVALUATION)
def test_a_pass_alone_evaluates_like_the_definition(name: str) -> None:
    @given(joining())
    @settings(max_examples=15)
    def check(spec: NetworkSpec) -> None:
        assert_evaluates_alike(spec, [name])

    check()


@given(joining(), st.lists(st.sampled_from(TRAINING), min_size=2, max_size=7))
@settings(max_examples=15)
def test_passes_in_any_order_train_like_the_definition(spec: NetworkSpec, names: list[str]) -> None:
    assert_trains_alike(spec, names)


@pytest.mark.large
@given(joining(), st.lists(st.sampled_from(TRAINING), min_size=1, max_size=7))
@settings(max_examples=300)
def test_three_hundred_lists_of_passes_train_like_the_definition(spec: NetworkSpec, names: list[str]) -> None:
    assert_trains_alike(spec, names)


@given(joining(), st.lists(st.sampled_from(EVALUATION), min_size=2, max_size=7))
@settings(max_examples=40)
def test_passes_in_any_order_evaluate_like_the_definition(spec: NetworkSpec, names: list[str]) -> None:
    assert_evaluates_alike(spec, names)


def test_every_pass_rewrites_networks_that_are_drawn() -> None:
    """Else what other tests say of it is said of nothing."""
    found = dict.fromkeys(PASSES, 0)

    @given(joining())
    @settings(max_examples=300, derandomize=True)
    def count(spec: NetworkSpec) -> None:
        for pipeline in ("fused", INFERENCE):
            program = lower(spec)
            for rewrite in PIPELINES[pipeline]:
                made = rewrite(program)
                found[rewrite.__name__] += made is not program
                program = made

    count()
    assert min(found.values()) > 0, found
