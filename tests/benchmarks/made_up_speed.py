"""Results of speed as the benchmarks write them, made up."""

from __future__ import annotations

from typing import Any

Line = dict[str, Any]
MACHINE = {
    "run": "a1", "time": "2026-11-22T20:00:00", "commit": "abcdef0", "cpu": "Made Up", "cores": 2,
    "threads": 1, "load": 0.1, "omp_wait_policy": "", "python": "3.11.7", "torch": "2.13.0+cpu",
}  # fmt: skip


def steps(way: str, step_s: float) -> Line:
    """Return what was timed of a way: a tenth to either side."""
    return {"way": way, "step_s": step_s, "low_s": 0.9 * step_s, "high_s": 1.1 * step_s}


def network_lines(network: str = "delugenet-146", **more: Any) -> list[Line]:
    """Return the lines of a run: definition 8 s, stacked 24 s, torch.compile 4 s, default 5 s, fused 2 s."""
    about = {
        **MACHINE, "network": network, "mode": "train", "batch": 64, "device": "cpu", "dtype": "float32",
        "channels_last": False, "repeats": 5, "first_s": 3.0, "peak_bytes": 10**9,
    }  # fmt: skip
    times = {"definition": 8.0, "stacked": 24.0, "torch.compile": 4.0, "default": 5.0, "fused": 2.0}
    return [{**about, **steps(way, step_s), **more} for way, step_s in times.items()]


def kernel_lines(operation: str = "weighted sums, paper's form", **more: Any) -> list[Line]:
    """Return the lines of a run: stacked 70 ms, eager 20 ms, torch.compile 11.5 ms, ours 10 ms."""
    about = {
        **MACHINE, "operation": operation, "shape": [64, 128, 16, 16], "n": 16, "dtype": "float32",
        "channels_last": False, "repeats": 9, "first_s": 3.0,
    }  # fmt: skip
    times = {"eager": 0.02, "stacked": 0.07, "torch.compile": 0.0115, "ours": 0.01}
    return [{**about, **steps(way, step_s), **more} for way, step_s in times.items()]
