"""How fast is evaluation without gradients? Compiled networks against the definition in eager mode.

    python benchmarks/inference_speed.py    # prints a table, adds a line to results/inference_speed.jsonl
    python benchmarks/inference_speed.py --quick    # few repeats of batch 1, nothing written

Networks have random parameters and statistics; what is compared equals the definition, or the benchmark
stops. Calls are interleaved, times are medians of wall-clock time, ratios are eager / compiled.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from connsearch.nn import Network
from connsearch.nn.compiled import build
from connsearch.spec.presets import preset

RESULTS = Path(__file__).parent / "results" / "inference_speed.jsonl"
NETWORKS = ("delugenet-146", "densenet-121")
TARGETS = {"ratio": 2.0, "first_call_s": 3.0}


def randomised(name: str) -> Network:
    """Return a preset in evaluation, its norms as if it had been trained."""
    torch.manual_seed(0)
    network = Network(preset(name))
    for key, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point() and "conv" not in key:
            noise = torch.rand(value.shape) if "var" in key else torch.randn(value.shape)
            value.data.add_(noise, alpha=0.2)
    return network.eval()


def seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the time one call takes."""
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


def interleaved(runs: Sequence[Callable[[Tensor], Tensor]], x: Tensor, repeats: int) -> list[list[float]]:
    """Return the times of each, taken in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, found in zip(runs, times, strict=True):
            found.append(seconds(run, x))
    return times


def check(name: str, eager: Network, compiled: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the largest difference, relative to the largest logit; stop if it is more than rounding."""
    exact = eager(x)
    error = float((compiled(x) - exact).abs().max() / exact.abs().max())
    if not error < 1e-4:
        sys.exit(f"{name}: compiled and definition differ by {error:.1e}")
    return error


def measure(name: str, batch: int, threads: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one network, batch size and number of threads."""
    torch.set_num_threads(threads)
    eager = randomised(name)
    start = time.perf_counter()
    compiled = build(copy.deepcopy(eager)).eval()
    built = time.perf_counter() - start
    x = images(eager, batch)
    with torch.inference_mode():
        first = seconds(compiled, x)
        error = check(name, eager, compiled, x)
        plain, fast = interleaved((eager, compiled), x, repeats)
    return {
        "network": name,
        "batch": batch,
        "threads": threads,
        "repeats": repeats,
        "eager_ms": round(1000 * statistics.median(plain), 2),
        "compiled_ms": round(1000 * statistics.median(fast), 2),
        "ratio": round(statistics.median(plain) / statistics.median(fast), 2),
        "ratio_of_best": round(min(plain) / min(fast), 2),
        "build_s": round(built, 2),
        "first_call_s": round(first, 2),
        "error": error,
    }


def images(network: Network, batch: int) -> Tensor:
    """Return random images of a network's size."""
    size = network.spec.input
    return torch.randn(batch, size.channels, size.height, size.width)


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(
        [*git, "status", "--porcelain"], capture_output=True, text=True, check=False
    ).stdout
    return {
        "commit": commit.stdout.strip() + ("+changes" if dirty else ""),
        "cpu": f"{os.cpu_count()} x {model}",
        "load": round(os.getloadavg()[0], 2),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure, print, and append one line to the results."""
    parser = argparse.ArgumentParser(description="Time evaluation without gradients on a CPU.")
    parser.add_argument("--quick", action="store_true", help="few repeats of batch 1; writes nothing")
    quick = parser.parse_args().quick
    result: dict[str, Any] = {
        "benchmark": "inference_speed",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        **machine(),
        "cases": [],
    }
    print(f"{result['cpu']}, load {result['load']}; targets: {TARGETS}")
    for threads in (1, 2):
        for name in NETWORKS:
            for batch in (1,) if quick else (1, 32):
                case = measure(name, batch, threads, repeats=5 if quick else 31 if batch == 1 else 9)
                result["cases"].append(case)
                print(
                    f"{name:14s} batch {batch:2d}, {threads} threads: eager {case['eager_ms']:9.2f} ms, "
                    f"compiled {case['compiled_ms']:8.2f} ms, ratio {case['ratio']:5.2f} "
                    f"(of the best {case['ratio_of_best']:.2f}); built in {case['build_s']:.2f} s, "
                    f"first call {case['first_call_s']:.2f} s; error {case['error']:.1e}",
                    flush=True,
                )
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
