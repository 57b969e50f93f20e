"""Whether what is timed computes what the definition does: the same steps, of the same batch and form.

What runs depends on the size of a batch: sums of large maps are begun ahead, a batch is evaluated in parts, a
CUDA graph replays what it captured. Float64 would cost more than what is timed: the definition in the same
form is the truth here, and what a smaller comparison with float64 has found of its errors explains others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from connsearch.errors import VerifyError
from connsearch.nn.form import Form
from connsearch.nn.network import Network
from connsearch.nn.outcome import Draws, Each, Outcome, explained, greatest
from connsearch.nn.verification import WHAT, Errors, Verification, dtype_name
from connsearch.nn.verify import Comparison, nudge_of, nudged, randomise
from connsearch.nn.ways import CUDA_GRAPH, DEFINITION, MODES, check_verified, steps_of
from connsearch.spec.network import NetworkSpec

DRAWS = 8  # further runs of the definition at the most
PART = 1.0  # of the typical value: by it smaller tensors are measured, as some are 0 but for rounding


class AsTimed:
    """A definition with random parameters, and what a step of it gives in the form in which ways are timed.

    Args:
        spec: The network.
        form: Of the network and its images.
        batch: Images in a batch; at least 2 are taken, for norms over a single pixel.
    """

    def __init__(self, spec: NetworkSpec, form: Form, batch: int) -> None:
        self._spec, self._form = spec, form
        self._truth: dict[str, Outcome] = {}
        self._draws = {mode: Draws(partial(self._drawn, mode), DRAWS) for mode in MODES}
        self._network, self._images = form.network(spec), form.images(spec, max(2, batch))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            randomise(self._network)

    def check(self, way: str, mode: str, definition: Errors) -> None:
        """Raise unless a way gives what the definition does.

        Args:
            way: One of `connsearch.nn.ways.WAYS`.
            mode: One of `MODES`.
            definition: How far the definition in its precision is from itself in float64.

        Raises:
            VerifyError: naming what is wrong and by how much.
        """
        errors, excess = self.apart(way, mode, definition)
        for what in WHAT:
            error, times = getattr(errors, what), getattr(excess, what)
            if not times <= 1:
                raise VerifyError(
                    f"{self._spec.name}: {what} of {way!r} at a batch of {len(self._images)} are off by "
                    f"{error:.1e} in {dtype_name(self._form.dtype)}, {times:.1f} times what rounding explains"
                )

    def apart(self, way: str, mode: str, definition: Errors) -> tuple[Errors, Errors]:
        """Return how far a way is from the definition, and how many times as far as rounding explains.

        Raises:
            VerifyError: if what the definition gives is not finite.
        """
        if mode not in self._truth:
            self._truth[mode] = self._outcome(DEFINITION, mode, self._network, self._images)
            if max(greatest(self._errors(self._truth[mode], mode))) > 0:
                raise VerifyError(
                    f"{self._spec.name}: what the definition gives at a batch of {len(self._images)} is not "
                    f"finite in {dtype_name(self._form.dtype)}: take another dtype"
                )
        ours = self._errors(self._outcome(way, mode, self._network, self._images), mode)
        own = [[error] * len(errors) for error, errors in zip(definition, ours, strict=True)]
        return greatest(ours), explained(ours, own, self._form.dtype, self._draws[mode])[1]

    def _drawn(self, mode: str, number: int) -> Each:
        """Return how far the definition is from itself if images and parameters change by a rounding."""
        with torch.random.fork_rng():
            torch.manual_seed(number)
            changed = nudged(self._network, self._images, nudge_of(self._form.dtype))
        return self._errors(self._outcome(DEFINITION, mode, *changed), mode)

    def _errors(self, outcome: Outcome, mode: str) -> Each:
        return outcome.errors(self._truth[mode], small=0.0, part=PART)

    def _outcome(self, way: str, mode: str, network: Network, images: Tensor) -> Outcome:
        """Return what a step gives out and leaves behind."""
        own = copy.deepcopy(network).train(mode == "train")
        parameters, buffers = list(own.parameters()), list(own.buffers())
        run = steps_of(way, own, images)
        for buffer, before in zip(buffers, network.buffers(), strict=True):
            buffer.copy_(before)  # a capture has moved it
        with torch.random.fork_rng():
            torch.manual_seed(0)  # for what training draws
            run.step()
        logits = [run.logits().clone()]
        if mode == "inference":
            return Outcome([], [], [], logits)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        return Outcome(logits, gradients, [buffer.clone() for buffer in buffers], [])


def verify_ways(
    spec: NetworkSpec,
    ways: Sequence[str],
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    *,
    device: str = "cpu",
    batch: int = 4,
    steps: int = 3,
    channels_last: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Verification]:
    """Compare ways to run a network with its definition, in float64 and in each working precision.

    Of a CUDA graph, a replay is compared as well.

    Args:
        spec: The network.
        ways: Those of `connsearch.nn.ways.WAYS` that are verified.
        dtypes: The working precisions.
        device: Where to run.
        batch: Images in a batch.
        steps: Batches that move the running statistics.
        channels_last: Whether images and convolutions have their channels last in memory.
        tell: Is told what is done next.

    Raises:
        SpecError: if there is no such way, or it is not verified.
    """
    check_verified(ways, spec, device)
    tell("running the definition")
    compared = Comparison(spec, device=device, batch=batch, steps=steps, channels_last=channels_last)
    found = []
    for way in ways:
        for dtype in dtypes:
            tell(f"verifying {way} in {dtype_name(dtype)}")
            verified = compared.verification(way, dtype)
            if way == CUDA_GRAPH:
                verified = _replayed(AsTimed(spec, Form(device, dtype, channels_last), batch), verified)
            found.append(verified)
    return found


def _replayed(timed: AsTimed, verified: Verification) -> Verification:
    """Return the verification of what a CUDA graph captured, with that of a replay."""
    for mode in MODES:
        errors, excess = timed.apart(CUDA_GRAPH, mode, verified.definition)
        verified = verified._replace(
            ours=Errors(*map(max, verified.ours, errors)),
            excess=Errors(*map(max, verified.excess, excess)),
        )
    return verified
