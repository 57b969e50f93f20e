"""Whether a compiled network computes what its definition does: values, gradients, running statistics.

Initial values hide errors (weights of 1/n, means of 0): parameters and statistics are drawn at random.
In float64 two ways to compute differ by rounding alone, so that any other difference shows; in the working
precision, in which other kernels run, the compiled network may be little further from the truth than its
definition in that precision is: as it is, and with images and parameters changed by a rounding, which turns
a ReLU on or off that is next to zero.
"""

from __future__ import annotations

import copy
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn.compiled import CompiledNetwork
from connsearch.nn.form import laid_out
from connsearch.nn.network import Network
from connsearch.nn.outcome import Draws, Each, Outcome, explained, greatest
from connsearch.nn.verification import Errors, Verification
from connsearch.nn.ways import DEFINITION, own_module
from connsearch.spec.network import NetworkSpec

EXACT = 1e-10  # allowed in float64
ROUNDINGS = 1000  # how many times as far as one change by rounding another way to compute may be off
DRAWS = 16  # runs of a definition at the most, whose errors hang on single roundings
NUDGE = 1e-6  # by which these are changed at the least: a little more than another way to compute rounds


class Comparison:
    """A definition with random parameters in float64, what it computes, and how far others are from that.

    Args:
        spec: The network.
        device: Where to run.
        batch: Images in a batch.
        steps: Batches that move the running statistics.
        seed: Of parameters, statistics and images.
        channels_last: Whether images and convolutions of what is compared have their channels last.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        device: str = "cpu",
        batch: int = 4,
        steps: int = 3,
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        self._spec, self._device, self._seed = spec, device, seed
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._own: dict[torch.dtype, Each] = {}
        self._draws: dict[torch.dtype, Draws] = {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._network = Network(spec).to(device, torch.float64)
            randomise(self._network)
            shape = (spec.input.channels, spec.input.height, spec.input.width)
            self._images = torch.randn(steps, batch, *shape, dtype=torch.float64, device=device)
            self._expected = _run(copy.deepcopy(self._network), self._images, seed)

    @cached_property
    def rounding(self) -> Errors:
        """How far the definition in float64 is from itself when images and parameters change by rounding.

        A norm over few pixels, or over channels that hardly vary, amplifies that a thousandfold.
        """
        with torch.random.fork_rng():
            changed = nudged(self._network, self._images, 8 * torch.finfo(torch.float64).eps)
            return greatest(self._run(*changed).errors(self._expected))

    def errors(self, way: str, dtype: torch.dtype = torch.float64) -> Errors:
        """Return the errors of a pipeline, or of another way of `connsearch.nn.ways`, in a precision.

        Raises:
            SpecError: if there is no such pipeline, or the way is torch's own compiler.
        """
        return greatest(self._errors(way, dtype))

    def _errors(self, way: str, dtype: torch.dtype) -> Each:
        network = laid_out(copy.deepcopy(self._network).to(dtype), self._format)
        module = own_module(way, network)
        if module is None:
            raise SpecError(f"way {way!r} is not verified: it is torch's own")
        return self._run(module, self._images.to(dtype)).errors(self._expected)

    def _run(self, module: Network | CompiledNetwork, images: Tensor) -> Outcome:
        with torch.random.fork_rng():
            return _run(module, images, self._seed, self._format)

    def verification(self, way: str, dtype: torch.dtype = torch.float32) -> Verification:
        """Compare a way in float64 and in a working precision, in which the definition is run as well."""
        exact, ours = self.errors(way), self._errors(way, dtype)
        if dtype not in self._own:
            self._own[dtype] = self._errors(DEFINITION, dtype)
            self._draws[dtype] = Draws(partial(self._drawn, dtype), DRAWS)
        own, excess = explained(ours, self._own[dtype], dtype, self._draws[dtype])
        return Verification(
            self._spec.name,
            way,
            self._device,
            dtype,
            self._format == torch.channels_last,
            exact,
            self.allowed(exact),
            greatest(ours),
            greatest(own),
            excess,
        )

    def _drawn(self, dtype: torch.dtype, number: int) -> Each:
        """Return the errors of the definition in a precision, images and parameters changed by a rounding.

        A ReLU that is next to zero, or a norm over channels that hardly vary, may turn that into any error.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self._seed + number)
            network, images = nudged(self._network, self._images, nudge_of(dtype))
        return self._run(network.to(dtype), images.to(dtype)).errors(self._expected)

    def allowed(self, exact: Errors) -> Errors:
        """Return the greatest errors in float64 that are rounding: 1e-10, or more where that is amplified."""
        if max(exact) <= EXACT:
            return Errors(EXACT, EXACT, EXACT, EXACT)
        return Errors(*(max(EXACT, ROUNDINGS * error) for error in self.rounding))


def verify_network(
    spec: NetworkSpec,
    *,
    pipeline: str = "fused",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int = 4,
    steps: int = 3,
    seed: int = 0,
    channels_last: bool = False,
) -> Verification:
    """Compare a compiled network with its definition, in float64 and in its working precision.

    Args:
        spec: The network.
        pipeline: How to compile.
        device: Where to run.
        dtype: The working precision.
        batch: Images in a batch.
        steps: Batches that move the running statistics.
        seed: Of parameters, statistics and images.
        channels_last: Whether images and convolutions have their channels last in memory.
    """
    found = Comparison(spec, device=device, batch=batch, steps=steps, seed=seed, channels_last=channels_last)
    return found.verification(pipeline, dtype)


def randomise(network: nn.Module) -> None:
    """Draw parameters and running statistics around their initial values, so that no two are equal."""
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.std() if parameter.numel() > 1 else parameter.abs().max()
            noise = torch.randn_like(parameter) / max(1, _fan_in(parameter)) ** 0.5
            parameter.add_((0.3 * spread + 0.1) * noise)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer += 0.5 * torch.rand_like(buffer)


def nudge_of(dtype: torch.dtype) -> float:
    """Return by how much values are changed so that a ReLU may turn as it may turn in a precision."""
    return max(NUDGE, torch.finfo(dtype).eps)


def nudged(network: Network, images: Tensor, by: float) -> tuple[Network, Tensor]:
    """Return another network and images, each parameter and pixel off by about so much of itself."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + by * torch.randn_like(parameter))
    return network, images * (1 + by * torch.randn_like(images))


def _fan_in(parameter: Tensor) -> int:
    return parameter[0].numel() if parameter.dim() > 2 else 1


def _run(
    module: Network | CompiledNetwork,
    batches: Tensor,
    seed: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Outcome:
    """Return what a network gives out and leaves behind, the gradients summed over all batches."""
    module.train()
    values, inputs = [], []
    for step, images in enumerate(batches):
        images = images.clone(memory_format=memory_format).requires_grad_(True)
        torch.manual_seed(seed + step)  # for what training draws
        heads = [*module.logits_by_head(images).values()]
        torch.manual_seed(seed + step)
        losses = [(logits * torch.randn(logits.shape).to(logits)).sum() for logits in heads]
        torch.autograd.backward(torch.stack(losses).sum())
        values += [logits.detach() for logits in heads]
        inputs.append(images.grad)
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    module.eval()
    with torch.no_grad():
        images = batches[-1].contiguous(memory_format=memory_format)
        inference = [*module.logits_by_head(images).values()]
    statistics = [buffer.clone() for buffer in module.buffers()]
    return Outcome(values, [g for g in inputs if g is not None] + gradients, statistics, inference)
