"""Limits on what a network costs on this machine: milliseconds and bytes, measured before it is trained.

What is exact (MACs, parameters) is met by construction. What only a machine knows is measured early, on the
device that would train, with a network of the trial's shape that is then thrown away; a network over a limit
is not trained. What was measured is recorded before it decides anything, so that a trial that is taken up
again decides the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from connsearch.config import Config
from connsearch.cost import NetworkCost
from connsearch.errors import ConnsearchError
from connsearch.search.failures import Failure
from connsearch.search.memory import check_memory
from connsearch.search.objective import enough_memory
from connsearch.spec.network import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

    from connsearch.train.config import TrainConfig

MEASURED = "measured"
"""The attribute of a trial with what was measured of its network, by the names of limits."""
LIMITED = ("inference_ms", "training_step_ms", "peak_memory_bytes")
WARM_UP, REPEATS = 3, 11
Positive = Annotated[float, Field(gt=0)]


class Limits(Config):
    """The `[constraints]` table of a study: greatest values that a network may have. None: no limit.

    Attributes:
        inference_ms: Median milliseconds of a forward pass in evaluation, without gradients, in float32, of
            `inference_batch` images.
        inference_batch: Images of that batch; no limit itself.
        training_step_ms: Median milliseconds of a step of training (forward, backward, optimizer) with a
            batch of `train.batch_size` images that are on the device.
        peak_memory_bytes: The most that a step of training has allocated at once with such a batch: weights,
            gradients, moments, activations, temporary memory; neither the data set, nor what libraries take
            from the system by themselves.
    """

    inference_ms: Positive | None = None
    inference_batch: int = Field(1, ge=1)
    training_step_ms: Positive | None = None
    peak_memory_bytes: int | None = Field(None, ge=1)

    def bounds(self) -> dict[str, float]:
        """Return the limits that there are, by name."""
        found = {name: getattr(self, name) for name in LIMITED}
        return {name: value for name, value in found.items() if value is not None}

    def violations(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return by what share of it each limit is exceeded; 0 or less where it is kept.

        >>> Limits(inference_ms=5.0).violations({"inference_ms": 7.5})
        {'inference_ms': 0.5}
        """
        return {name: measured[name] / bound - 1.0 for name, bound in self.bounds().items()}

    def check(self, measured: Mapping[str, float]) -> None:
        """Refuse a network that exceeds a limit.

        Raises:
            LimitError: naming each limit that it exceeds.
        """
        over = {name: bound for name, bound in self.bounds().items() if measured[name] > bound}
        if over:
            reason = ", ".join(f"{name} over {_plain(bound)}" for name, bound in over.items())
            words = (f"{name} {_plain(measured[name])} over {_plain(bound)}" for name, bound in over.items())
            raise LimitError(Failure(reason, ", ".join(words)))


class LimitError(ConnsearchError):
    """A network costs more than the study allows, as measured.

    Attributes:
        failure: In words, and in words without what was measured, to be counted.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def _plain(value: float) -> str:
    """Return a value to three figures, as people write it; counts as they are."""
    return str(value) if isinstance(value, int) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def measure(
    spec: NetworkSpec, cost: NetworkCost, train: TrainConfig, limits: Limits, device: str
) -> dict[str, float]:
    """Return what has a limit, measured on a network of this shape with fresh weights.

    Steps of training and of inference take turns, after a few that are not counted, so that a machine
    that is busy for a while slows both; the median is taken. Random state and threads are left as they were.

    Args:
        spec: The network.
        cost: Its cost.
        train: How it would be trained: pipeline, precision, optimizer, batch, threads, data.
        limits: What to measure.
        device: Where it would be trained.

    Raises:
        OutOfMemoryError: if memory does not suffice.
        TrainError, DataError: as `connsearch.train.train`.
    """
    import torch

    from connsearch.train.surroundings import kept_random_state, limited_threads

    check_memory(cost, train, device)
    with enough_memory(device), kept_random_state(torch.device(device)), limited_threads(train.threads):
        found = _times(spec, train, limits, device)
        if limits.peak_memory_bytes is not None:
            found["peak_memory_bytes"] = _peak(spec, train, device)
    return found


def _times(spec: NetworkSpec, train: TrainConfig, limits: Limits, device: str) -> dict[str, float]:
    """Return the medians of the steps that have a limit, in milliseconds."""
    from connsearch.data import load_dataset
    from connsearch.train.loop import training_step

    steps: dict[str, Callable[[], object]] = {}
    if limits.inference_ms is not None:
        steps["inference_ms"] = _inference_step(spec, train, limits.inference_batch, device)
    if limits.training_step_ms is not None:
        data = load_dataset(train.dataset)
        steps["training_step_ms"] = training_step(_made(spec, train), data, train, device=device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + REPEATS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            _wait(device)
            elapsed = time.perf_counter() - began
            if turn >= WARM_UP:
                times[name].append(1000 * elapsed)
    return {name: statistics.median(each) for name, each in times.items()}


def _peak(spec: NetworkSpec, train: TrainConfig, device: str) -> int:
    """Return the bytes of the network itself, and what two steps of training have at once beside it."""
    from connsearch.data import load_dataset
    from connsearch.nn.peak import peak_bytes
    from connsearch.train.loop import training_step

    network = _made(spec, train)
    step = training_step(network, load_dataset(train.dataset), train, device=device)
    own: int = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return own + peak_bytes(lambda: (step(), step()), device)  # the second has the first one's moments


def _made(spec: NetworkSpec, train: TrainConfig) -> nn.Module:
    from connsearch.nn import build

    return build(spec, pipeline=train.pipeline)


def _inference_step(spec: NetworkSpec, train: TrainConfig, batch: int, device: str) -> Callable[[], object]:
    import torch

    network = _made(spec, train).to(device).eval()
    shape = spec.input.channels, spec.input.height, spec.input.width
    images_BCHW = torch.randn(batch, *shape, device=device)

    def step() -> object:
        with torch.no_grad():
            return network(images_BCHW)

    return step


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
