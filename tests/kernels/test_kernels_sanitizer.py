"""Every Triton kernel under NVIDIA's compute-sanitizer, where there is a GPU and the tool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SANITIZER = shutil.which("compute-sanitizer")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernel_bandwidth.py"
FOUND = 77  # what the sanitizer exits with if it found something

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(SANITIZER is None, reason="there is no compute-sanitizer on PATH"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_kernels_stay_within_their_memory_and_do_not_race(tool: str, dtype: str) -> None:
    told = [str(SANITIZER), "--tool", tool, "--error-exitcode", str(FOUND), sys.executable]
    ran = subprocess.run(
        [*told, str(SCRIPT), "--quick", "--device", "cuda", "--dtype", dtype, "--sources", "18"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
