"""Studies to report on: small ones that are really trained, and ones whose outcomes are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connsearch.cost import network_cost
from connsearch.search.config import StudyConfig
from connsearch.search.objective import Outcome, evaluate_network
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, TrainResult

FAILS, DIVERGES = 4, 6  # numbers of trials
SCRIPT = "<script>document.title = 'owned'</script> & \"so on\""
QUESTION = "Is 1 < 2 </script><script>document.title = 'owned'</script> & \"asked\"?"
SPACE: dict[str, Any] = {
    "input": {"channels": 1, "height": 8, "width": 8},
    "n_classes": 4,
    "blocks": {
        "count": {"low": 1, "high": 2},
        "topology": {"any_of": ["dense", "log_dense", "sparse(base=3)"]},
        "aggregation": {"any_of": ["sum", "concat", "depthwise"]},
        "n_layers": {"low": 2, "high": 4},
        "width_ratio": {"low": 1.0, "high": 2.0},
    },
    "budget": {"macs": {"low": 90_000, "high": 500_000}},
}
TRAIN: dict[str, Any] = {
    "dataset": "synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32, n_test=32)",
    "epochs": 3,
    "batch_size": 16,
}


def config(**changes: Any) -> StudyConfig:
    """Return a configuration, with some of its values changed."""
    data = {"question": QUESTION, "space": SPACE, "n_trials": 8, "sampler": "random", "train": TRAIN}
    return StudyConfig.from_dict({**data, **changes})


def made_up(spec: NetworkSpec, train_config: object, *, trial: int, **_: Any) -> Outcome:
    """Stand in for a training: errors fall with cost and epochs; one trial fails, one diverges."""
    if trial == FAILS:
        raise RuntimeError(SCRIPT)
    cost = network_cost(spec)
    if trial == DIVERGES:
        return Outcome(cost, TrainResult((), diverged=True, seconds=0.1))
    error = round(0.04 + 15_000 / cost.macs, 4)
    curve = tuple(
        EpochRecord(epoch, 0.1, 2.0 / epoch, error + 0.2 / epoch, 2.1 / epoch, error + 0.3 - epoch / 10, 0.5)
        for epoch in (1, 2, 3)
    )
    return Outcome(cost, TrainResult(curve, diverged=False, seconds=1.5))


def half_real(spec: NetworkSpec, train_config: Any, **given: Any) -> Outcome:
    """Train, but for the trial that fails."""
    if given["trial"] == FAILS:
        raise RuntimeError(SCRIPT)
    return evaluate_network(spec, train_config, **given)


def run(directory: Path, n: int, outcome: Any = made_up, **changes: Any) -> Study:
    """Return a study that has run so many trials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connsearch.search.attempt.evaluate_network", outcome)
        patch.setattr("os.fsync", lambda file: None)
        study = Study.from_config(directory, config(**changes))
        if n:
            study.run(n, device="cpu")
    return study
