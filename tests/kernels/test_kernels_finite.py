"""A value that is NaN or infinite is seen in what every kernel makes of it, as in the definition."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from cases import DENSE, VARIANTS, Call, check, maps_of
from interpreting import run
from torch import Tensor

from connsearch.kernels import build, use_backend
from connsearch.nn import Network
from connsearch.nn.compiled import build as compiled
from connsearch.spec import NetworkSpec
from connsearch.spec.aggregations import AGGREGATIONS

pytestmark = pytest.mark.slow  # Triton's interpreter

BACKENDS = [
    pytest.param("cpu", marks=pytest.mark.skipif(build.why_not() is not None, reason="nothing is compiled")),
    pytest.param("triton", marks=pytest.mark.gpu),
]
backends = pytest.mark.parametrize("backend", BACKENDS)


def each_map_spoilt(call: Call, value: float, backend: str, device: str) -> None:
    for place in range(len(maps_of(call.args()))):
        with use_backend(backend):
            check(call, device, spoilt=(place, value))


@backends
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("function", VARIANTS)
def test_what_is_not_finite_is_seen(function: str, layout: str, value: float, backend: str) -> None:
    call = Call(function, list(VARIANTS[function])[-1], shape=(2, 3, 4, 5), n=2, layout=layout)
    if backend == "triton":
        pytest.importorskip("triton")
        run(each_map_spoilt, call, value, backend)
    else:
        each_map_spoilt(call, value, backend, "cpu")


def trained(network: torch.nn.Module, images: Tensor, backend: str | None) -> list[Tensor]:
    """Return the outcome for a batch and the gradients of all parameters."""
    with nullcontext() if backend is None else use_backend(backend):
        found = network(images)
        found.square().mean().backward()
    return [found, *(p.grad for p in network.parameters() if p.grad is not None)]


def diverges_alike(aggregation: str, backend: str, device: str) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(
        name="small",
        input={"channels": 3, "height": 8, "width": 8},
        n_classes=5,
        blocks=[{"topology": "dense", "aggregation": aggregation, "n_layers": 3, "width": 4}],
    )
    definition = Network(spec).train().to(device)
    fused = compiled(copy.deepcopy(definition), pipeline="fused")
    images = torch.randn(2, 3, 8, 8, device=device)
    images[0, 0, 0, 0] = float("nan")
    truth, found = trained(definition, images, None), trained(fused, images, backend)
    assert len(truth) == len(found)
    assert truth[0].isnan().all()
    for fast, true in zip(found, truth, strict=True):
        assert torch.equal(fast.isnan(), true.isnan())


@backends
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_a_network_that_diverges_says_so(aggregation: str, backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
        run(diverges_alike, aggregation, backend)
    else:
        diverges_alike(aggregation, backend, "cpu")
