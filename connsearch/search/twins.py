"""Twins: which earlier trial of a study had the same network, though perhaps spelled otherwise?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from connsearch.cost import NetworkCost
from connsearch.search.failures import reached
from connsearch.search.objective import Outcome
from connsearch.spec import resolve
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, TrainResult

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

HASH, TWIN = "hash", "twin"
"""Attributes of a trial: the digest of its network, the first trial that had the same."""


def network_hash(spec: NetworkSpec) -> str:
    """Return hexadecimal digits that are equal for two spellings of one network."""
    return resolve(spec).canonical_hash()


def twin_of(digest: str, number: int, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the first trial before a number that ended well with the same network; None if none did."""
    for trial in trials[:number]:
        if trial.user_attrs.get(HASH) == digest and reached(trial):
            return trial
    return None


def outcome_of(trial: FrozenTrial, cost: NetworkCost) -> Outcome:
    """Return the outcome that a trial has on record, for a network of a known cost."""
    attrs = trial.user_attrs
    curve = tuple(EpochRecord.from_dict(record) for record in attrs["curve"])
    return Outcome(cost, TrainResult(curve, diverged=False, seconds=attrs["seconds"]))
