"""Whether a compiled network computes what its definition does: values, gradients, running statistics.

Initial values hide errors (weights of 1/n, means of 0): parameters and statistics are drawn at random.
In float64 two ways to compute differ by rounding alone, so that any other difference shows; in the working
precision, in which other kernels run, the compiled network may be little further from the truth than its
definition in that precision is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn.compiled import CompiledNetwork
from connsearch.nn.network import Network
from connsearch.nn.verification import WHAT, Errors, Verification, excess_of
from connsearch.nn.ways import DEFINITION, own_module
from connsearch.spec.network import NetworkSpec

EXACT = 1e-10  # allowed in float64
ROUNDINGS = 1000  # how many times as far as one change by rounding another way to compute may be off
DRAWS = 4  # runs of a definition whose errors hang on single roundings
SMALL = 1e-2  # below that, values are nothing but rounding: logits and their gradients are of the order of 1
Each = list[list[float]]  # for each thing that is compared, the relative errors of its tensors


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
            return _greatest(self._apart(self._run(*self._changed(8 * torch.finfo(torch.float64).eps))))

    def _changed(self, by: float) -> tuple[Network, Tensor]:
        """Return the definition and the images, each parameter and pixel off by about so much of itself."""
        network = copy.deepcopy(self._network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1 + by * torch.randn_like(parameter))
        return network, self._images * (1 + by * torch.randn_like(self._images))

    def errors(self, way: str, dtype: torch.dtype = torch.float64) -> Errors:
        """Return the errors of a pipeline, or of another way of `connsearch.nn.ways`, in a precision.

        Raises:
            SpecError: if there is no such pipeline, or the way is torch's own compiler.
        """
        return _greatest(self._errors(way, dtype))

    def _errors(self, way: str, dtype: torch.dtype) -> Each:
        network = copy.deepcopy(self._network).to(dtype)
        network.to(memory_format=self._format)  # type: ignore[call-overload]  # torch documents it
        module = own_module(way, network)
        if module is None:
            raise SpecError(f"way {way!r} is not verified: it is torch's own")
        return self._apart(self._run(module, self._images.to(dtype)))

    def _run(self, module: Network | CompiledNetwork, images: Tensor) -> _Outcome:
        with torch.random.fork_rng():
            return _run(module, images, self._seed, self._format)

    def verification(self, way: str, dtype: torch.dtype = torch.float32) -> Verification:
        """Compare a way in float64 and in a working precision, in which the definition is run as well."""
        exact, ours = self.errors(way), self._errors(way, dtype)
        if dtype not in self._own:
            self._own[dtype] = self._errors(DEFINITION, dtype)
        own = self._own[dtype]
        if max(_excess(ours, own, dtype)) > 1:
            own = self._most(dtype)
        return Verification(
            self._spec.name,
            way,
            self._device,
            dtype,
            self._format == torch.channels_last,
            exact,
            self.allowed(exact),
            _greatest(ours),
            _greatest(own),
            _excess(ours, own, dtype),
        )

    def _most(self, dtype: torch.dtype) -> Each:
        """Return the greatest errors of the definition in a precision, tensor by tensor, of several runs.

        Each but the first has images and parameters changed by a rounding: a ReLU that is next to zero, or
        a norm over channels that hardly vary, may turn that into any error.
        """
        runs = [self._own[dtype]]
        for draw in range(DRAWS):
            with torch.random.fork_rng():
                torch.manual_seed(self._seed + draw)
                network, images = self._changed(torch.finfo(dtype).eps)
            runs.append(self._apart(self._run(network.to(dtype), images.to(dtype))))
        return [[max(errors) for errors in zip(*of_all, strict=True)] for of_all in zip(*runs, strict=True)]

    def allowed(self, exact: Errors) -> Errors:
        """Return the greatest errors in float64 that are rounding: 1e-10, or more where that is amplified."""
        if max(exact) <= EXACT:
            return Errors(EXACT, EXACT, EXACT, EXACT)
        return Errors(*(max(EXACT, ROUNDINGS * error) for error in self.rounding))

    def _apart(self, ours: _Outcome) -> Each:
        return [_relative(a, b) for a, b in zip(ours, self._expected, strict=True)]


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


def _fan_in(parameter: Tensor) -> int:
    return parameter[0].numel() if parameter.dim() > 2 else 1


class _Outcome(NamedTuple):
    values: list[Tensor]
    gradients: list[Tensor]
    statistics: list[Tensor]
    inference: list[Tensor]


def _run(
    module: Network | CompiledNetwork,
    batches: Tensor,
    seed: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> _Outcome:
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
    return _Outcome(values, [g for g in inputs if g is not None] + gradients, statistics, inference)


def _relative(ours: Iterable[Tensor], truth: Iterable[Tensor]) -> list[float]:
    """Return |a - b| / |b| of each pair; small tensors are measured by the size of all."""
    pairs = [(a.double(), b.double()) for a, b in zip(ours, truth, strict=True)]
    n = sum(b.numel() for _, b in pairs)
    typical = (sum(float(b.square().sum()) for _, b in pairs) / max(n, 1)) ** 0.5
    found = []
    for a, b in pairs:
        least = max(1e-3 * typical, SMALL) * b.numel() ** 0.5
        error = float((a - b).norm() / max(float(b.norm()), least))
        found.append(error if error == error else inf)
    return found


def _greatest(found: Each) -> Errors:
    return Errors(*(max(errors, default=0.0) for errors in found))


def _excess(ours: Each, definition: Each, dtype: torch.dtype) -> Errors:
    return Errors(*(excess_of(*pair, dtype) for pair in zip(WHAT, ours, definition, strict=True)))
