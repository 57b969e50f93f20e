"""How fast a compiled network is, beside other ways to run the same network, in one interleaved run.

Ways of this package that do not verify, in the dtype and memory format that would be timed, are not timed.
Machines are noisy: only ratios within one run mean something, and of those the medians.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from connsearch.errors import SpecError, did_you_mean
from connsearch.ir import bytes_moved, least_saved, lower, optimize, saved_elements
from connsearch.ir.evaluation import moved_in_evaluation
from connsearch.ir.floor import least_moved
from connsearch.ir.pipelines import INFERENCE
from connsearch.nn.network import Network
from connsearch.nn.peak import peak_bytes
from connsearch.nn.verification import working_dtype
from connsearch.nn.verify import Comparison
from connsearch.nn.ways import DEFINITION, Steps, check_ways, pipeline_of, steps_of, verifies
from connsearch.spec.network import NetworkSpec
from connsearch.text import table

MODES = ("train", "inference")
Case = tuple[str, str]  # a way and a mode


class Modelled(NamedTuple):
    """What a step moves and keeps, by the model of `connsearch.ir`, in bytes of a batch.

    Attributes:
        bytes_moved: Between memory and processor; None for ways that run no program of this package.
        least_bytes_moved: The least that a step of the network can move.
        saved_bytes: Kept of the forward pass for backward; 0 in evaluation, None as above.
        least_saved_bytes: The least that can be kept.
    """

    bytes_moved: int | None
    least_bytes_moved: int
    saved_bytes: int | None
    least_saved_bytes: int


class Measurement(NamedTuple):
    """One way to run a network.

    Attributes:
        way: A pipeline, or another of `connsearch.nn.ways.WAYS`.
        mode: "train": forward, loss and backward; "inference": evaluation without gradients.
        first_s: From the network never seen before to the end of its first step, its compilation included.
        step_s: Median of a step.
        low_s: A quarter of the steps were faster.
        high_s: A quarter were slower.
        peak_bytes: The most that a step has allocated at once: activations, gradients, temporary memory.
        bytes_moved: See `Modelled`, as the following.
        least_bytes_moved: Likewise.
        saved_bytes: Likewise.
        least_saved_bytes: Likewise.
    """

    way: str
    mode: str
    first_s: float
    step_s: float
    low_s: float
    high_s: float
    peak_bytes: int
    bytes_moved: int | None
    least_bytes_moved: int
    saved_bytes: int | None
    least_saved_bytes: int


def bench_network(
    spec: NetworkSpec,
    ways: Sequence[str] = (DEFINITION, "fused"),
    *,
    modes: Sequence[str] = ("train",),
    batch: int = 64,
    repeats: int = 5,
    device: str = "cpu",
    dtype: str = "float32",
    channels_last: bool = False,
    verify: bool = True,
) -> list[Measurement]:
    """Time a step of a network in several ways, one after the other, again and again.

    A step of the definition on one image more comes before all, so that the first way to run does not pay
    for what the process does once.

    Args:
        spec: The network.
        ways: Pipelines, and others of `connsearch.nn.ways.WAYS`.
        modes: "train" (forward, loss and backward), "inference" (evaluation without gradients) or both.
        batch: Images in a batch.
        repeats: Steps of each way, after the first.
        device: Where to run.
        dtype: "float32", "bfloat16" or "float16", of parameters and images.
        channels_last: Whether images and convolutions have their channels last in memory.
        verify: Whether to compare ways of this package with the definition first, as they will run.

    Raises:
        SpecError: if there is no such way, mode or dtype, or no CUDA device for CUDA graphs.
        VerifyError: if a way does not compute what the definition does.
    """
    working = working_dtype(dtype)
    for mode in modes:
        if mode not in MODES:
            raise SpecError(f"unknown mode {mode!r}. {did_you_mean(mode, MODES)}")
    if repeats < 1:
        raise SpecError(f"repeats must be 1 or more, got {repeats}")
    check_ways(ways, spec, device, train="train" in modes)
    checked = [way for way in ways if verifies(way)] if verify else []
    if checked:
        compared = Comparison(spec, device=device, steps=2, channels_last=channels_last)
        for way in checked:
            compared.verification(way, working).raise_if_wrong()
        del compared
    network, images = _made(spec, batch + 1, device, working, channels_last=channels_last)
    for mode in modes:
        steps_of(DEFINITION, copy.deepcopy(network).train(mode == "train"), images).step()
    cases = [(way, mode) for way in ways for mode in modes]
    return _measured(spec, cases, network, images[:batch].clone(), repeats)


def _made(
    spec: NetworkSpec, batch: int, device: str, dtype: torch.dtype, *, channels_last: bool
) -> tuple[Network, Tensor]:
    """Return a network and images as they are to run."""
    torch.manual_seed(0)
    network = Network(spec).to(device=device, dtype=dtype)
    images = torch.randn(batch, spec.input.channels, spec.input.height, spec.input.width)
    images = images.to(device, dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    return network, images


def _measured(
    spec: NetworkSpec, cases: Sequence[Case], network: Network, images: Tensor, repeats: int
) -> list[Measurement]:
    steps: dict[Case, Steps] = {}
    first: dict[Case, float] = {}
    for way, mode in cases:
        own = copy.deepcopy(network).train(mode == "train")
        gc.collect()
        began = time.perf_counter()
        steps[way, mode] = steps_of(way, own, images)
        steps[way, mode].step()
        first[way, mode] = time.perf_counter() - began
    times = _interleaved(steps, repeats)
    size = len(images) * images.element_size()
    return [
        Measurement(
            *case,
            first[case],
            *_middle(times[case]),
            _peak(steps[case], images),
            *modelled(spec, *case, size),
        )
        for case in cases
    ]


def _interleaved(steps: dict[Case, Steps], repeats: int) -> dict[Case, list[float]]:
    times: dict[Case, list[float]] = {case: [] for case in steps}
    for _ in range(repeats):
        for case, run in steps.items():
            gc.collect()
            began = time.perf_counter()
            run.step()
            times[case].append(time.perf_counter() - began)
            run.release()
    return times


def _middle(times: list[float]) -> tuple[float, float, float]:
    """Return median and quartiles."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return median, low, high


def _peak(run: Steps, images: Tensor) -> int:
    run.release()
    found = peak_bytes(run.allocate, images.device)
    run.release()
    return found


def modelled(spec: NetworkSpec, way: str, mode: str, element_bytes: int) -> Modelled:
    """Return what a step moves and keeps by the model, beside the least.

    Args:
        spec: The network.
        way: One of `connsearch.nn.ways.WAYS`.
        mode: One of `MODES`.
        element_bytes: Bytes of an element, times the images of a batch.
    """
    lowered, pipeline, training = lower(spec), pipeline_of(way), mode == "train"
    least = least_moved(lowered, training=training) * element_bytes
    least_kept = least_saved(lowered) * element_bytes if training else 0
    if pipeline is None:
        return Modelled(None, least, None, least_kept)
    if training:
        program = optimize(lowered, pipeline)
        moved = bytes_moved(program, batch=1, bytes_per_element=element_bytes)
        return Modelled(moved, least, saved_elements(program) * element_bytes, least_kept)
    folded = pipeline != "none"
    program = optimize(lowered, INFERENCE) if folded else lowered
    return Modelled(moved_in_evaluation(program, folded=folded) * element_bytes, least, 0, least_kept)


def bench_table(measured: Sequence[Measurement]) -> str:
    """Return a table of ways, with how many times faster each is than the first in its mode."""
    first = {m.mode: m for m in reversed(measured)}
    rows = [
        [
            m.way,
            m.mode,
            f"{m.first_s:.2f}",
            f"{1e3 * m.step_s:.1f}",
            f"{1e3 * m.low_s:.1f} to {1e3 * m.high_s:.1f}",
            f"{first[m.mode].step_s / m.step_s:.2f}",
            _mega(m.peak_bytes),
            f"{_mega(m.bytes_moved)} / {_mega(m.least_bytes_moved)}",
            f"{_mega(m.saved_bytes)} / {_mega(m.least_saved_bytes)}",
        ]
        for m in measured
    ]
    titles = [
        *("way", "mode", "first step s", "step ms", "quartiles ms", f"times {measured[0].way}"),
        *("peak MB", "moved MB / least", "saved MB / least"),
    ]
    return table(titles, rows, left=("way", "mode"))


def _mega(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / 1e6:.1f}"
