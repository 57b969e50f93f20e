"""A session of trainings; as a program, one that kills itself after so many epochs, or never if that is 0."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from sessions import DATA

from connsearch.spec import NetworkSpec
from connsearch.train import EpochRecord, Session, Summary, TrainConfig, train_seeds
from connsearch.train.watching import Watcher


class Deadly(Watcher):
    """Kills the process after so many epochs."""

    def __init__(self, left: int) -> None:
        self.left = left

    def epoch_ended(self, record: EpochRecord, *, again: bool = False) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def session(directory: Path, epochs_left: int = 0) -> Summary:
    """Train two seeds with an average, on all but the test images."""
    block = {"topology": "dense", "aggregation": "sum", "n_layers": 2, "width": 4}
    shape = {"channels": 1, "height": 8, "width": 8}
    spec = NetworkSpec.from_dict({"name": "small", "input": shape, "n_classes": 4, "blocks": [block]})
    config = TrainConfig.from_dict(
        {"dataset": DATA, "epochs": 4, "batch_size": 16, "lr": 0.01, "ema": 0.9, "sync_norms": True}
    )
    return train_seeds(directory, Session(spec, config, join=True), (0, 1), watcher=Deadly(epochs_left))


if __name__ == "__main__":
    torch.set_num_threads(1)
    session(Path(sys.argv[1]), int(sys.argv[2]))
