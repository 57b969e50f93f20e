"""Whether a compiled network computes what its definition does: values, gradients, running statistics.

Initial values hide errors (weights of 1/n, means of 0): parameters and statistics are drawn at random.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from connsearch.errors import VerifyError
from connsearch.nn.compiled import CompiledNetwork, build
from connsearch.nn.network import Network
from connsearch.spec.network import NetworkSpec
from connsearch.text import table

EXACT = 1e-10  # allowed in float64
ROUNDINGS = 1000  # how many times as far as one change by rounding another way to compute may be off
SMALL = 1e-2  # below that, values are nothing but rounding: logits and their gradients are of the order of 1
FLIPS = 1e-2  # of gradients in less precision: rounding turns a ReLU on or off that is next to zero
SLACK = 4.0  # how much further from the truth than the definition the compiled network may be
WHAT = ("values", "gradients", "statistics", "inference")


class Errors(NamedTuple):
    """Greatest relative errors of a tensor's values, in the norm |a - b| / |b|, by what is compared.

    Attributes:
        values: Of the logits of all heads, in training.
        gradients: Of the images' and all parameters' gradients.
        statistics: Of running statistics.
        inference: Of the logits in evaluation, without gradients.
    """

    values: float
    gradients: float
    statistics: float
    inference: float


class Verification(NamedTuple):
    """What was compared and how far apart it is.

    Attributes:
        name: The network.
        pipeline: How it was compiled.
        device: Where it ran.
        dtype: Its working precision.
        exact: The compiled network against the definition, both in float64.
        allowed: What of that is rounding, at the most.
        ours: The compiled network in its working precision against the definition in float64.
        definition: The definition in its working precision against itself in float64.
    """

    name: str
    pipeline: str
    device: str
    dtype: torch.dtype
    exact: Errors
    allowed: Errors
    ours: Errors
    definition: Errors

    def raise_if_wrong(self) -> None:
        """Raise unless the compiled network computes what the definition does.

        Raises:
            VerifyError: naming what is wrong and by how much.
        """
        own = torch.finfo(self.dtype).eps
        for what in WHAT:
            exact, allowed = getattr(self.exact, what), getattr(self.allowed, what)
            ours, definition = getattr(self.ours, what), getattr(self.definition, what)
            if not exact <= allowed:
                raise VerifyError(
                    f"{self.name}: {what} of pipeline {self.pipeline!r} are off by {exact:.1e} in float64, "
                    f"more than {allowed:.0e}"
                )
            floor = max(FLIPS, 64 * own) if what == "gradients" else 64 * own
            if not ours <= SLACK * definition + floor:
                raise VerifyError(
                    f"{self.name}: {what} of pipeline {self.pipeline!r} are off by {ours:.1e} in "
                    f"{str(self.dtype).removeprefix('torch.')}, those of the definition by {definition:.1e}"
                )


def verification_table(found: Sequence[Verification]) -> str:
    """Return a line for each pipeline and what is compared: relative errors, the definition's own beside."""
    rows = []
    for v in found:
        precision = str(v.dtype).removeprefix("torch.")
        for what, exact, ours, definition in zip(WHAT, v.exact, v.ours, v.definition, strict=True):
            rows.append([v.pipeline, what, *(f"{error:.1e}" for error in (exact, ours, definition))])
    return table(["pipeline", "what", "float64", precision, f"definition in {precision}"], rows)


class Comparison:
    """A definition with random parameters in float64, what it computes, and how far others are from that.

    Args:
        spec: The network.
        device: Where to run.
        batch: Images in a batch.
        steps: Batches that move the running statistics.
        seed: Of parameters, statistics and images.
    """

    def __init__(
        self, spec: NetworkSpec, *, device: str = "cpu", batch: int = 4, steps: int = 3, seed: int = 0
    ) -> None:
        self._seed = seed
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
        network = copy.deepcopy(self._network)
        with torch.random.fork_rng(), torch.no_grad():
            images = _rounded(self._images)
            for parameter in network.parameters():
                parameter.copy_(_rounded(parameter))
        with torch.random.fork_rng():
            return self._apart(_run(network, images, self._seed))

    def errors(self, pipeline: str | None, dtype: torch.dtype = torch.float64) -> Errors:
        """Return the errors of a pipeline in a precision; of the definition itself, if it is None."""
        network = copy.deepcopy(self._network).to(dtype)
        module = network if pipeline is None else build(network, pipeline=pipeline)
        with torch.random.fork_rng():
            return self._apart(_run(module, self._images.to(dtype), self._seed))

    def allowed(self, exact: Errors) -> Errors:
        """Return the greatest errors in float64 that are rounding: 1e-10, or more where that is amplified."""
        if max(exact) <= EXACT:
            return Errors(EXACT, EXACT, EXACT, EXACT)
        return Errors(*(max(EXACT, ROUNDINGS * error) for error in self.rounding))

    def _apart(self, ours: _Outcome) -> Errors:
        return Errors(*(_greatest(a, b) for a, b in zip(ours, self._expected, strict=True)))


def verify_network(
    spec: NetworkSpec,
    *,
    pipeline: str = "fused",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int = 4,
    steps: int = 3,
    seed: int = 0,
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
    """
    found = Comparison(spec, device=device, batch=batch, steps=steps, seed=seed)
    exact, ours = found.errors(pipeline), found.errors(pipeline, dtype)
    allowed, definition = found.allowed(exact), found.errors(None, dtype)
    return Verification(spec.name, pipeline, device, dtype, exact, allowed, ours, definition)


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


def _rounded(values: Tensor) -> Tensor:
    return values * (1 + 8 * torch.finfo(torch.float64).eps * torch.randn_like(values))


class _Outcome(NamedTuple):
    values: list[Tensor]
    gradients: list[Tensor]
    statistics: list[Tensor]
    inference: list[Tensor]


def _run(module: Network | CompiledNetwork, batches: Tensor, seed: int) -> _Outcome:
    """Return what a network gives out and leaves behind, the gradients summed over all batches."""
    module.train()
    values, inputs = [], []
    for step, images in enumerate(batches):
        images = images.clone().requires_grad_(True)
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
        inference = [*module.logits_by_head(batches[-1]).values()]
    statistics = [buffer.clone() for buffer in module.buffers()]
    return _Outcome(values, [g for g in inputs if g is not None] + gradients, statistics, inference)


def _greatest(ours: Iterable[Tensor], truth: Iterable[Tensor]) -> float:
    """Return the greatest |a - b| / |b| of a pair; small tensors are measured by the size of all."""
    pairs = [(a.double(), b.double()) for a, b in zip(ours, truth, strict=True)]
    n = sum(b.numel() for _, b in pairs)
    typical = (sum(float(b.square().sum()) for _, b in pairs) / max(n, 1)) ** 0.5
    worst = 0.0
    for a, b in pairs:
        least = max(1e-3 * typical, SMALL) * b.numel() ** 0.5
        error = float((a - b).norm() / max(float(b.norm()), least))
        worst = max(worst, error if error == error else float("inf"))
    return worst
