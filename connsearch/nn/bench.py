"""How fast a compiled network is, beside other ways to run the same network, in one interleaved run.

Ways of this package are timed only if they verify: in float64 at a small batch, then as they are timed.
Machines are noisy: only ratios within one run mean something, and of those the medians.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from connsearch.errors import SpecError, did_you_mean
from connsearch.kernels import choose
from connsearch.nn.form import Form
from connsearch.nn.modelled import modelled
from connsearch.nn.peak import peak_bytes
from connsearch.nn.timed import AsTimed
from connsearch.nn.verification import Errors, Verification, dtype_name, working_dtype
from connsearch.nn.verify import Comparison
from connsearch.nn.ways import (
    CUDA_GRAPH,
    DEFINITION,
    GRAPHED,
    MODES,
    Steps,
    check_ways,
    runs_kernels,
    steps_of,
    verifies,
)
from connsearch.spec.network import NetworkSpec
from connsearch.text import table

Case = tuple[str, str]  # a way and a mode
Tell = Callable[[str], None]
Units = Sequence[tuple[float, str]]  # how many there are in one of what is measured, the fewest first
SECONDS: Units = ((1, "s"), (1e3, "ms"), (1e6, "us"))
BYTES: Units = ((1e-6, "MB"), (1e-3, "kB"), (1, "B"))


class Measurement(NamedTuple):
    """One way to run a network.

    Attributes:
        way: A pipeline, or another of `connsearch.nn.ways.WAYS`.
        mode: "train": forward, loss and backward; "inference": evaluation without gradients.
        first_s: From the specification to the end of the first step: building the network and compiling it
            included.
        step_s: Median of a step.
        low_s: A quarter of the steps were faster.
        high_s: A quarter were slower.
        peak_bytes: The most that a step has allocated at once: activations, gradients, temporary memory.
        backend: What kernels run as (`connsearch.kernels.dispatch`); None for ways that run none.
        bytes_moved: See `connsearch.nn.modelled.Modelled`, as the following.
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
    backend: str | None
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
    tell: Tell = lambda _: None,
) -> list[Measurement]:
    """Time a step of a network in several ways, one after the other, again and again.

    A step of the definition on one image more comes before all, so that the first way to run does not pay
    for what the process does once. Each round begins with another way.

    Args:
        spec: The network.
        ways: Pipelines, and others of `connsearch.nn.ways.WAYS`.
        modes: "train" (forward, loss and backward), "inference" (evaluation without gradients) or both.
        batch: Images in a batch.
        repeats: Steps of each way, after the first.
        device: Where to run.
        dtype: "float32", "bfloat16" or "float16", of parameters and images.
        channels_last: Whether images and convolutions have their channels last in memory.
        verify: Whether to compare ways of this package with the definition before they are timed: in float64
            at a small batch, and a step of each mode as it is timed.
        tell: Is told what is done next.

    Raises:
        SpecError: if there is no such way, mode or dtype, or no CUDA device for CUDA graphs.
        VerifyError: if a way does not compute what the definition does.
    """
    form = Form(device, working_dtype(dtype), channels_last)
    for mode in modes:
        if mode not in MODES:
            raise SpecError(f"unknown mode {mode!r}. {did_you_mean(mode, MODES)}")
    if repeats < 1:
        raise SpecError(f"repeats must be 1 or more, got {repeats}")
    check_ways(ways, spec, device, train="train" in modes)
    checked = [way for way in ways if verifies(way)] if verify else []
    verified = _verified(spec, checked, form, tell) if checked else {}
    cases = [(way, mode) for way in ways for mode in modes]
    images = form.images(spec, batch)
    steps, first = _first_steps(spec, cases, form, images, tell)
    if verified:
        _verify_as_timed(spec, verified, modes, form, batch, tell)
    times = _interleaved(steps, repeats, tell)
    size = len(images) * images.element_size()
    return [
        Measurement(
            *case,
            first[case],
            *_middle(times[case]),
            _peak(steps[case], images),
            choose(images.device.type, images.dtype).backend if runs_kernels(case[0]) else None,
            *modelled(spec, case[0], size, training=case[1] == "train"),
        )
        for case in cases
    ]


def _verified(spec: NetworkSpec, ways: Sequence[str], form: Form, tell: Tell) -> dict[str, Errors]:
    """Verify ways at a small batch; return how far the definition is from the truth in their precision."""
    compared = Comparison(spec, device=form.device, steps=2, channels_last=form.channels_last)
    found: dict[str, Verification] = {}
    for way in (GRAPHED if way == CUDA_GRAPH else way for way in ways):
        if way not in found:
            tell(f"verifying {way} in float64 and {dtype_name(form.dtype)}")
            found[way] = compared.verification(way, form.dtype)
            found[way].raise_if_wrong()
    return {way: found[GRAPHED if way == CUDA_GRAPH else way].definition for way in ways}


def _verify_as_timed(
    spec: NetworkSpec, verified: dict[str, Errors], modes: Sequence[str], form: Form, batch: int, tell: Tell
) -> None:
    timed = AsTimed(spec, form, batch)
    for way, definition in verified.items():
        for mode in modes:
            tell(f"verifying {way} as it is timed ({mode})")
            timed.check(way, mode, definition)


def _first_steps(
    spec: NetworkSpec, cases: Sequence[Case], form: Form, images: Tensor, tell: Tell
) -> tuple[dict[Case, Steps], dict[Case, float]]:
    """Return networks made ready to run, and how long that and the first step took."""
    one_more = form.images(spec, len(images) + 1)
    for mode in dict.fromkeys(mode for _, mode in cases):
        steps_of(DEFINITION, form.network(spec).train(mode == "train"), one_more).step()
    steps: dict[Case, Steps] = {}
    first: dict[Case, float] = {}
    for way, mode in cases:
        tell(f"first step of {way} ({mode})")
        gc.collect()
        began = time.perf_counter()
        steps[way, mode] = steps_of(way, form.network(spec).train(mode == "train"), images)
        steps[way, mode].step()
        first[way, mode] = time.perf_counter() - began
        steps[way, mode].release()
    return steps, first


def _interleaved(steps: dict[Case, Steps], repeats: int, tell: Tell) -> dict[Case, list[float]]:
    """Return the times of steps, a step of each case in each round; each round begins with the next case."""
    times: dict[Case, list[float]] = {case: [] for case in steps}
    cases = list(steps)
    for number in range(repeats):
        at = number % len(cases)
        for case in cases[at:] + cases[:at]:
            tell(f"step {number + 1} of {repeats}: {case[0]} ({case[1]})")
            gc.collect()
            began = time.perf_counter()
            steps[case].step()
            times[case].append(time.perf_counter() - began)
            steps[case].release()
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


def bench_table(measured: Sequence[Measurement]) -> str:
    """Return a table of ways, with how many times faster each is than the first in its mode.

    Each column has the largest unit in which nothing that is not 0 looks as if it were.
    """
    first = {m.mode: m for m in reversed(measured)}
    first_s, first_unit = _in_unit([[m.first_s] for m in measured], SECONDS, digits=2)
    step, step_unit = _in_unit([[m.step_s, m.low_s, m.high_s] for m in measured], SECONDS[1:])
    peak, peak_unit = _in_unit([[m.peak_bytes] for m in measured], BYTES)
    moved, moved_unit = _in_unit([[m.bytes_moved, m.least_bytes_moved] for m in measured], BYTES)
    saved, saved_unit = _in_unit([[m.saved_bytes, m.least_saved_bytes] for m in measured], BYTES)
    rows = [
        [
            f"{m.way} (as plain PyTorch)" if m.backend == "reference" else m.way,
            m.mode,
            *first_s[i],
            step[i][0],
            " to ".join(step[i][1:]),
            _ratio(first[m.mode].step_s / m.step_s),
            *peak[i],
            " / ".join(moved[i]),
            " / ".join(saved[i]),
        ]
        for i, m in enumerate(measured)
    ]
    titles = [
        *("way", "mode", f"first step {first_unit}", f"step {step_unit}", f"quartiles {step_unit}"),
        *(f"times {measured[0].way}", f"peak {peak_unit}"),
        *(f"moved {moved_unit} / least", f"saved {saved_unit} / least"),
    ]
    return table(titles, rows, left=("way", "mode"))


def _in_unit(
    rows: Sequence[Sequence[float | None]], units: Units, digits: int = 1
) -> tuple[list[list[str]], str]:
    """Return values as text and their unit, the largest in which each has two digits if one has."""
    least = min((value for row in rows for value in row if value), default=0.0)
    fits = (unit for unit in units if least * unit[0] >= 10 ** (1 - digits))
    scale, unit = next(fits, units[-1] if least else units[0])
    texts = [["-" if v is None else f"{v * scale:.{digits}f}" if v else "0" for v in row] for row in rows]
    return texts, unit


def _ratio(times: float) -> str:
    return f"{times:.2f}" if times >= 0.1 else f"{times:.2g}"
