"""A study whose trials are made up, for commands that only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import SPACE, STUDY

from connsearch.cost import network_cost
from connsearch.search.config import StudyConfig
from connsearch.search.objective import Outcome
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, TrainResult

FAIL = (3, 9)  # trials


def outcome(spec: NetworkSpec, train_config: object, *, trial: int, **_: object) -> Outcome:
    """Fail with some trials; else an error that falls with the cost, in two epochs."""
    if trial in FAIL:
        raise RuntimeError("no such luck")
    cost = network_cost(spec)
    error = round(20_000 / cost.macs, 4)
    curve = tuple(EpochRecord(epoch, 0.1, 1.5, 0.5, 1.5, error, 0.25) for epoch in (1, 2))
    return Outcome(cost, TrainResult(curve, diverged=False, seconds=0.5))


def made_up_study(path: Path, n_trials: int) -> Path:
    """Run so many trials of a study in `path`/d; return `path`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("connsearch.search.attempt.evaluate_network", outcome)
        patch.setattr("os.fsync", lambda file: None)
        Path("space.toml").write_text(SPACE)
        Path("study.toml").write_text(STUDY)
        Study.from_config("d", StudyConfig.from_toml("study.toml")).run(n_trials, device="cpu")
    return path
