"""Training: how, as configuration; the loop; what came of it. The configuration needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy
from connsearch.train.checkpoint import CheckpointError, CheckpointWarning
from connsearch.train.config import TrainConfig
from connsearch.train.result import EpochRecord, StopTraining, TrainResult
from connsearch.train.schedule import learning_rate

if TYPE_CHECKING:
    from connsearch.train.confusion import Confusion
    from connsearch.train.evaluation import evaluate
    from connsearch.train.finished import SeedResult, Summary, read_summary
    from connsearch.train.loop import train
    from connsearch.train.pruning import prune
    from connsearch.train.session import Session, train_seeds
    from connsearch.train.trained import Trained, load_trained, save_trained

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "Confusion",
    "EpochRecord",
    "SeedResult",
    "Session",
    "StopTraining",
    "Summary",
    "TrainConfig",
    "TrainResult",
    "Trained",
    "evaluate",
    "learning_rate",
    "load_trained",
    "prune",
    "read_summary",
    "save_trained",
    "train",
    "train_seeds",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Confusion": "connsearch.train.confusion",
        "evaluate": "connsearch.train.evaluation",
        "train": "connsearch.train.loop",
        "prune": "connsearch.train.pruning",
        **dict.fromkeys(["SeedResult", "Summary", "read_summary"], "connsearch.train.finished"),
        **dict.fromkeys(["Session", "train_seeds"], "connsearch.train.session"),
        **dict.fromkeys(["Trained", "load_trained", "save_trained"], "connsearch.train.trained"),
    },
)
