"""A training whose process is killed, at the worst moments and at any, goes on as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import killed_training
import pytest
from killed_training import EPOCHS, training
from stopping import curve, epochs_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unbroken() -> list[dict[str, float]]:
    return curve(training(None))


def kill(*when: tuple[Path, str, int, float]) -> list[int]:
    """Train in processes that die as told, one after the other; return their exit statuses."""
    program = [sys.executable, killed_training.__file__, json.dumps(when, default=str)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    statuses: list[int] = json.loads(ran.stdout)
    return statuses


@pytest.mark.large
def test_killed_while_a_checkpoint_is_written(tmp_path: Path, unbroken: list[dict[str, float]]) -> None:
    """With the n-th file half written, whole but not in place, or in place."""
    moments = {
        ("half", 1): 0,
        ("half", 3): 2,
        ("written", 4): 3,
        ("replaced", 2): 2,
        ("replaced", EPOCHS): EPOCHS,
    }
    paths = {moment: tmp_path / "{}-{}".format(*moment) / "x.checkpoint" for moment in moments}
    for path in paths.values():
        path.parent.mkdir()
    statuses = kill(*((paths[place, n], place, n, 300.0) for place, n in moments))
    assert statuses == [-signal.SIGKILL] * len(moments)
    for (place, n), epochs in moments.items():
        path = paths[place, n]
        assert len(list(path.parent.glob(".x.checkpoint.*.tmp"))) == (place != "replaced"), (place, n)
        held = epochs_of(path) if path.exists() else 0
        assert held == epochs, (place, n)
        assert curve(training(path)) == unbroken, (place, n)
        assert os.listdir(path.parent) == [path.name], (place, n)


@pytest.mark.large
def test_killed_at_random_moments(tmp_path: Path, unbroken: list[dict[str, float]]) -> None:
    path, rng = tmp_path / "x.checkpoint", random.Random(0)
    seconds = [0.01, *(rng.uniform(0.05, 0.8) for _ in range(6)), 300.0]
    statuses = kill(*((path, "never", 0, after) for after in seconds))
    assert statuses[0] == -signal.SIGALRM, "nobody trains that fast"
    assert set(statuses[1:-1]) <= {-signal.SIGALRM, 0}
    assert statuses[-1] == 0
    assert epochs_of(path) == EPOCHS
    assert curve(training(path)) == unbroken
