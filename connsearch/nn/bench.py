"""How fast a compiled network is, beside other ways to run the same network, in one interleaved run.

Pipelines that do not verify, in float32, are not timed. Machines are noisy: only ratios within one run mean
something, and of those the medians.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from connsearch.errors import SpecError, did_you_mean
from connsearch.ir.pipelines import INFERENCE, PIPELINES
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise, Sources
from connsearch.nn.compiled import build
from connsearch.nn.network import Network
from connsearch.nn.verify import verify_network
from connsearch.spec.network import NetworkSpec
from connsearch.text import table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OTHERS = ("definition", "stacked", "torch.compile")  # beside pipelines
Step = Callable[[], None]


class Measurement(NamedTuple):
    """One way to run a network.

    Attributes:
        way: A pipeline, `definition`, `stacked` (cross-layer convolutions done the paper's way: sources
            stacked, then a grouped 1x1 convolution) or `torch.compile` (of the definition).
        first_s: From the network never seen before to the end of its first step, its compilation included.
        step_s: Median of a step.
        low_s: A quarter of the steps were faster.
        high_s: A quarter were slower.
        peak_bytes: The most that activations and gradients took at once; 0 where that cannot be told: on a
            CPU in evaluation, and for `torch.compile`.
    """

    way: str
    first_s: float
    step_s: float
    low_s: float
    high_s: float
    peak_bytes: int


def bench_network(
    spec: NetworkSpec,
    ways: Sequence[str] = ("definition", "fused"),
    *,
    train: bool = True,
    batch: int = 64,
    repeats: int = 5,
    device: str = "cpu",
    dtype: str = "float32",
    channels_last: bool = False,
    verify: bool = True,
) -> list[Measurement]:
    """Time a step of a network in several ways, one after the other, again and again.

    Args:
        spec: The network.
        ways: Pipelines, and any of `definition`, `stacked`, `torch.compile`.
        train: Forward, loss and backward; else a forward pass in evaluation.
        batch: Images in a batch.
        repeats: Steps of each way, after the first.
        device: Where to run.
        dtype: "float32", "bfloat16" or "float16", of parameters and images.
        channels_last: Whether images and convolutions have their channels last in memory.
        verify: Whether to compare pipelines with the definition first.

    Raises:
        SpecError: if there is no such way or dtype.
        VerifyError: if a pipeline does not compute what the definition does.
    """
    _check(ways, dtype)
    for way in ways:
        if verify and way in PIPELINES:
            verify_network(spec, pipeline=way, device=device, batch=2, steps=1).raise_if_wrong()
    torch.manual_seed(0)
    network = Network(spec).to(device=device, dtype=DTYPES[dtype]).train(train)
    images = torch.randn(batch, spec.input.channels, spec.input.height, spec.input.width)
    images = images.to(device, DTYPES[dtype])
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    steps, first = {}, {}
    for way in ways:
        began = time.perf_counter()
        steps[way] = _step(_made(way, copy.deepcopy(network)), images, train=train)
        steps[way]()
        first[way] = time.perf_counter() - began
    times = _interleaved(steps, repeats)
    counted = [way for way in steps if images.is_cuda or (train and way != "torch.compile")]
    peaks = dict.fromkeys(steps, 0) | {way: _peak(steps[way], images) for way in counted}
    return [Measurement(way, first[way], *_middle(times[way]), peaks[way]) for way in ways]


def bench_table(measured: Sequence[Measurement]) -> str:
    """Return a table of ways, with how many times faster each is than the first."""
    rows = [
        [
            m.way,
            f"{m.first_s:.2f}",
            f"{1e3 * m.step_s:.1f}",
            f"{1e3 * m.low_s:.1f} to {1e3 * m.high_s:.1f}",
            f"{measured[0].step_s / m.step_s:.2f}",
            f"{m.peak_bytes / 1e6:.1f}" if m.peak_bytes else "-",
        ]
        for m in measured
    ]
    titles = ["way", "first step s", "step ms", "quartiles ms", f"times {measured[0].way}", "peak MB"]
    return table(titles, rows)


def _check(ways: Sequence[str], dtype: str) -> None:
    known = [*(name for name in PIPELINES if name != INFERENCE), *OTHERS]
    for way in ways:
        if way not in known:
            raise SpecError(f"unknown way {way!r}. {did_you_mean(way, known)}")
    if dtype not in DTYPES:
        raise SpecError(f"unknown dtype {dtype!r}. {did_you_mean(dtype, DTYPES)}")


def _made(way: str, network: Network) -> nn.Module:
    if way == "definition":
        return network
    if way == "stacked":
        return stacked(network)
    if way == "torch.compile":
        return cast(nn.Module, torch.compile(network))
    return build(network, pipeline=way)


def _step(module: nn.Module, images: Tensor, *, train: bool) -> Step:
    def infer() -> None:
        with torch.no_grad():
            _synchronised(module(images))

    def step() -> None:
        module.zero_grad(set_to_none=True)
        loss = module(images).float().square().mean()
        loss.backward()
        _synchronised(loss)

    return step if train else infer


def _synchronised(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _interleaved(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {way: [] for way in steps}
    for _ in range(repeats):
        for way, step in steps.items():
            gc.collect()
            began = time.perf_counter()
            step()
            times[way].append(time.perf_counter() - began)
    return times


def _middle(times: list[float]) -> tuple[float, float, float]:
    """Return median and quartiles."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return median, low, high


def _peak(step: Step, images: Tensor) -> int:
    """Return the most bytes alive at once that a step allocated."""
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated() - before)
    with PeakMemory() as memory:
        step()
    return int(memory.peak)


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that torch allocates inside and that are alive at once.

    Attributes:
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, then look at what it gave out."""
        out = func(*args, **(kwargs or {}))
        known = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in known:
                self._add(tensor)
        return out

    def _add(self, tensor: Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self._total += storage.nbytes()
        self.peak = max(self.peak, self._total)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._total -= self._alive.pop(key, 0)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def stacked(network: Network) -> Network:
    """Return the network with cross-layer convolutions as the paper describes them, on the same parameters.

    The sources are stacked, which copies them, and convolved with one group for each channel.
    """
    for module in list(network.modules()):
        found = getattr(module, "aggregation", None)
        if isinstance(found, Depthwise | NormalizedDepthwise):
            module.aggregation = _Stacked(found)
    return network


class _Stacked(nn.Module):
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
        mean, var = (b.t().flatten() for b in (form.running_mean, form.running_var))
        weight, bias = form.weight.t().flatten(), form.bias.t().flatten()
        h_BKHW = F.batch_norm(h_BKHW, mean, var, weight, bias, form.training, form.momentum, form.eps)
        return F.conv2d(h_BKHW, torch.ones_like(weight_C1L), groups=channels)
