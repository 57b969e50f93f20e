"""A study's finished trials for tools that track experiments: what is logged of each, and once only.

TensorBoard and MLflow get the same: the knobs and the network in words as parameters, the curve by
epoch, what was reached and counted under `final/`.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.search.failures import DIVERGED, failed
from connsearch.search.measures import ERRORS
from connsearch.search.reading.records import COUNTED, network_row, state_of
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.twins import HASH, TWIN

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.study import Study

Scalar = bool | int | float | str
_WORDS = ("topology", "aggregation", "unit", "n_layers", "depths", "widths")
_TAGS = (HASH, TWIN, SEEDS_OF, "reason")


@dataclass(frozen=True)
class Epoch:
    """One epoch of a curve: its number from 1, when it ended as far as that is known, its values."""

    number: int
    ended: datetime
    values: dict[str, float]


@dataclass(frozen=True)
class LoggedTrial:
    """What is logged of a finished trial.

    Attributes:
        number: The trial's.
        state: "complete", "failed" or "pruned".
        failed: Whether it reached nothing: it failed, or its training diverged. What was pruned did not.
        params: The knobs as they were drawn, and the network in words.
        final: What was reached and counted, by name.
        curve: By epoch.
        tags: Other words: hash of the network, its twin, the reason why it failed, device and versions.
        started: By the clock of its worker.
        ended: By the clock of its worker.
    """

    number: int
    state: str
    failed: bool
    params: dict[str, Scalar]
    final: dict[str, float]
    curve: tuple[Epoch, ...]
    tags: dict[str, str]
    started: datetime
    ended: datetime

    @property
    def name(self) -> str:
        """Its name in other tools: sorted as text, it is sorted by number."""
        return f"trial-{self.number:05d}"


def logged_trials(trials: Sequence[FrozenTrial]) -> list[LoggedTrial]:
    """Return what is logged of each trial that ended, by number."""
    return [_logged(trial) for trial in trials if trial.state.is_finished()]


def _logged(trial: FrozenTrial) -> LoggedTrial:
    attrs = trial.user_attrs
    started = trial.datetime_start or trial.datetime_complete or datetime.now()
    row = network_row(attrs) if {"network", "cost"} <= attrs.keys() else {}
    final = {name: float(row[name]) for name in COUNTED if name in row}
    final |= {name: float(attrs[name]) for name in (*ERRORS, "seconds") if name in attrs}
    environment = {f"env.{name}": str(value) for name, value in attrs.get("environment", {}).items()}
    return LoggedTrial(
        number=trial.number,
        state=state_of(trial),
        failed=failed(trial) or DIVERGED in trial.constraints,
        params={**{name: row[name] for name in _WORDS if name in row}, **trial.params},
        final=final,
        curve=tuple(_epochs(attrs.get("curve", []), started)),
        tags={name: str(attrs[name]) for name in _TAGS if attrs.get(name) is not None} | environment,
        started=started,
        ended=trial.datetime_complete or started,
    )


def _epochs(curve: Sequence[dict[str, Any]], started: datetime) -> Iterator[Epoch]:
    """Yield the epochs of a curve; the time of each is the begin and the seconds of training until then."""
    at = started
    for record in curve:
        at += timedelta(seconds=record["seconds"])
        yield Epoch(record["epoch"], at, {name: float(v) for name, v in record.items() if name != "epoch"})


def identity_of(study: Study) -> str:
    """Return digits of the configuration as it is recorded, which never changes, wherever the study lies."""
    recorded = str(study._study.user_attrs["config"])
    return hashlib.sha256(recorded.encode()).hexdigest()[:16]


def _user() -> str:
    """Return who runs this, by number where there is one: a container's user may have no name."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Wait until no other process of this user on this host logs the study."""
    from filelock import FileLock

    name = f"connsearch-log-{_user()}-{identity_of(study)}.lock"
    with FileLock(Path(tempfile.gettempdir()) / name):
        yield
