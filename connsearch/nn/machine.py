"""What figures depend on besides what was measured: the machine, how busy it is, versions, the moment."""

from __future__ import annotations

import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

import torch

from connsearch import __version__
from connsearch.memory import malloc_policy


def machine_facts(device: str = "cpu") -> dict[str, Any]:
    """Return what a record of measurements says of where and when they were made, as plain values.

    To be asked before measuring, which makes the machine busy, and after the number of threads is set.

    Args:
        device: Where is measured.

    Returns:
        `run` (another at each call: what carries the same was measured in one run), `time` (local), the
        versions `connsearch`, `python` and `torch`, `cpu` (its name), `cores` (that the process may use),
        `load` (processes that wanted to run in the last minute), `threads` (of torch), `omp_wait_policy`
        ("" if it is not set), `malloc` (what becomes of freed memory: `connsearch.memory.malloc_policy`) and,
        of a CUDA device, its name `gpu`.
    """
    facts = {
        "run": uuid.uuid4().hex[:12],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "connsearch": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cpu": _cpu_name(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "malloc": malloc_policy(),
    }
    return facts | ({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})


def _cpu_name(info: Path) -> str:
    """Return the processor's name, or of what sort it is where the system does not tell."""
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
