"""A study that takes milliseconds: a small space, and errors made up from the cost instead of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from connsearch.cost import network_cost
from connsearch.search.config import StudyConfig
from connsearch.search.objective import Outcome
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, TrainResult

SPACE: dict[str, Any] = {
    "input": {"channels": 1, "height": 8, "width": 8},
    "n_classes": 4,
    "blocks": {
        "count": {"low": 1, "high": 2},
        "topology": {"any_of": ["chain", "dense", "sparse(base=3)"]},
        "aggregation": {"any_of": ["sum", "concat"]},
        "n_layers": {"low": 1, "high": 3},
        "width_ratio": {"low": 1.0, "high": 2.0},
    },
    "budget": {"macs": {"low": 50_000, "high": 200_000}},
}
TRAIN: dict[str, Any] = {
    "dataset": "synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32, n_test=32)",
    "epochs": 1,
    "batch_size": 16,
}


def make_config(**changes: Any) -> StudyConfig:
    """Return the configuration of the study in milliseconds, with some of its values changed."""
    return StudyConfig.from_dict(
        {"space": SPACE, "n_trials": 8, "sampler": "random", "train": TRAIN, **changes}
    )


def made_up_error(spec: NetworkSpec) -> float:
    """Return an error within 0..1 that depends on the network alone, and has no pattern."""
    return network_cost(spec).macs * 7919 % 1000 / 1000


def made_up_outcome(
    spec: NetworkSpec,
    train_config: object,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    **_: Any,
) -> Outcome:
    """Stand in for `evaluate_network`."""
    error = made_up_error(spec)
    record = EpochRecord(1, 0.1, 1.5, error, 1.5, error, 0.5)
    if on_epoch is not None:
        on_epoch(record)
    return Outcome(network_cost(spec), TrainResult((record,), diverged=False, seconds=0.5))


class StandIn:
    """Stands in for `evaluate_network`, to be filled in by `outcome`; stops where it is told to.

    Attributes:
        stop_after: After so many trainings the next one is stopped as by Ctrl-C, once.
        trained: What `outcome` noted of each.
    """

    def __init__(self) -> None:
        self.stop_after: int | None = None
        self.trained: list[Any] = []

    def __call__(self, spec: NetworkSpec, config: object, **given: Any) -> Outcome:
        if self.stop_after == len(self.trained):
            self.stop_after = None
            raise KeyboardInterrupt
        error, diverged = self.reach(spec, given["study_seed"], given["trial"])
        record = EpochRecord(1, 0.1, 1.5, error, 1.5, error, 0.5)
        given["on_epoch"](record)
        curve = () if diverged else (record,)
        return Outcome(network_cost(spec), TrainResult(curve, diverged, 0.5))

    def reach(self, spec: NetworkSpec, study_seed: int, trial: int) -> tuple[float, bool]:
        """Note the training; return its error, and whether it diverged."""
        raise NotImplementedError


def diverged_outcome(spec: NetworkSpec, train_config: object, **_: Any) -> Outcome:
    """Stand in for a training that does not stay finite."""
    return Outcome(network_cost(spec), TrainResult((), diverged=True, seconds=0.5))
