"""CUDA graphs: a network whose forward and backward pass a GPU repeats without being told each kernel.

Of a small network, or a small batch, the kernels are done sooner than Python and the driver name them. A
graph names them once; `torch.cuda.make_graphed_callables` captures it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from connsearch.errors import KernelError, SpecError
from connsearch.ir.lower import lower
from connsearch.nn.compiled import CompiledNetwork
from connsearch.nn.network import Network
from connsearch.nn.plain import is_plain
from connsearch.nn.tracing import draws_sources
from connsearch.nn.watch import Watch

DEVICE = "cuda"
WARM_UP = 3  # passes before a capture: libraries make what they keep at their first calls


def graphed(network: CompiledNetwork | Network, images: Tensor) -> GraphedNetwork:
    """Return a network as CUDA graphs, in the mode that it is in: forward and, in training, backward.

        network = cs.build(spec, device="cuda")
        step = cs.graphed(network, images)
        loss = cross_entropy(step(images), labels)  # and backward, and any optimizer

    Args:
        network: What `build` returns, or a definition. Its parameters stay its own.
        images: B C H W like those to come, on the network's device. They are only looked at.

    Raises:
        SpecError: if there is no CUDA device, the network is elsewhere, training decides at random, on the
            CPU, which sources it drops, a module has hooks or its own `forward`, or autocast keeps casts.
    """
    return GraphedNetwork(network, images)


class GraphedNetwork(nn.Module):
    """A network as CUDA graphs: images B C H W in, logits of its own head out.

    It shares the modules of the network, hence weights, running statistics and the state dict. Logits and
    gradients lie in the memory of the graphs: the next pass overwrites them (but a `parameter.grad` that is
    still there is added to, as ever). So a backward pass must follow its own forward pass before another.
    In the mode that was not captured the network itself runs, on any images. Where parameters were moved or
    frozen, modes of modules set, and in evaluation where a value has changed, the next call captures anew.

    Raises:
        SpecError: if images differ in shape, type, device or `requires_grad` from those of the capture.
        KernelError: if the backward pass is that of an earlier call, or repeated.
    """

    def __init__(self, network: CompiledNetwork | Network, images: Tensor) -> None:
        super().__init__()
        self._held = (network,)  # in a tuple, as no module of its own: its children are those of this one
        for name, child in network.named_children():
            self.add_module(name, child)
        self.training = network.training
        self._capture = _Capture(network, images)
        self._turn: object = None  # of the forward pass whose backward pass may follow

    @property
    def network(self) -> CompiledNetwork | Network:
        """The network that was captured."""
        return self._held[0]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the network's own head."""
        if self.network.training != self._capture.training:
            return cast(Tensor, self.network(images))
        if _kind(images) != _kind(self._capture.images):
            raise SpecError(f"images are {_named(images)}, the graph is of {_named(self._capture.images)}")
        if not self._capture.is_current():
            self._capture = _Capture(self.network, images)
        logits = self._capture.replay(images)
        self._turn = turn = object()
        if logits.requires_grad:
            logits.register_hook(partial(self._before_backward, turn))  # type: ignore[no-untyped-call]  # torch's
        return logits

    def _before_backward(self, turn: object, _: Tensor) -> None:
        if self._turn is not turn:
            raise KernelError(
                "a CUDA graph goes backward once, before the next forward pass overwrites what it needs: "
                "use the network itself for another order"
            )
        self._turn = None
        for p in self._capture.parameters:  # the graph writes gradients where it wrote those of the last pass
            if p.grad is not None:
                p.grad = p.grad.clone()

    def train(self, mode: bool = True) -> GraphedNetwork:
        """Set training or evaluation, of the network too."""
        self.network.train(mode)
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        raise KernelError("CUDA graphs cannot be copied or saved: copy the network, save its state dict")


class _Capture:
    """The graphs of a network in one mode, what they read, and what they take for granted.

    Attributes:
        training: The mode.
        images: What they read; each call is copied there.
        parameters: Of the network.
    """

    def __init__(self, network: CompiledNetwork | Network, images: Tensor) -> None:
        _check(network, images)
        self.training = network.training
        self.images = images.detach().clone().requires_grad_(images.requires_grad)
        self._run = _graphs(network, self.images)
        self.parameters, self._buffers = [*network.parameters()], [*network.buffers()]
        self._modules = [*network.modules()]
        self._folded = getattr(network, "_inference", None)  # in evaluation: constants that the graph reads
        self._assumed, self._watch = self._assumptions(), Watch(network)

    def replay(self, images: Tensor) -> Tensor:
        """Return the logits."""
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            logits = self._run(images)
        if self.training:
            torch.autograd.graph.increment_version(self._buffers)  # a replay does not count as a change
        return logits

    def is_current(self) -> bool:
        """Return whether the graphs still do what the network would."""
        return self._assumptions() == self._assumed if self.training else self._watch.unchanged()

    def _assumptions(self) -> list[Any]:
        """Return where tensors lie, which want gradients, and the mode of each module."""
        lie = [tensor.data_ptr() for tensor in (*self.parameters, *self._buffers)]
        wanted = [parameter.requires_grad for parameter in self.parameters]
        return [*lie, *wanted, *(module.training for module in self._modules)]


class _Surface(nn.Module):
    """The network as torch's capture sees it, which replaces `forward`: of this, not of the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images))


def _graphs(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the network captured; the passes before that leave its running statistics as they were."""
    buffers = [*network.buffers()] if network.training else []
    before = [buffer.clone() for buffer in buffers]
    try:
        with torch.cuda.device(images.device), torch.set_grad_enabled(network.training):
            made: Any = torch.cuda.make_graphed_callables(
                _Surface(network),
                (images,),
                num_warmup_iters=WARM_UP,
                allow_unused_input=True,  # parameters of other heads
            )
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
    return cast(Callable[[Tensor], Tensor], made)


def _kind(images: Tensor) -> tuple[Any, ...]:
    return images.shape, images.dtype, images.device, images.requires_grad


def _named(images: Tensor) -> str:
    gradients = ", with gradients" if images.requires_grad else ""
    return f"{images.dtype} {' x '.join(map(str, images.shape))} on {images.device}{gradients}"


def _check(network: CompiledNetwork | Network, images: Tensor) -> None:
    """Refuse what cannot be captured."""
    if images.device.type != DEVICE:
        raise SpecError(f"CUDA graphs need images on a CUDA device, not on {images.device}")
    elsewhere = {t.device for t in (*network.parameters(), *network.buffers())} - {images.device}
    if elsewhere:
        raise SpecError(f"the network is on {elsewhere.pop()}, the images are on {images.device}: move one")
    if network.training and draws_sources(lower(network.spec)):
        raise SpecError(
            f"a CUDA graph would repeat what training of {network.spec.name} decides at random for each "
            "step, which sources are dropped: use the network itself"
        )
    modules = network.named_modules()
    hooked = [name or "the network" for name, module in modules if not is_plain(module, type(module))]
    if hooked:
        raise SpecError(
            f"{hooked[0]} has hooks or a forward of its own, which no CUDA graph calls: remove them"
        )
    if torch.is_autocast_enabled(DEVICE) and torch.is_autocast_cache_enabled():
        raise SpecError("autocast keeps casts, which a CUDA graph would repeat: give it cache_enabled=False")
