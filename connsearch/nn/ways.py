"""Ways to run a network: as defined, as its paper does, by a pipeline, by torch's compiler, as a CUDA graph.

A pipeline is a way; the others are there to be measured beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.errors import SpecError, did_you_mean
from connsearch.ir.lower import lower
from connsearch.ir.pipelines import INFERENCE, PIPELINES
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise, Sources
from connsearch.nn.compiled import CompiledNetwork, build
from connsearch.nn.network import Network
from connsearch.nn.tracing import draws_sources
from connsearch.spec.network import NetworkSpec

DEFINITION, STACKED = "definition", "stacked"
TORCH_COMPILE, MAX_AUTOTUNE = "torch.compile", "torch.compile max-autotune"
CUDA_GRAPH = "cuda graph"
GRAPHED = "fused"  # the pipeline that the CUDA graph is of
WAYS = (
    DEFINITION,
    STACKED,
    TORCH_COMPILE,
    MAX_AUTOTUNE,
    *(name for name in PIPELINES if name != INFERENCE),
    CUDA_GRAPH,
)
MODES = ("train", "inference")  # kinds of steps
WARM_UP = 3  # steps before a capture: libraries make what they keep at their first calls
Do = Callable[[], None]


class Steps(NamedTuple):
    """A network made ready to run in one way.

    Attributes:
        step: Runs a step of training or evaluation, and waits for the device.
        allocate: Allocates what a step needs: the step itself, or the capture of its graph.
        release: Releases gradients and logits.
        logits: Returns what the latest step gave out.
    """

    step: Do
    allocate: Do
    release: Do
    logits: Callable[[], Tensor]


def check_ways(ways: Sequence[str], spec: NetworkSpec, device: str, *, train: bool) -> None:
    """Refuse what is no way to run a network there.

    Raises:
        SpecError: if a name is unknown, or CUDA graphs are asked for where there are none, or of a network
            that decides at random, on the CPU, what a step computes.
    """
    for way in ways:
        if way not in WAYS:
            raise SpecError(f"unknown way {way!r}. {did_you_mean(way, WAYS)}")
    if CUDA_GRAPH in ways:
        _check_graph(spec, device, train=train)


def check_verified(ways: Sequence[str], spec: NetworkSpec, device: str) -> None:
    """Refuse what cannot be verified there.

    Raises:
        SpecError: as `check_ways`, and for the definition and torch's own compiler.
    """
    known = [way for way in WAYS if verifies(way)]
    for way in ways:
        if way in WAYS and way not in known:
            why = "it is what others are compared with" if way == DEFINITION else "it is torch's own"
            raise SpecError(f"way {way!r} is not verified: {why}. Verified are {', '.join(known)}")
        if way == INFERENCE:
            raise SpecError(
                f"pipeline {way!r} has no gradients: evaluation runs it by itself, and is verified with "
                f"{GRAPHED!r}"
            )
        if way not in known:
            raise SpecError(f"unknown way {way!r}. {did_you_mean(way, known)}")
    if CUDA_GRAPH in ways:
        _check_graph(spec, device, train=True)


def _check_graph(spec: NetworkSpec, device: str, *, train: bool) -> None:
    if torch.device(device).type != "cuda":
        raise SpecError(
            f"way {CUDA_GRAPH!r} needs a CUDA device, not {device!r}: use --device cuda, or leave it out"
        )
    if train and draws_sources(lower(spec)):
        raise SpecError(
            f"way {CUDA_GRAPH!r} would repeat what training of {spec.name} decides at random for each step, "
            "which sources are dropped: leave it out, or measure inference"
        )


def pipeline_of(way: str) -> str | None:
    """Return the pipeline whose program a way runs; None if it runs no program of this package.

    >>> pipeline_of("definition"), pipeline_of("cuda graph"), pipeline_of("torch.compile")
    ('none', 'fused', None)
    """
    named = {DEFINITION: "none", CUDA_GRAPH: GRAPHED}
    return named.get(way, way if way in PIPELINES else None)


def verifies(way: str) -> bool:
    """Return whether a way is of this package, and not the definition itself, so that it can be wrong.

    >>> [way for way in WAYS if not verifies(way)]
    ['definition', 'torch.compile', 'torch.compile max-autotune']
    """
    return way not in (DEFINITION, TORCH_COMPILE, MAX_AUTOTUNE)


def runs_kernels(way: str) -> bool:
    """Return whether a way runs kernels of this package, where a network has something to fuse.

    >>> [way for way in WAYS if runs_kernels(way)]
    ['default', 'fused', 'cuda graph']
    """
    return pipeline_of(way) not in (None, "none")


def own_module(way: str, network: Network) -> Network | CompiledNetwork | None:
    """Return what a way of this package runs, on a network's modules; None for torch's compiler."""
    if way == DEFINITION:
        return network
    if way == STACKED:
        return stacked(network)
    if way in (TORCH_COMPILE, MAX_AUTOTUNE):
        return None
    return build(network, pipeline=GRAPHED if way == CUDA_GRAPH else way)


def steps_of(way: str, network: Network, images: Tensor) -> Steps:
    """Return a network made ready to run in one way, in the mode that it is in.

    Args:
        way: One of `WAYS`.
        network: The network; its modules are used up.
        images: B C H W, on the network's device.
    """
    module: nn.Module | None = own_module(way, network)
    if module is None:
        mode = "max-autotune" if way == MAX_AUTOTUNE else "default"
        module = cast(nn.Module, torch.compile(network, mode=mode))
    if way == CUDA_GRAPH:
        return _graphed(module, images, train=network.training)
    return _stepped(module, images, train=network.training)


def _stepped(module: nn.Module, images: Tensor, *, train: bool) -> Steps:
    given: list[Tensor] = []

    def release() -> None:
        module.zero_grad(set_to_none=True)
        given.clear()

    def step() -> None:
        release()
        given.append(_pass(module, images, train=train))
        _wait(images)

    return Steps(step, step, release, lambda: given[0])


def _pass(module: nn.Module, images: Tensor, *, train: bool) -> Tensor:
    """Run forward and backward, or evaluation without gradients; return the logits."""
    if not train:
        with torch.no_grad():
            return cast(Tensor, module(images))
    logits: Tensor = module(images)
    logits.float().square().mean().backward()  # type: ignore[no-untyped-call]  # torch has no types there
    return logits.detach()


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def _graphed(module: nn.Module, images: Tensor, *, train: bool) -> Steps:
    """Capture a whole step as a CUDA graph, after some on a stream of their own as torch asks for.

    A replay writes gradients and logits anew where the captured step has left them, in the memory of the
    graph.
    """

    def release() -> None:
        module.zero_grad(set_to_none=True)

    def capture() -> tuple[torch.cuda.CUDAGraph, Tensor]:
        release()  # so that gradients are written, not added to, and lie in the memory of the graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = _pass(module, images, train=train)
        return graph, logits

    with torch.cuda.device(images.device):
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types there
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                release()
                _pass(module, images, train=train)
        torch.cuda.current_stream().wait_stream(aside)
        graph, logits = capture()

    def step() -> None:
        graph.replay()
        _wait(images)

    def allocate() -> None:
        with torch.cuda.device(images.device):
            capture()

    return Steps(step, allocate, release, lambda: logits)


def stacked(network: Network) -> Network:
    """Return the network with cross-layer convolutions as the paper describes them, on the same parameters.

    The sources are stacked, which copies them, and convolved with one group for each channel.
    """
    for module in list(network.modules()):
        found = getattr(module, "aggregation", None)
        if isinstance(found, Depthwise | NormalizedDepthwise):
            module.aggregation = Stacked(found)
    return network


class Stacked(nn.Module):
    """The sums of a cross-layer convolution, as the paper describes them, with its parameters."""

    def __init__(self, aggregation: Depthwise | NormalizedDepthwise) -> None:
        super().__init__()
        self.weights = aggregation

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        form = self.weights
        channels = sources[0].shape[1]
        h_BKHW = torch.stack(list(sources), dim=2).flatten(1, 2)
        weight_C1L = form.weight.t().reshape(channels, -1, 1, 1)
        if isinstance(form, Depthwise):
            return F.conv2d(h_BKHW, weight_C1L, form.bias, groups=channels)
        if form.training:
            form.num_batches_tracked += 1
        mean, var = (b.t().flatten().clone() for b in (form.running_mean, form.running_var))
        weight, bias = form.weight.t().flatten(), form.bias.t().flatten()
        h_BKHW = F.batch_norm(h_BKHW, mean, var, weight, bias, form.training, form.momentum, form.eps)
        if form.training:  # what it has moved are copies
            form.running_mean.copy_(mean.view(channels, -1).t())
            form.running_var.copy_(var.view(channels, -1).t())
        return F.conv2d(h_BKHW, torch.ones_like(weight_C1L), groups=channels)
