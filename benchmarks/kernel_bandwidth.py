"""How much of the memory's bandwidth do the fused kernels reach? Beside copies of the same maps, interleaved.

    python benchmarks/kernel_bandwidth.py --device cuda                   # bfloat16, channels last, batch 256
    python benchmarks/kernel_bandwidth.py --dtype float32 --batch 16      # of this machine's CPU
    python benchmarks/kernel_bandwidth.py --quick                         # small maps, nothing written

A kernel's bytes are those that it has to move where a map is larger than a cache: a norm reads what it
normalises twice, once for the statistics. Caches are emptied before each call. Nothing is timed whose
outcome is not that of the reference in plain PyTorch. Maps must be larger than the cache to mean anything:
on a GPU of 60 MB, batches of 256.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from record import append, torch_machine
from timing import at_least_one
from torch import Tensor

from connsearch import kernels
from connsearch.errors import ConnsearchError, SpecError, VerifyError
from connsearch.kernels import use_backend

TARGET = 0.7  # of the bandwidth of a copy
COPY = "copy"
EMPTIED = 1 << 28  # bytes written to empty caches
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 0.06, torch.float16: 0.01}  # of the greatest value
EPS, ACT = 1e-5, "relu"


class Kernel(NamedTuple):
    """One call of a kernel.

    Attributes:
        name: Of the kernel, and how many sources or readers.
        moved: Bytes that it reads and writes.
        run: Calls it; returns what it gives out.
        sinks: What it adds to, empty before each call.
    """

    name: str
    moved: int
    run: Callable[[], Any]
    sinks: Sequence[Tensor] = ()

    def outcome(self) -> list[Tensor]:
        """Return copies of what one call gives out and adds."""
        self.empty()
        found = self.run()
        return [t.clone() for t in (found if isinstance(found, tuple) else [found])] + [
            t.clone() for t in self.sinks
        ]

    def empty(self) -> None:
        """Forget what was added."""
        for sink in self.sinks:
            sink.zero_()


def calls(shape: tuple[int, int, int, int], n: int, dtype: torch.dtype, device: str) -> list[Kernel]:
    """Return a call of each fused kernel on maps with channels last, after a copy of one map.

    Args:
        shape: B C H W of a map.
        n: How many sources, or readers.
        dtype: Of maps.
        device: Where they are.
    """
    C = shape[1]

    def some(shape: Sequence[int]) -> Tensor:
        return torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)

    def vector(*sizes: int) -> Tensor:
        return torch.rand(sizes, device=device) + 0.5

    maps, sinks = [some(shape) for _ in range(n)], [some(shape) for _ in range(n)]
    x, y, grad_of_all = maps[0], torch.empty_like(maps[0]), some((shape[0], n * C, *shape[2:]))
    one, w_n1C, w_nC, b_C = x.nbytes, vector(n, 1, C), vector(n, C), vector(C)
    mean_C, rstd_C, weight_C = (vector(C) for _ in range(3))
    mean_K, rstd_K, weight_K, b_K = (vector(n * C) for _ in range(4))
    weight_OK = vector(C, n * C).sub_(1).div_(n * C).to(dtype)

    return [
        Kernel(COPY, 2 * one, lambda: y.copy_(x)),
        Kernel(f"weighted_sum, {n}", (n + 1) * one, lambda: kernels.weighted_sum(maps, w_n1C, b_C)),
        Kernel(
            f"weighted_sum_norm_act, {n}",
            (n + 3) * one,  # the sum is written, read and normalised
            lambda: kernels.weighted_sum_norm_act(maps, w_n1C, b_C, weight_C, b_C, EPS, ACT),
        ),
        Kernel(f"pull, {n}", (n + 2) * one, lambda: kernels.pull(maps, w_n1C, x)),
        Kernel(
            f"pull_normalized, {n}",
            (n + 5) * one,  # totals wait in a map for what the statistics need
            lambda: kernels.pull_normalized(maps, w_nC, x, mean_C, rstd_C),
        ),
        Kernel("batch_stats", one, lambda: kernels.batch_stats(x)),
        Kernel("norm_act", 2 * one, lambda: kernels.norm_act(x, weight_C, b_C, ACT)),
        Kernel("norm_act_train", 3 * one, lambda: kernels.norm_act_train(x, weight_C, b_C, EPS, ACT)),
        Kernel(
            "norm_act_backward",
            5 * one,
            lambda: kernels.norm_act_backward(maps[1], x, mean_C, rstd_C, weight_C, b_C, ACT),
        ),
        Kernel(
            f"concat_norm_act, {n}",
            2 * n * one,
            lambda: kernels.concat_norm_act(maps, weight_K, b_K, ACT),
        ),
        Kernel(
            f"concat_norm_act_backward, {n}",
            4 * n * one,
            lambda: kernels.concat_norm_act_backward(
                grad_of_all, maps, mean_K, rstd_K, weight_K, b_K, ACT, sinks
            ),
            sinks,
        ),
        Kernel(
            f"norm_act_conv, {n}",
            (n + 1) * one,
            lambda: kernels.norm_act_conv(maps, weight_K, b_K, ACT, weight_OK),
        ),
    ]


def check(kernel: Kernel) -> None:
    """Compare a call with the reference.

    Raises:
        VerifyError: if they differ.
    """
    found = kernel.outcome()
    with use_backend("reference"):
        exact = kernel.outcome()
    for a, b in zip(exact, found, strict=True):
        worst = float((a.double() - b.double()).abs().max()) / max(1.0, float(a.abs().max()))
        if not worst <= ALLOWED[b.dtype]:
            raise VerifyError(f"{kernel.name} is off by {worst:.1e}, not timed")


def seconds(kernel: Kernel, device: str) -> float:
    """Return how long a call takes with empty caches, on a GPU by its own clock."""
    kernel.empty()
    torch.empty(EMPTIED, dtype=torch.uint8, device=device).fill_(1)
    if torch.device(device).type != "cuda":
        began = time.perf_counter()
        kernel.run()
        return time.perf_counter() - began
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch has no types there
    before.record()
    kernel.run()
    after.record()
    torch.cuda.synchronize(device)
    return float(before.elapsed_time(after)) / 1e3


def measure(found: Sequence[Kernel], repeats: int, device: str) -> list[dict[str, Any]]:
    """Return the bandwidth of each call in GB/s, median and quartiles of turns, and its share of a copy's."""
    times: dict[str, list[float]] = {kernel.name: [] for kernel in found}
    for _ in range(repeats):
        for kernel in found:
            times[kernel.name].append(seconds(kernel, device))
    lines: list[dict[str, Any]] = []
    for kernel in found:
        low, middle, high = statistics.quantiles(times[kernel.name], n=4, method="inclusive")
        rates = {
            f"{word}_GB_s": kernel.moved / s / 1e9
            for word, s in zip(("high", "median", "low"), (low, middle, high), strict=True)
        }
        lines.append({"kernel": kernel.name, "moved_bytes": kernel.moved, "repeats": repeats, **rates})
    copied = lines[0]["median_GB_s"]
    return [{**line, "share_of_copy": line["median_GB_s"] / copied} for line in lines]


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Bandwidth of the fused kernels, as a share of a copy's.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--dtype", default="bfloat16", choices=[str(d)[6:] for d in ALLOWED])
    parser.add_argument("--batch", type=at_least_one, default=256)
    parser.add_argument("--channels", type=at_least_one, default=64)
    parser.add_argument("--size", type=at_least_one, default=32, help="height and width (32)")
    parser.add_argument("--sources", type=at_least_one, default=12, help="or readers, of each kernel (12)")
    parser.add_argument("--repeats", type=at_least_one, default=21)
    parser.add_argument("--quick", action="store_true", help="small maps, few repeats; writes nothing")
    return parser


def main() -> None:
    """Check, measure and record; exit with 1 if something is wrong."""
    asked = arguments().parse_args()
    try:
        if asked.device.startswith("cuda") and not torch.cuda.is_available():
            raise SpecError("there is no CUDA device: use --device cpu")
        machine = torch_machine(asked.device)
        torch.manual_seed(0)
        shape = (2, 32, 8, 8) if asked.quick else (asked.batch, asked.channels, asked.size, asked.size)
        found = calls(shape, asked.sources, getattr(torch, asked.dtype), asked.device)
        for kernel in found:
            check(kernel)
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")
    settings = {"shape": shape, "dtype": asked.dtype, "channels_last": True, "device": asked.device}
    print(f"{shape} {asked.dtype} channels_last on {machine.get('gpu', machine['cpu'])}")
    for line in measure(found, 3 if asked.quick else asked.repeats, asked.device):
        share = f"{line['share_of_copy']:.0%} of a copy"
        missed = "" if line["share_of_copy"] >= TARGET else f", below {TARGET:.0%}"
        print(f"{line['kernel']:<30}{line['median_GB_s']:>8.1f} GB/s  {share}{missed}")
        if not asked.quick:
            append("kernel_bandwidth", {**machine, **settings, **line})


if __name__ == "__main__":
    main()
