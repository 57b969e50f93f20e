"""Sessions that take a second, and somebody who notes what he is told of them."""

from __future__ import annotations

from typing import Any

from connsearch.spec import NetworkSpec
from connsearch.train import EpochRecord, SeedResult, Session, TrainConfig
from connsearch.train.watching import Watcher

DATA = "synthetic(n_train=64, n_val=32, n_test=40, channels=1, height=8, width=8, n_classes=4, noise=0.3)"
SPEC = NetworkSpec.from_dict(
    {
        "name": "small",
        "input": {"channels": 1, "height": 8, "width": 8},
        "n_classes": 4,
        "blocks": [{"topology": "dense", "aggregation": "sum", "n_layers": 2, "width": 4}],
    }
)


def make_session(*, join: bool = False, spec: NetworkSpec = SPEC, **changes: Any) -> Session:
    given = {"dataset": DATA, "epochs": 3, "batch_size": 16, **changes}
    return Session(spec, TrainConfig.from_dict(given), join)


class Told(Watcher):
    """Notes what it is told; stops as Ctrl-C does when it is told of an epoch for the n-th time."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after, self.epochs, self.ends, self.notes = stop_after, [], [], []
        self.epochs: list[tuple[int, bool]]
        self.ends: list[tuple[int, bool]]
        self.notes: list[str]

    def epoch_ended(self, record: EpochRecord, *, again: bool = False) -> None:
        self.epochs.append((record.epoch, again))
        if len(self.epochs) == self.stop_after:
            raise KeyboardInterrupt

    def seed_ended(self, result: SeedResult, *, now: bool) -> None:
        self.ends.append((result.seed, now))

    def note(self, text: str) -> None:
        self.notes.append(text)
