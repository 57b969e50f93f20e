"""Sums begun ahead: when readers begin together, and that nothing changes by it, nor more is kept."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from pairs import assert_same
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from connsearch.kernels import use_backend
from connsearch.kernels.sums_ahead import begin_sums
from connsearch.nn import Network, ahead, build
from connsearch.nn.shared import Weights
from connsearch.nn.verify import Comparison, randomise
from connsearch.spec import NetworkSpec
from strategies import specs

UNITS = ["basic", "conv(order=post)"]  # a norm follows the sum, or a convolution does
FORMS = ["depthwise", "depthwise(form=paper)", "weighted", "weighted(activation=sigmoid)"]


def block(aggregation: str, n_layers: int = 13, **more: object) -> NetworkSpec:
    made = {"topology": "dense", "aggregation": aggregation, "n_layers": n_layers, "width": 3, **more}
    return NetworkSpec(
        name=aggregation, input={"channels": 3, "height": 5, "width": 7}, n_classes=4, blocks=[made]
    )


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of tests are small; act as if no cache could hold them."""
    monkeypatch.setattr(ahead, "CACHE_BYTES", 0)


@pytest.fixture
def passes() -> Iterator[list[tuple[int, int]]]:
    """How many sources were read for how many sums, in each pass that began some."""
    found: list[tuple[int, int]] = []

    def noting(sources: list[Tensor], weight_KLC: Tensor, sums: list[Tensor]) -> None:
        found.append((len(sources), len(sums)))
        begin_sums(sources, weight_KLC, sums)

    with patch.object(ahead, "begin_sums", noting):
        yield found


def step(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Return logits, gradients and running statistics of a training step."""
    logits = module(images)
    grads = torch.autograd.grad(logits.square().sum(), [*module.parameters()])
    return [logits.detach(), *grads, *module.buffers()]


def pair(spec: NetworkSpec, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    network = Network(spec).to(dtype)
    randomise(network)
    made = spec.input
    images = torch.randn(4, made.channels, made.height, made.width, dtype=dtype)
    return network, build(copy.deepcopy(network)), images


def assert_same_step(network: nn.Module, compiled: nn.Module, images: Tensor) -> None:
    for a, b in zip(step(network, images), step(compiled, images), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_that_of_the_definition(form: str, backend: str, passes: list[tuple[int, int]]) -> None:
    network, compiled, images = pair(block(form))
    with use_backend(backend):
        assert_same_step(network, compiled, images)
    assert passes == [(3, 4), (7, 4), (11, 4)]  # of layers 4 to 7, 8 to 11, then 12, 13 and the output


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_sums_that_no_norm_follows_begin_together_too(backend: str, passes: list[tuple[int, int]]) -> None:
    network, compiled, images = pair(block("depthwise(form=paper)", unit="conv(order=post)"))
    with use_backend(backend):
        assert_same_step(network, compiled, images)
    assert passes == [(3, 4), (7, 4), (11, 4)]


@pytest.mark.parametrize("unit", UNITS)
def test_maps_in_channels_last(unit: str, passes: list[tuple[int, int]]) -> None:
    network, compiled, images = pair(block("depthwise", unit=unit))
    compiled = compiled.to(memory_format=torch.channels_last)
    assert_same_step(network, compiled, images.to(memory_format=torch.channels_last))
    assert passes


@pytest.mark.parametrize("unit", UNITS)
def test_in_bfloat16_an_outcome_is_as_good_as_without(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, compiled, images = pair(block("depthwise", unit=unit), torch.float32)
    exact = step(network.double(), images.double())
    errors = []
    for cache_bytes in (1 << 40, 0):
        monkeypatch.setattr(ahead, "CACHE_BYTES", cache_bytes)
        with torch.autocast("cpu", torch.bfloat16):
            found = step(copy.deepcopy(compiled), images)
        pairs = zip(found, exact, strict=True)
        errors.append(sum(float((a - b).double().norm() / (b.double().norm() + 1)) for a, b in pairs))
    assert errors[0] / 2 < errors[1] < 2 * errors[0]


@given(specs())
@settings(max_examples=25)
def test_generated_networks_do_what_their_definition_does(spec: NetworkSpec) -> None:
    assert_same(Comparison(spec), "fused")


def test_nothing_begins_of_what_a_cache_holds(
    passes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, compiled, images = pair(block("depthwise"))
    size = 4 * 3 * 5 * 7 * 8  # bytes of a map
    monkeypatch.setattr(ahead, "CACHE_BYTES", 13 * size)
    step(compiled, images)
    assert not passes
    monkeypatch.setattr(ahead, "CACHE_BYTES", 10 * size)
    step(compiled, images)
    assert passes == [(11, 4)]


def test_readers_with_other_sources_begin_nothing(passes: list[tuple[int, int]]) -> None:
    assert_same_step(*pair(block("depthwise", n_layers=9, topology="nearest(k=3)")))
    assert not passes


def test_readers_in_evaluation_are_left_out(passes: list[tuple[int, int]]) -> None:
    network, compiled, images = pair(block("depthwise", n_layers=8))
    for module in (network, compiled):
        module.get_submodule("block1.layer6.aggregation").eval()
    assert_same_step(network, compiled, images)
    assert all(n_sums < 4 for _, n_sums in passes)


def test_nothing_begins_where_torch_looks_on(passes: list[tuple[int, int]]) -> None:
    network, compiled, images = pair(block("depthwise"))
    with FlopCounterMode(display=False):
        found = step(compiled, images)
    assert not passes
    for a, b in zip(step(network, images), found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_begun_becomes_the_sum_and_nothing_more_is_kept(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, compiled, images = pair(block("depthwise", unit=unit))

    def kept(cache_bytes: int) -> int:
        monkeypatch.setattr(ahead, "CACHE_BYTES", cache_bytes)
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = compiled(images)
        assert logits.requires_grad  # and what it holds is alive until here
        return sum(storages.values())

    assert kept(0) == kept(1 << 40)


def all_weights(but: Sequence[Weights] = ()) -> list[Weights]:
    """Return the weights of readers that are alive, but for some."""
    return [o for o in gc.get_objects() if type(o) is Weights and not any(o is other for other in but)]


def test_readers_whose_norm_is_not_fused_keep_nothing(passes: list[tuple[int, int]]) -> None:
    _, compiled, images = pair(block("depthwise"))
    for layer in (6, 7):
        compiled.get_submodule(f"block1.layer{layer}.norm1").eval()
    before = all_weights()
    logits = compiled(images)
    assert passes
    assert not [weights for weights in all_weights(but=before) if weights.begun is not None]
    logits.sum().backward()


def test_a_forward_pass_leaves_nothing_begun() -> None:
    _, compiled, images = pair(block("depthwise"))
    gc.collect()
    gc.disable()
    before = all_weights()  # of other tests
    try:
        logits = compiled(images)
        found = all_weights(but=before)
        assert found
        assert all(weights.begun is None for weights in found)
        del found
        logits.sum().backward()
        del logits
        assert not all_weights(but=before)  # without the collector
    finally:
        gc.enable()
