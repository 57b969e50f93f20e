"""What a trial costs in calls of its storage, whatever it has of knobs and attributes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_up import make_config
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from connsearch.errors import StudyError
from connsearch.search.storages import patient
from connsearch.search.storages.lease import LeaseLostError
from connsearch.search.storages.patient import PatientStorage
from connsearch.search.study import Study

CALLS = {
    "get_all_trials": 5,  # which is next; whose, before and after claiming; what to learn from; still ours?
    "create_new_trial": 2,  # the claim, the trial
    "write": 2,  # all that is known before training, all that came of it
    "set_trial_user_attr": 1,  # the lease, after each epoch
    "remove_session": 1,  # the lease's thread, without asking the storage
}
STATEMENTS = 65  # of a trial in SQLite, ten begins of transactions among them


class Counting:
    """Counts the calls of a storage."""

    def __init__(self, inner: BaseStorage) -> None:
        self.inner, self.calls = inner, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def counted(*args: Any, **more: Any) -> Any:
            self.calls[name] += 1
            return found(*args, **more)

        return counted


@pytest.fixture
def wide() -> dict[str, Any]:
    """A space of many knobs."""
    space = make_config().space.to_full_dict()
    return {**space, "blocks": {**space["blocks"], "count": 5, "per_block": ["topology", "aggregation"]}}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_calls_of_a_trial(
    tmp_path: Path, wide: dict[str, Any], sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.from_config(tmp_path, make_config(space=wide, sampler=sampler))
    assert len(study.config.space.knobs()) > 15
    study.run(12)
    storage = patient.patient(study._study)
    counting: Any = Counting(storage._inner)
    write = patient.write

    def counted_write(inner: Any, *args: Any) -> None:
        counting.calls["write"] += 1
        write(inner.inner, *args)

    monkeypatch.setattr(patient, "write", counted_write)
    storage._inner = counting
    study.run(12)
    rest = counting.calls.copy()  # of a run that finds nothing to do
    counting.calls.clear()
    study.run(22)
    assert {name: n / 10 for name, n in (counting.calls - rest).items() if n > 1} == CALLS


@pytest.mark.usefixtures("made_up")
def test_the_statements_of_a_trial_in_a_database(tmp_path: Path, wide: dict[str, Any]) -> None:
    from sqlalchemy import Engine, event

    study = Study.from_config(tmp_path / "study", make_config(space=wide), f"sqlite:///{tmp_path}/studies.db")
    study.run(2)
    statements: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        study.run(2)
        rest = len(statements)
        study.run(12)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert 0 < (len(statements) - 2 * rest) / 10 < STATEMENTS


# ---- a trial of a thread's own -----------------------------------------------------------------------


@pytest.fixture
def storage() -> PatientStorage:
    return PatientStorage(InMemoryStorage(), "db")


def running(storage: PatientStorage) -> tuple[int, int]:
    study = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    return study, storage.create_new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs={"a": 1}))


def test_what_is_written_together_is_known_at_once_and_written_at_the_end(storage: PatientStorage) -> None:
    study, trial = running(storage)
    inner = storage._inner
    with storage.own(study, trial) as found:
        assert found.user_attrs == {"a": 1}
        with storage.together():
            storage.set_trial_user_attr(trial, "b", 2)
            with storage.together():
                storage.set_trial_system_attr(trial, "c", 3)
            assert storage.get_trial(trial).user_attrs == {"a": 1, "b": 2}
            assert storage.get_trial_system_attrs(trial) == {"c": 3}
            assert inner.get_trial(trial).user_attrs == {"a": 1}
            assert inner.get_trial(trial).system_attrs == {}
        assert inner.get_trial(trial).user_attrs == {"a": 1, "b": 2}
        assert inner.get_trial(trial).system_attrs == {"c": 3}
        storage.set_trial_user_attr(trial, "d", 4)  # by itself
        assert inner.get_trial(trial).user_attrs == storage.get_trial(trial).user_attrs
    inner.set_trial_user_attr(trial, "e", 5)
    assert storage.get_trial(trial).user_attrs == {"a": 1, "b": 2, "d": 4, "e": 5}


def test_other_trials_and_other_threads_are_not_held_up(storage: PatientStorage) -> None:
    import threading

    study, trial = running(storage)
    other = storage.create_new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs={"a": 2}))
    with storage.own(study, trial), storage.together():
        storage.set_trial_user_attr(other, "b", 2)
        lease = threading.Thread(target=storage.set_trial_user_attr, args=(trial, "lease", 1))
        lease.start()
        lease.join()
        assert storage._inner.get_trial(other).user_attrs == {"a": 2, "b": 2}
        assert storage._inner.get_trial(trial).user_attrs == {"a": 1, "lease": 1}


@pytest.mark.parametrize(
    ("error", "kept"),
    [(ValueError("the trial's"), True), (StudyError("the storage's"), False), (LeaseLostError("x"), False),
     (KeyboardInterrupt("x"), False)],
)  # fmt: skip
def test_an_error_between(storage: PatientStorage, error: BaseException, kept: bool) -> None:
    study, trial = running(storage)
    with storage.own(study, trial):
        with pytest.raises(type(error), match=str(error)):
            write_and_raise(storage, trial, error)
        assert ("b" in storage._inner.get_trial(trial).user_attrs) == kept


def write_and_raise(storage: PatientStorage, trial: int, error: BaseException) -> None:
    with storage.together():
        storage.set_trial_user_attr(trial, "b", 2)
        raise error
