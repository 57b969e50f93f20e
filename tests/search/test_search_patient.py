"""A storage that goes away: calls are repeated, and what was done already is not done again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from connsearch.errors import StudyError
from connsearch.search.storages import patient as module
from connsearch.search.storages.patient import PatientStorage, full_disk, reason_away


class FlakyStorage:
    """Goes away at chosen calls: before it does what is asked ("lost"), or after ("done")."""

    def __init__(self) -> None:
        self.inner = InMemoryStorage()
        self.plan: list[str] = []
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.calls.append(name)
            what = self.plan.pop(0) if self.plan else "ok"
            answer = None if what == "lost" else getattr(self.inner, name)(*args, **more)
            if what != "ok":
                raise away()
            return answer

        return call


def away(text: str = "server closed the connection\nunexpectedly") -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("SELECT 1", {}, Exception(text))
    return error


@pytest.fixture
def flaky() -> FlakyStorage:
    return FlakyStorage()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def storage(flaky: FlakyStorage, said: list[str], monkeypatch: pytest.MonkeyPatch) -> PatientStorage:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    inner: Any = flaky
    storage = PatientStorage(inner, "db")
    storage.patience, storage.say = 60.0, said.append
    return storage


def test_every_method_of_a_storage_is_handed_on() -> None:
    for name in BaseStorage.__abstractmethods__ | {"remove_session"}:
        assert name in vars(PatientStorage)


def test_calls_are_repeated_and_told_once(
    flaky: FlakyStorage, storage: PatientStorage, said: list[str]
) -> None:
    study = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    flaky.plan = ["lost", "lost", "done"]
    storage.set_study_user_attr(study, "a", 1)
    assert storage.get_study_user_attrs(study) == {"a": 1}
    assert said == [
        "db is away (server closed the connection): waiting for it, up to 1 min 0 s", "db is back after 0 s",
    ]  # fmt: skip
    assert storage.outages == 3


def test_a_trial_is_not_created_twice(flaky: FlakyStorage, storage: PatientStorage) -> None:
    study = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    for plan, key in ((["done"], "a"), (["lost"], "b"), (["lost", "done", "lost"], "c")):
        flaky.plan = plan
        template = create_trial(state=TrialState.RUNNING, user_attrs={"mine": key})
        assert storage.get_trial(storage.create_new_trial(study, template)).user_attrs == {"mine": key}
    assert len(storage.get_all_trials(study)) == 3
    flaky.plan = ["done"]
    with pytest.raises(StudyError, match=r"^db: went away while a trial was created: run again$"):
        storage.create_new_trial(study)


def test_what_was_told_is_told(flaky: FlakyStorage, storage: PatientStorage) -> None:
    study = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial = storage.create_new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs={"a": 1}))
    flaky.plan = ["done"]
    assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    assert storage.get_trial(trial).values == [0.5]
    with pytest.raises(UpdateFinishedTrialError):  # Optuna's own
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    flaky.plan = ["lost"]
    with pytest.raises(UpdateFinishedTrialError):  # somebody else's values
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.25])


def test_patience_ends(flaky: FlakyStorage, storage: PatientStorage) -> None:
    storage.patience = 0.05
    flaky.plan = ["lost"] * 1000
    with pytest.raises(StudyError, match=r"^db: cannot be reached for 0 s: server closed the connection$"):
        storage.get_all_studies()
    storage.patience = 0.0  # while a study is opened
    with pytest.raises(StudyError, match=r"^db: cannot be reached: server closed the connection$"):
        storage.get_all_studies()


def test_a_full_disk_is_not_waited_for(flaky: FlakyStorage, storage: PatientStorage) -> None:
    def full(*args: object) -> None:
        raise away("database or disk is full")

    flaky.inner.set_study_user_attr = full  # type: ignore[method-assign]
    message = "db: cannot be written: database or disk is full; what was finished is in it: make room"
    with pytest.raises(StudyError, match=f"^{re.escape(message)}"):
        storage.set_study_user_attr(0, "a", 1)


def test_errors_that_are_no_outage_stay_what_they_are(storage: PatientStorage) -> None:
    with pytest.raises(KeyError, match="No such study"):
        storage.get_study_id_from_name("nobody")
    assert storage.outages == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (away(), "server closed the connection"),
        (OperationalError("", {}, Exception("the database system is starting up")),
         "the database system is starting up"),
        (DBAPIError("", {}, Exception("terminating connection"), connection_invalidated=True),
         "terminating connection"),
        (IntegrityError("", {}, Exception("duplicate key")), None),
        (KeyError("x"), None),
        (StorageInternalError("too long"), None),
    ],
)  # fmt: skip
def test_why_a_storage_is_away(error: Exception, reason: str | None) -> None:
    assert reason_away(error) == reason
    assert full_disk(error) is None


def test_why_a_grpc_proxy_is_away() -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel("localhost:1") as channel:
        call = channel.unary_unary("/a/b")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5)
    assert "localhost" in str(reason_away(caught.value)) or "connect" in str(reason_away(caught.value))
