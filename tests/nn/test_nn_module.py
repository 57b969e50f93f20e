"""A compiled network whose parts were replaced, hooked or patched, at any time, runs what they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from pairs import assert_close, blocks, gradients, joining
from torch import Tensor, nn

from connsearch.ir import lower, optimize
from connsearch.ir.passes.glue import is_fused
from connsearch.ir.report import program_report
from connsearch.nn import Network, build
from connsearch.nn.verify import randomise
from connsearch.spec import NetworkSpec

Pair = tuple[Network, nn.Module, Tensor]
Change = Callable[[nn.Module], object]


class Twice(nn.Module):
    """What another module gives out, doubled."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return 2 * self.inner(*inputs)


def hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output)


def pre_hook(module: nn.Module) -> None:
    def doubled(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        (x,) = inputs
        return ([2 * h for h in x] if isinstance(x, list) else 2 * x,)

    module.register_forward_pre_hook(doubled)


def patch(module: nn.Module) -> None:
    """Replace the method of one instance, as libraries do that wrap models."""
    forward = module.forward
    module.forward = lambda *inputs: 2 * forward(*inputs)


PARTS = ("norm1", "act1", "conv1", "aggregation")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", [hook, pre_hook, patch])
@pytest.mark.parametrize("pair", ["depthwise", "concat"], indirect=True)
def test_changed_parts_run_as_they_are(pair: Pair, change: Change, part: str) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        module.eval()
        with torch.no_grad():
            module(images)  # constants are made of it as it was
        change(module.get_submodule(f"block1.layer2.{part}"))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-9, atol=1e-9)
    network.train()
    compiled.train()
    expected, found = network(images), compiled(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert_close(gradients(compiled, found.square().sum()), gradients(network, expected.square().sum()))


@pytest.mark.parametrize("path", ["block1", "block1.layer2"])
def test_containers_put_in_place_of_others(pair: Pair, path: str) -> None:
    network, compiled, images = pair
    aggregation = network.block1.layer2.aggregation  # type: ignore[union-attr]
    network.block1.layer2.aggregation = Twice(aggregation)  # type: ignore[union-attr]
    *outer, name = path.split(".")
    parent = compiled.get_submodule(".".join(outer))
    setattr(parent, name, copy.deepcopy(parent.get_submodule(name)))
    compiled.block1.layer2.aggregation = Twice(compiled.block1.layer2.aggregation)  # type: ignore[union-attr]
    for training in (True, False):
        expected, found = network.train(training)(images), compiled.train(training)(images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            torch.testing.assert_close(compiled(images), network(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_the_definition_runs_nodes_put_in_place_of_others(pair: Pair) -> None:
    network, _, images = pair
    before = network(images)
    layer = copy.deepcopy(network.node("block1.layer2"))
    network.block1.layer2 = layer  # type: ignore[union-attr]
    with torch.no_grad():
        layer.get_submodule("conv1").weight.mul_(-1)  # type: ignore[operator,union-attr]
    found = network(images)
    assert network.node("block1.layer2") is layer
    assert not torch.allclose(found, before)
    found.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("part", ["norm1", "act1", "conv1"])
@pytest.mark.parametrize("pair", ["depthwise", "concat"], indirect=True)
def test_the_code_names_parts_that_run_one_by_one(pair: Pair, part: str, *, training: bool) -> None:
    _, compiled, _ = pair
    compiled.train(training)
    with torch.set_grad_enabled(training):
        assert "#" not in compiled.code  # type: ignore[operator]
        hook(compiled.get_submodule(f"block1.layer2.{part}"))
        first, _ = compiled.code.split("\n", 1)  # type: ignore[operator,union-attr]
        assert first == f"# run one by one, as these were changed: block1.layer2.{part}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pair", ["depthwise", "routed"], indirect=True)
def test_the_code_of_a_network_with_a_changed_aggregation_is_the_definition(
    pair: Pair, *, training: bool
) -> None:
    network, compiled, _ = pair
    compiled.train(training)
    hook(compiled.get_submodule("block1.layer2.aggregation"))
    plain = build(network, pipeline="none")
    with torch.set_grad_enabled(training):
        first, rest = compiled.code.split("\n", 1)  # type: ignore[operator,union-attr]
    assert first == "# as defined: an aggregation was changed, or torch looks on"
    assert rest == plain.code


def test_the_code_names_norms_that_were_frozen() -> None:
    compiled = build(blocks("dense", "depthwise"))
    compiled.get_submodule("block1.layer2.norm1").eval()
    assert compiled.code.startswith("# run one by one, as these were changed: block1.layer2.norm1\n")


@pytest.mark.parametrize("way", ["autocast", "types"])
def test_the_code_in_evaluation_is_what_runs(way: str) -> None:
    compiled = build(blocks("dense", "depthwise")).eval()
    defined = compiled.code
    with torch.no_grad():
        assert compiled.code != defined
        if way == "types":
            compiled.get_submodule("block1.layer2.norm1").double()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            assert compiled.code == defined


@given(joining())
@settings(max_examples=20)
def test_what_joins_or_normalises_is_fused_or_has_its_reason_in_the_report(spec: NetworkSpec) -> None:
    program = optimize(lower(spec), "fused")
    lines = program_report(program).splitlines()[1 : 1 + len(program.ops)]
    for op, line in zip(program.ops, lines, strict=True):
        may_fuse = op.aggregate is not None or op.kinds[0] in ("norm", "act")
        assert ("# as defined: " in line) == (may_fuse and not is_fused(program, op)), line


@given(joining())
@settings(max_examples=20)
def test_networks_as_they_were_built_run_nothing_one_by_one(spec: NetworkSpec) -> None:
    network = Network(spec)
    randomise(network)
    compiled = build(network)
    assert compiled.code.startswith("def forward(")
    compiled.eval()
    with torch.no_grad():
        assert compiled.code.startswith("def forward(")
