"""Can a trial be repeated from its record alone? Trains it again and compares the curves value for value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connsearch.errors import StudyError
from connsearch.search.failures import DIVERGED, failed
from connsearch.search.objective import environment, evaluate_network, training_device
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, StopTraining

TIMES = ("seconds",)
"""What of an epoch is measured, and differs every time."""


@dataclass(frozen=True)
class Repetition:
    """What came of training a trial again.

    Attributes:
        trial: The trial's number.
        epochs: Epochs of the recorded curve.
        difference: Where the curves part, in words; empty if they are equal.
        changed: What of the environment is another: by name, as recorded and as it is here.
    """

    trial: int
    epochs: int
    difference: str
    changed: dict[str, tuple[Any, Any]]

    @property
    def equal(self) -> bool:
        """Whether the curves are equal value for value, times left out."""
        return not self.difference

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        changed = {name: {"recorded": old, "here": new} for name, (old, new) in self.changed.items()}
        return {
            "trial": self.trial,
            "epochs": self.epochs,
            "equal": self.equal,
            "difference": self.difference,
            "changed": changed,
        }

    def __str__(self) -> str:
        """Return a line about the curves, and one for each thing that is another than then."""
        found = f"equal, all {self.epochs} epochs value for value" if self.equal else self.difference
        others = [f"{name:9}{old} recorded, {new} here" for name, (old, new) in self.changed.items()]
        if not self.equal and not others:
            others = ["machine and versions are those of the record: a bug, or a data set that has changed"]
        return "\n".join([f"trial {self.trial}: {found}", *others])


def retrain_exactly(
    study: Study,
    number: int,
    *,
    device: str | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Repetition:
    """Train a finished trial again, with its own network and seeds, and compare.

    A trial that was pruned is trained, and compared, up to the epoch where it was.

    Args:
        study: The study.
        number: The trial's number.
        device: Where to train; by default the kind of device that the record names.
        on_epoch: Called after each epoch.
        checkpoint: As `connsearch.train.train` takes it; holds the weights in the end.

    Raises:
        StudyError: if there is no such trial, or it has no curve.
        TrainError, DataError: as `connsearch.search.objective.evaluate_network`.
    """
    attrs = record_of(study, number)
    then: Mapping[str, Any] = attrs["environment"]
    device = training_device(device or then.get("kind"))
    now = environment(device, study.config.train.threads)
    outcome = evaluate_network(
        NetworkSpec.from_dict(attrs["network"]),
        study.config.train,
        study_seed=study.config.seed,
        trial=attrs.get(SEEDS_OF, number),
        device=device,
        on_epoch=_until(attrs.get(PRUNED, {}).get("epoch"), on_epoch),
        checkpoint=checkpoint,
    )
    curve = [record.to_dict() for record in outcome.training.curve]
    difference = _difference(attrs["curve"], curve)
    if not difference and outcome.training.diverged != (attrs.get("reason") == DIVERGED):
        difference = f"{'diverges' if outcome.training.diverged else 'does not diverge'} now"
    changed = {name: (then.get(name, "unknown"), value) for name, value in now.items()}
    return Repetition(
        number,
        len(attrs["curve"]),
        difference,
        {name: pair for name, pair in changed.items() if pair[0] != pair[1]},
    )


def _until(last: int | None, on_epoch: Callable[[EpochRecord], None] | None) -> Callable[[EpochRecord], None]:
    """Return what is called after each epoch: tells the caller, and ends the training after the last one."""

    def told(record: EpochRecord) -> None:
        if on_epoch is not None:
            on_epoch(record)
        if record.epoch == last:
            raise StopTraining

    return told


def record_of(study: Study, number: int) -> dict[str, Any]:
    """Return what is recorded of a finished trial.

    Raises:
        StudyError: if there is no such trial, it failed or is not finished.
    """
    trials = study.trials()
    if not 0 <= number < len(trials):
        raise StudyError(f"{study.directory}: no trial {number}: it has {len(trials)}, counted from 0")
    trial = trials[number]
    if failed(trial):
        reason = trial.user_attrs.get("reason", "no reason is recorded")
        raise StudyError(f"{study.directory}: trial {number} failed ({reason}): there is no curve to compare")
    if "curve" not in trial.user_attrs or not trial.state.is_finished():
        raise StudyError(f"{study.directory}: trial {number} is not finished: go on with the study first")
    return trial.user_attrs


def _difference(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    """Return where two curves part, in words; empty if they do not."""
    for old, new in zip(then, now, strict=False):
        for name in sorted(old.keys() | new.keys()):
            if name not in TIMES and old.get(name) != new.get(name):
                what = f"{name} {old.get(name)!r} recorded, {new.get(name)!r} now"
                return f"differs from epoch {old['epoch']} on: {what}"
    if len(then) != len(now):
        return f"differs: {len(then)} epochs recorded, {len(now)} now"
    return ""
