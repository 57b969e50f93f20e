"""A training; as a program, trainings that are killed at given moments.

Takes a JSON list of [checkpoint, "half" | "written" | "replaced" | "never", n, seconds]: each training is
killed when it writes for the n-th time, or after so many seconds. Prints the exit statuses.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from connsearch.data import load_dataset
from connsearch.nn import build
from connsearch.spec import NetworkSpec
from connsearch.train import TrainConfig, TrainResult, train

EPOCHS = 8


def training(checkpoint: Path | None) -> TrainResult:
    """Train on digits, with drops, an average, batches in parts, from the same weights every time."""
    block = {"topology": "dense", "aggregation": "sum", "n_layers": 3, "width": 6}
    shape = {"channels": 1, "height": 8, "width": 8}
    spec = NetworkSpec(input=shape, blocks=[block], drop="stochastic_depth(survival=0.5)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(spec, pipeline="none")
    how = TrainConfig.from_dict(
        {"dataset": "digits", "epochs": EPOCHS, "schedule": "one_cycle", "ema": 0.99, "accumulate": 2}
    )
    return train(network, load_dataset("digits"), how, seed=3, checkpoint=checkpoint)


def deadly(call: Callable[..., Any], number: int, last: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `call`, but the n-th time `last`, and dies."""
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < number:
            return call(*arguments)
        last(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    return counted


def write_half(path: Path, content: bytes) -> None:
    """Write the first half of a file."""
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])


def train_and_die(path: Path, place: str, number: int, seconds: float) -> int:
    """Train in a process of its own that dies as told, after `seconds` at the latest; return its status."""
    child = os.fork()
    if child == 0:
        if place == "half":
            Path.write_bytes = deadly(Path.write_bytes, number, write_half)  # type: ignore[method-assign]
        elif place == "written":
            os.replace = deadly(os.replace, number, lambda *_: None)
        elif place == "replaced":
            os.replace = deadly(os.replace, number, os.replace)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # nobody handles its signal: it kills
        training(path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":  # one process that imports torch, and one for each training
    torch.set_num_threads(1)  # a child of a process with more waits for them for ever
    load_dataset("digits")
    done = [train_and_die(Path(path), *when) for path, *when in json.loads(sys.argv[1])]
    print(json.dumps(done))
