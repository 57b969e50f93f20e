"""Writing what is known of a trial at once: one transaction in a database, one append to a journal.

Optuna's interface writes every knob and every attribute by itself, each of them some round trips to a
database. The tables and the lines written here are those that Optuna 5.0 writes, which are not part of its
interface: with another release, and to a storage of another kind, such as the gRPC proxy, all is written one
by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState

from connsearch.search.storages.journal import Journal

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


KNOWN = "5.0."
"""How versions of Optuna begin whose tables and lines are known here."""


@dataclass
class Writes:
    """What is to be written of a trial.

    Attributes:
        system_attrs: Optuna's own attributes by name; written first.
        params: Knobs by name, with their distributions, values as storages hold them.
        user_attrs: Attributes by name.
        states: Changes of state in order, with the values that are told; written last.
    """

    system_attrs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    states: list[tuple[TrialState, Sequence[float] | None]] = field(default_factory=list)

    @property
    def begins(self) -> bool:
        """Whether the trial is to begin to run."""
        return any(state == TrialState.RUNNING for state, _ in self.states)

    def __bool__(self) -> bool:
        return bool(self.system_attrs or self.params or self.user_attrs or self.states)


class NotWaitingError(Exception):
    """Another worker has made a trial run, with the knobs that it drew."""


def write(storage: BaseStorage, trial_id: int, writes: Writes) -> None:
    """Write all of it, or nothing where the storage can do that; it may be repeated.

    A database and a journal look at the trial's state and write in one step. A journal whose writer is killed
    may keep the first lines only: Optuna's attributes, all knobs that were drawn among them, then the rest.

    Raises:
        UpdateFinishedTrialError: if the trial is finished.
        NotWaitingError: if it is to begin to run, and does so already.
        Exception: what the storage raises when it is away or cannot be written.
    """
    if isinstance(storage, _CachedStorage):
        storage = storage._backend
    known = optuna.__version__.startswith(KNOWN)
    if known and isinstance(storage, RDBStorage):
        _to_database(storage, trial_id, writes)
    elif known and isinstance(storage, JournalStorage) and isinstance(storage._backend, Journal):
        _to_journal(storage, storage._backend, trial_id, writes)
    else:
        _one_by_one(storage, trial_id, writes)


def _check(trial_id: int, state: TrialState, writes: Writes) -> None:
    if state.is_finished():
        raise UpdateFinishedTrialError(f"Trial {trial_id} is finished already.")
    if writes.begins and state != TrialState.WAITING:
        raise NotWaitingError


def _one_by_one(storage: BaseStorage, trial_id: int, writes: Writes) -> None:
    if writes.begins and not storage.set_trial_state_values(trial_id, TrialState.RUNNING):
        raise NotWaitingError
    for key, value in writes.system_attrs.items():
        storage.set_trial_system_attr(trial_id, key, value)
    for name, (value, distribution) in writes.params.items():
        storage.set_trial_param(trial_id, name, value, distribution)
    for key, value in writes.user_attrs.items():
        storage.set_trial_user_attr(trial_id, key, value)
    for state, values in writes.states:
        if state != TrialState.RUNNING:
            storage.set_trial_state_values(trial_id, state, values)


# ---- databases ---------------------------------------------------------------------------------------


def _to_database(storage: RDBStorage, trial_id: int, writes: Writes) -> None:
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session

    with _create_scoped_session(storage.scoped_session) as session:
        trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        _check(trial_id, trial.state, writes)  # type: ignore[arg-type]  # a column's value
        put = _putter(session, storage.engine.name)
        for model, attrs in (
            (models.TrialSystemAttributeModel, writes.system_attrs),
            (models.TrialUserAttributeModel, writes.user_attrs),
        ):
            put(model, "key", [_attribute(trial_id, *item) for item in attrs.items()])
        put(models.TrialParamModel, "param_name", [_knob(trial_id, *p) for p in writes.params.items()])
        for state, values in writes.states:
            rows = [_value(trial_id, *value) for value in enumerate(values or ())]
            put(models.TrialValueModel, "objective", rows)
            _change(trial, state)


def _attribute(trial_id: int, key: str, value: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _knob(trial_id: int, name: str, knob: tuple[float, BaseDistribution]) -> dict[str, Any]:
    value, distribution = knob
    text = distribution_to_json(distribution)
    return {"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": text}


def _value(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    from optuna.storages._rdb.models import TrialValueModel

    stored, kind = TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def _putter(session: Session, dialect: str) -> Callable[[Any, str, list[dict[str, Any]]], None]:
    """Return what puts rows into a table in one statement; a row of the same trial and key is replaced."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]

    def put(model: Any, key: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        statement = insert(model).values(rows)
        new = {name: statement.excluded[name] for name in rows[0] if name not in ("trial_id", key)}
        session.execute(statement.on_conflict_do_update(index_elements=["trial_id", key], set_=new))

    return put


def _change(trial: Any, state: TrialState) -> None:
    """Change a trial's state as Optuna does."""
    trial.state = state
    if state == TrialState.RUNNING:
        trial.datetime_start = datetime.now()
    if state.is_finished():
        trial.datetime_complete = datetime.now()


# ---- journals ----------------------------------------------------------------------------------------


def _to_journal(storage: JournalStorage, journal: Journal, trial_id: int, writes: Writes) -> None:
    from optuna.storages.journal._storage import JournalOperation as Op

    lines: list[dict[str, Any]] = [
        *({"op_code": Op.SET_TRIAL_SYSTEM_ATTR, "system_attr": dict([a])}
            for a in writes.system_attrs.items()),
        *(
            {
                "op_code": Op.SET_TRIAL_PARAM, "param_name": name, "param_value_internal": value,
                "distribution": distribution_to_json(distribution),
            }
            for name, (value, distribution) in writes.params.items()
        ),
        *({"op_code": Op.SET_TRIAL_USER_ATTR, "user_attr": dict([a])} for a in writes.user_attrs.items()),
        *({"op_code": Op.SET_TRIAL_STATE_VALUES, **_state(*change)} for change in writes.states),
    ]  # fmt: skip
    with storage._thread_lock, journal.alone():
        storage._sync_with_backend()
        _check(trial_id, storage._replay_result.get_trial(trial_id).state, writes)
        worker = storage._replay_result.worker_id
        journal.append_logs([{**line, "worker_id": worker, "trial_id": trial_id} for line in lines])
        storage._sync_with_backend()


def _state(state: TrialState, values: Sequence[float] | None) -> dict[str, Any]:
    now = datetime.now(tz=UTC).isoformat(timespec="microseconds")
    when = {"datetime_start": now} if state == TrialState.RUNNING else {}
    when |= {"datetime_complete": now} if state.is_finished() else {}
    return {"state": state, "values": values if values is None else list(values), **when}
