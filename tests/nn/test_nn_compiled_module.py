"""The compiled network as a module: copies, gradients, precision, layouts, several processes."""

from __future__ import annotations

import copy
import gc
import io

import pytest
import torch
from pairs import assert_close, blocks, gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from connsearch.errors import KernelError
from connsearch.nn import Network, build
from connsearch.nn.shared import Port, Weights


def test_a_second_backward_pass_gives_the_same(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    loss = compiled(images).square().sum()
    parameters = [*compiled.parameters()]
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert_close([*first], [*torch.autograd.grad(loss, parameters)])


def test_gradients_of_some_parameters_only(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for last in (2, 9):
        found = []
        for module in (network, compiled):
            loss = module(images).square().sum()
            some = [*module.parameters()][-last:]
            partly = torch.autograd.grad(loss, some, retain_graph=True)
            found.append([*partly, *gradients(module, loss)])  # what was left before does not count twice
        assert_close(*found)


def test_frozen_parameters_get_no_gradient(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        for parameter in [*module.parameters()][::2]:
            parameter.requires_grad_(False)
        module(images).square().sum().backward()
    for a, b in zip(network.parameters(), compiled.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-8)


def test_a_norm_in_evaluation_on_its_own(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    found = []
    for module in (network, compiled):
        for child in [m for m in module.modules() if hasattr(m, "running_mean")][::2]:
            child.eval()
        found.append(gradients(module, module(images).square().sum()))
    assert_close(*found)
    assert_close([*network.buffers()], [*compiled.buffers()])


def test_copies_and_saved_states(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    copied = copy.deepcopy(compiled)
    file = io.BytesIO()
    torch.save(compiled.state_dict(), file)
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.zero_()
    file.seek(0)
    fresh = build(copied.spec).double()  # type: ignore[union-attr]
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(images), copied(images))
    assert compiled(images).abs().max() == 0


def test_gradient_checkpointing(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    plain = gradients(compiled, compiled(images).square().sum())
    again = checkpoint(compiled, images, use_reentrant=False)
    assert_close(gradients(compiled, again.square().sum()), plain)


def test_autocast(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = (part.float() for part in pair)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = network(images), compiled(images)
    assert expected.dtype == found.dtype
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * float(expected.detach().std()))
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in compiled.parameters())


@pytest.mark.parametrize(("pipeline", "last"), [("none", False), ("default", True), ("fused", True)])
def test_training_on_a_cpu_lays_maps_out_with_channels_last(pipeline: str, *, last: bool) -> None:
    compiled = build(blocks("dense", "sum"), pipeline=pipeline)
    seen: list[torch.Tensor] = []

    def see(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(images)
        return (images.flatten(1),)

    compiled.emitted[True] = compiled.emitted[True]._replace(forward=see)
    compiled(torch.randn(2, 3, 9, 7))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == last


def test_channels_last(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    expected = gradients(network, network(images).square().sum())
    images = images.to(memory_format=torch.channels_last)
    compiled = compiled.to(memory_format=torch.channels_last)
    assert_close(gradients(compiled, compiled(images).square().sum()), expected)


def test_double_backward_is_refused(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    images.requires_grad_(True)
    with pytest.raises(KernelError, match=r"no second derivatives: build the network with pipeline='none'"):
        torch.autograd.grad(compiled(images).square().sum(), images, create_graph=True)


def test_training_a_compiled_network_gives_the_same_losses() -> None:
    spec = blocks("dense", "depthwise")
    network = Network(spec).double()
    compiled = build(copy.deepcopy(network))
    losses = []
    for module in (network, compiled):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        seen = []
        for _ in range(5):
            images, labels = torch.randn(8, 3, 9, 7, dtype=torch.float64), torch.randint(5, (8,))
            loss = nn.functional.cross_entropy(module(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(float(loss.detach()))
        losses.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
def test_a_step_leaves_nothing_behind(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair

    def step() -> int:
        compiled(images).square().sum().backward()
        compiled.zero_grad()
        gc.collect()
        return sum(type(thing) in (Weights, Port) for thing in gc.get_objects())

    for _ in range(3):  # what earlier tests left may take as many collections to go
        first = step()
    assert [step() for _ in range(3)] == [first] * 3


def test_build_keeps_the_mode_of_a_network() -> None:
    network = Network(blocks("dense", "sum")).eval()
    assert not build(network).training
    assert build(network.train()).training


def test_the_code_is_readable_python() -> None:
    code = build(blocks("dense", "concat", n_layers=2)).code
    assert code.startswith("def forward(self, images):")
    assert "concat_layer([" in code
    assert "self.block1.layer1.conv1" in code
