"""A compiled network in what torch asks of a module: other modes of autograd, types, devices, processes."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import threading
from pathlib import Path

import in_parallel
import pytest
import torch
from pairs import assert_close, blocks, gradients
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import copies
from connsearch.nn import Network, build
from connsearch.nn.shared import AtPort

Pair = tuple[Network, nn.Module, Tensor]

FROZEN_STEM = """
import torch, connsearch as cs
for norm in ("layer", "instance"):
    block = {"topology": "dense", "aggregation": "sum", "unit": f"basic(norm={norm})", "n_layers": 3}
    image = {"channels": 3, "height": 8, "width": 8}
    spec = {"input": image, "n_classes": 5, "blocks": [{**block, "width": 4}] * 2}
    model = cs.build(cs.NetworkSpec.from_dict(spec))
    model.stem.requires_grad_(False)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    print(norm, sum(p.grad is not None for p in model.parameters()) > 0)
"""


def test_a_frozen_stem_before_group_norms() -> None:
    found = subprocess.run([sys.executable, "-c", FROZEN_STEM], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "layer True\ninstance True\n"), found.stderr[-500:]


@pytest.mark.parametrize("replaced", [False, True])
def test_group_norms_train_without_channels_last(*, replaced: bool) -> None:
    spec = blocks("dense", "sum", "basic")
    compiled = build(spec)
    if replaced:
        compiled.block1.layer1.norm1 = nn.GroupNorm(1, compiled.block1.layer1.norm1.num_features)  # type: ignore[union-attr,arg-type]
    seen: list[Tensor] = []
    compiled.stem.register_forward_pre_hook(lambda *_: None)
    compiled.get_submodule("stem.conv1").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    compiled(torch.randn(2, 3, 9, 7))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) != replaced


def checkpointed(module: nn.Module, images: Tensor) -> list[Tensor]:
    loss = checkpoint(module, images, use_reentrant=False).square().sum()
    return [*gradients(module, loss), *module.buffers()]


def test_gradient_checkpointing_moves_statistics_as_the_definition(pair: Pair) -> None:
    network, compiled, images = pair
    assert_close(checkpointed(compiled, images), checkpointed(network, images))


def two_losses(network: nn.Module, images: Tensor) -> list[Tensor]:
    logits = network(images)
    return [logits.square().sum(), logits.pow(3).sum()]


def test_two_threads_go_backward_through_one_graph(pair: Pair) -> None:
    _, compiled, images = pair
    parameters, losses = [*compiled.parameters()], two_losses(compiled, images)
    expected = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    wrong: list[BaseException] = []
    together = threading.Barrier(2)

    def run(i: int) -> None:
        for _ in range(10):
            together.wait()
            try:
                found = torch.autograd.grad(losses[i], parameters, retain_graph=True)
                assert_close([*found], [*expected[i]])
            except (AssertionError, RuntimeError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_backward_pass_inside_another(pair: Pair) -> None:
    _, compiled, images = pair
    parameters, losses = [*compiled.parameters()], two_losses(compiled, images)
    expected = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    inner: list[list[Tensor]] = []
    conv = compiled.get_submodule("block1.layer2.conv1").weight
    assert isinstance(conv, Tensor)
    conv.register_hook(
        lambda _: (
            inner.append([*torch.autograd.grad(losses[1], parameters[-40:], retain_graph=True)])
            if len(inner) < 1
            else None
        )
    )
    outer = torch.autograd.grad(losses[0], parameters, retain_graph=True)
    assert_close([*outer], [*expected[0]])
    assert_close(inner[0], [*expected[1][-40:]])


@pytest.mark.parametrize("pair", ["depthwise", "concat"], indirect=True)
def test_what_a_pass_did_not_take_is_forgotten(pair: Pair) -> None:
    """Where some gradients only are asked for, readers leave theirs at ports that nothing gathers."""
    _, compiled, images = pair
    parameters, (loss, _) = [*compiled.parameters()], two_losses(compiled, images)
    expected = torch.autograd.grad(loss, parameters, retain_graph=True)

    def left() -> int:
        torch.autograd.grad(loss, parameters[-5:], retain_graph=True)
        return sum(type(thing) is AtPort for thing in gc.get_objects())

    first = left()
    assert first > 0
    assert [left() for _ in range(3)] == [first] * 3
    assert_close([*torch.autograd.grad(loss, parameters)], [*expected])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch's own derivatives
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_tangents_go_through(pair: Pair, *, training: bool, with_gradients: bool) -> None:
    network, compiled, images = pair
    tangents = []
    for module in (network.train(training), compiled.train(training)):
        with torch.set_grad_enabled(with_gradients), forward_ad.dual_level():
            logits = module(forward_ad.make_dual(images, torch.ones_like(images)))
            tangents.append(forward_ad.unpack_dual(logits).tangent)
    torch.testing.assert_close(tangents[1], tangents[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pair", ["depthwise", "concat"], indirect=True)
def test_torch_func_in_training(pair: Pair) -> None:
    network, compiled, images = pair
    found = []
    for module in (network, compiled):
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}

        def loss(parameters: dict[str, Tensor], statistics: dict[str, Tensor]) -> Tensor:
            tensors = (parameters, statistics)
            return torch.func.functional_call(module, tensors, (images,)).square().sum()  # noqa: B023

        found.append([*torch.func.grad(loss)(dict(module.named_parameters()), buffers).values()])
    assert_close(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_torch_jit_traces(pair: Pair, *, training: bool) -> None:
    network, compiled, images = pair
    traced = torch.jit.trace(compiled.train(training), images, check_trace=False)
    others = torch.randn_like(images)
    torch.testing.assert_close(traced(others), network.train(training)(others), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pair", ["depthwise", "concat", "sum"], indirect=True)
def test_no_values_and_no_images(pair: Pair, *, training: bool, with_gradients: bool) -> None:
    network, compiled, images = pair
    for module in (network.train(training), compiled.train(training)):
        with torch.set_grad_enabled(with_gradients):
            assert module(images[:0]).shape == (0, 5)
    assert_close([*compiled.buffers()], [*network.buffers()])
    with torch.set_grad_enabled(with_gradients):
        assert compiled.to("meta")(images.to("meta")).shape == (3, 5)


class InFloat32(nn.Module):
    """A module that autocast does not touch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            found: Tensor = self.inner(x.float())
            return found


@pytest.mark.parametrize("aggregation", ["sum", "mean", "concat", "depthwise", "weighted", "routed"])
def test_autocast_with_a_layer_in_float32(aggregation: str) -> None:
    network = Network(blocks("dense", aggregation, "basic"))
    network.block1.layer1.conv2 = InFloat32(network.block1.layer1.conv2)  # type: ignore[union-attr]
    compiled = build(copy.deepcopy(network))
    exact = copy.deepcopy(network).double()
    exact.block1.layer1.conv2 = exact.block1.layer1.conv2.inner  # type: ignore[union-attr]
    images = torch.randn(4, 3, 9, 7)
    truth = gradients(exact, exact(images.double()).square().mean())
    apart = []
    for module in (network, compiled):
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(images).float().square().mean()
        found = gradients(module, loss)
        apart.append(sum(float((a - b).square().sum()) for a, b in zip(found, truth, strict=True)) ** 0.5)
    assert apart[1] <= 2 * apart[0]


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["depthwise", "concat"])
def test_two_processes_train_together(aggregation: str, tmp_path: Path) -> None:
    images = torch.randn(6, 3, 9, 7, dtype=torch.float64)
    store, out = str(tmp_path / "store"), str(tmp_path / "grads")
    workers = [
        copies.start(in_parallel.gradients_of, rank, store, aggregation, images, out) for rank in range(2)
    ]
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    torch.manual_seed(0)
    network = Network(blocks("dense", aggregation)).double()
    halves = [gradients(network, network(images[rank::2]).square().mean()) for rank in range(2)]
    expected = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
    for rank in range(2):
        assert_close(torch.load(out + str(rank), weights_only=True), expected)
