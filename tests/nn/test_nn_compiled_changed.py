"""A compiled network whose modules were set, replaced or hooked after it was built."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairs import assert_close, gradients
from torch import nn
from torch.nn.utils import prune

from connsearch.nn import Network, build
from connsearch.nn.aggregations import NormalizedDepthwise


def norms(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | NormalizedDepthwise)]


def other_eps(network: nn.Module) -> None:
    for module, eps in zip(norms(network), itertools.cycle((1e-5, 0.1, 0.3)), strict=False):
        module.eps = eps


def other_momenta(network: nn.Module) -> None:
    for module, momentum in zip(norms(network), itertools.cycle((0.1, 0.3, 0.9)), strict=False):
        module.momentum = momentum


def cumulative(network: nn.Module) -> None:
    for module in norms(network):
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None


def untracked(network: nn.Module) -> None:
    for module in norms(network)[::2]:
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


def dilated(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (2, 2)


@pytest.mark.parametrize("setting", [other_eps, other_momenta, cumulative, untracked, dilated])
def test_settings_of_modules_are_read_at_each_step(
    pair: tuple[Network, nn.Module, torch.Tensor], setting: Callable[[nn.Module], None]
) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        module(images)
        setting(module)
    for step in range(1, 3):
        found = [gradients(module, module(step * images).square().sum()) for module in (network, compiled)]
        assert_close(*found)
    assert_close([*network.buffers()], [*compiled.buffers()])
    network.eval()
    compiled.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-8, atol=1e-8)


class Doubled(nn.Conv2d):
    """A convolution of one's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("training", [True, False])
def test_modules_put_in_place_of_others_run(
    pair: tuple[Network, nn.Module, torch.Tensor], *, training: bool
) -> None:
    network, _, images = pair
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name == "conv1":
                child.__class__ = Doubled
            if name == "norm2":
                setattr(module, name, nn.GroupNorm(1, child.num_features).double())
            if name == "act1":
                setattr(module, name, nn.ELU())
    compiled = build(copy.deepcopy(network)).train(training)
    network.train(training)
    found = [gradients(module, module(images).square().sum()) for module in (network, compiled)]
    assert_close(*found)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-8, atol=1e-8)


def test_pruned_convolutions_train(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in [*network.modules(), *compiled.modules()]:
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.3)
    for _ in range(2):
        found = [gradients(module, module(images).square().sum()) for module in (network, compiled)]
        assert_close(*found)
    for module in (network.eval(), compiled.eval()):
        with torch.no_grad():
            module(images)
            for child in module.modules():
                if hasattr(child, "weight_orig"):
                    child.weight_orig.mul_(2)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-8, atol=1e-8)


def doubled(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return 3 * self.inner(*inputs)


def hook(network: nn.Module) -> None:
    network.get_submodule("block1.layer2.aggregation").register_forward_hook(doubled)


def wrap(network: nn.Module) -> None:
    layer = network.get_submodule("block1.layer2")
    layer.aggregation = Wrapped(layer.aggregation)


@pytest.mark.parametrize("change", [hook, wrap])
def test_an_aggregation_that_was_changed_runs_as_it_is(
    pair: tuple[Network, nn.Module, torch.Tensor], change: Callable[[nn.Module], None]
) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        change(module)
    for training in (True, False):
        expected, found = network.train(training)(images), compiled.train(training)(images)
        torch.testing.assert_close(found, expected)
        assert_close(gradients(compiled, found.square().sum()), gradients(network, expected.square().sum()))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_pruned_aggregations(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        prune.l1_unstructured(module.get_submodule("block1.layer2.aggregation"), "weight", amount=2)
    for _ in range(2):
        expected, found = network(images), compiled(images)
        torch.testing.assert_close(found, expected)
        found.sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # an aggregation's input is a list
@pytest.mark.parametrize("part", ["norm1", "act1", "conv1", "aggregation"])
@pytest.mark.parametrize("pair", ["depthwise", "sum"], indirect=True)
def test_backward_hooks_run(pair: tuple[Network, nn.Module, torch.Tensor], part: str) -> None:
    _, compiled, images = pair
    seen: list[nn.Module] = []
    module = compiled.get_submodule(f"block1.layer2.{part}")
    module.register_full_backward_hook(lambda found, *_: seen.append(found))
    compiled(images).sum().backward()
    assert seen == [module]
