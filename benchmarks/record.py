"""What every benchmark writes beside its figures, and where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = (":(top)", ":(top,exclude)benchmarks/results")  # what makes a commit another one than it says


def machine() -> dict[str, Any]:
    """Return what figures of plain Python depend on: time, commit, processor and how busy it is, Python.

    Take it once, before anything is measured: measuring is load, and later commits do not run.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "commit": commit(),
        "cpu": f"{os.cpu_count()} x {model}",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def torch_machine(device: str = "cpu") -> dict[str, Any]:
    """Return what figures of networks depend on, with an id of the run; take it once, as `machine`.

    The number of threads is torch's at the moment.
    """
    from connsearch.nn.machine import machine_facts

    return {**machine_facts(device), "commit": commit()}


def commit() -> str:
    """Return the commit that runs, and whether there are changes beside it."""
    found, dirty = (
        subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False).stdout
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", *SOURCES])
    )
    return found.strip() + ("+changes" if dirty.strip() else "")


def append(benchmark: str, figures: dict[str, Any]) -> None:
    """Append a line to the results of a benchmark."""
    path = HERE / "results" / f"{benchmark}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"benchmark": benchmark, **figures}) + "\n")
