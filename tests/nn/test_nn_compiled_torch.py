"""The compiled network under torch.compile and torch.export."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairs import AGGREGATIONS, assert_close, blocks, gradients
from torch import nn

from connsearch.nn import Network, build
from connsearch.nn.verify import randomise
from connsearch.spec import NetworkSpec

COMPILED = [
    pytest.param("aot_eager", True, "depthwise"),
    *(
        pytest.param("aot_eager", training, pair, marks=pytest.mark.large)
        for pair in ("depthwise(form=paper)", "concat", "routed", "sum")
        for training in (True, False)
    ),
    *(pytest.param("inductor", True, pair, marks=pytest.mark.large) for pair in ("depthwise", "concat")),
]


Pair = tuple[Network, nn.Module, torch.Tensor]


@pytest.fixture(params=AGGREGATIONS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """As elsewhere, of two layers a block: tracing takes as long as a network is deep."""
    torch.manual_seed(0)
    network = Network(blocks("dense", request.param, n_layers=2)).double()
    randomise(network)
    return network, build(copy.deepcopy(network)), torch.randn(3, 3, 9, 7, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what Inductor imports warns of itself
@pytest.mark.parametrize(("backend", "training", "pair"), COMPILED, indirect=["pair"])
def test_torch_compile_sees_one_graph(pair: Pair, backend: str, *, training: bool) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        module.train(training)
    torch._dynamo.reset()  # it keeps a few graphs for each function, not for each network
    again = torch.compile(compiled, fullgraph=True, backend=backend)
    for _ in range(2):
        expected, found = network(images), again(images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert_close(gradients(compiled, found.square().sum()), gradients(network, expected.square().sum()))
    assert_close([*compiled.buffers()], [*network.buffers()])


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_in_training_torch_compile_sees_the_kernels(pair: Pair) -> None:
    from torch._dynamo.backends.common import aot_autograd  # takes seconds to import
    from torch._functorch.aot_autograd import make_boxed_func

    _, compiled, images = pair
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph.code)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    again = torch.compile(compiled, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    again(images).square().sum().backward()
    assert len(graphs) == 2  # forward and backward
    assert "connsearch.weighted_sum_norm_act" in graphs[0]
    assert "connsearch.pull_normalized" in graphs[1]


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("norm1", "training", False),
        ("aggregation", "training", False),
        ("norm1", "eps", 0.3),
        ("norm2", "momentum", 0.9),
    ],
)
@pytest.mark.large
@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_torch_compile_sees_what_is_set_later(pair: Pair, part: str, setting: str, value: object) -> None:
    network, compiled, images = pair
    torch._dynamo.reset()
    again = torch.compile(compiled, backend="aot_eager")
    for module, call in ((network, network), (compiled, again)):
        call(images)
        setattr(module.get_submodule(f"block1.layer2.{part}"), setting, value)
    torch.testing.assert_close(again(images), network(images), rtol=1e-9, atol=1e-9)
    assert_close([*compiled.buffers()], [*network.buffers()])


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo's, where a graph breaks
@pytest.mark.parametrize("drop", ["stochastic_depth(survival=0.5)", "drop_path(rate=0.3)"])
def test_torch_compile_of_networks_that_drop_sources(drop: str) -> None:
    spec = NetworkSpec.from_dict(blocks("dense", "sum", "basic", n_layers=2).to_dict() | {"drop": drop})
    network = Network(spec).double()
    compiled, images = build(copy.deepcopy(network)), torch.randn(2, 3, 9, 7, dtype=torch.float64)
    torch._dynamo.reset()
    again = torch.compile(compiled, backend="aot_eager")
    for seed in range(3):
        torch.manual_seed(seed)
        expected = network(images)
        torch.manual_seed(seed)
        torch.testing.assert_close(again(images), expected, rtol=1e-9, atol=1e-9)


def test_torch_export(pair: Pair) -> None:
    _, compiled, images = pair
    compiled.eval()
    with torch.no_grad():
        exported = torch.export.export(compiled, (images,))
        torch.testing.assert_close(exported.module()(images), compiled(images), rtol=1e-9, atol=1e-9)
