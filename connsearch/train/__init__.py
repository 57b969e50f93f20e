"""Training: how, as configuration; the loop; what came of it. The configuration needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from connsearch.train.config import TrainConfig
from connsearch.train.result import EpochRecord, TrainResult
from connsearch.train.schedule import learning_rate

if TYPE_CHECKING:
    from connsearch.train.evaluation import evaluate
    from connsearch.train.loop import train

__all__ = ["EpochRecord", "TrainConfig", "TrainResult", "evaluate", "learning_rate", "train"]

_LAZY = {"evaluate": "connsearch.train.evaluation", "train": "connsearch.train.loop"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
