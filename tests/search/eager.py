"""Studies that prune eagerly, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_up import TRAIN, make_config

from connsearch.search.config import StudyConfig
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.study import Study

EPOCHS = 4
EAGER = {"name": "median", "first_epoch": 1, "min_peers": 2, "band": 4.0, "dominated_by": 1}
HASTY = {**EAGER, "min_peers": 1, "dominated_by": 0}
"""Prunes what is worse than the median of those before it: about every second trial."""
HALVING = {**EAGER, "name": "successive_halving"}


def config(**changes: Any) -> StudyConfig:
    """Return the configuration of a study that prunes, with some of its values changed."""
    return make_config(**{"train": {**TRAIN, "epochs": EPOCHS}, "pruner": EAGER, "n_trials": 16, **changes})


def run(path: Path, n: int | None = None, **changes: Any) -> Study:
    """Run a study that prunes."""
    study = Study.from_config(path, config(**changes))
    study.run(n, device="cpu")
    return study


def epochs(study: Study) -> tuple[int, ...]:
    """Return how many epochs each trial was trained."""
    return tuple(len(trial.user_attrs["curve"]) for trial in study.trials())


def pruned(study: Study) -> list[int]:
    """Return the numbers of the trials that were pruned."""
    return [trial.number for trial in study.trials() if PRUNED in trial.user_attrs]
