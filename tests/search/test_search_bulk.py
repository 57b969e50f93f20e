"""What is written of a trial at once is what Optuna would have written one by one, on every storage."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from postgres import server_or_skip

from connsearch.search.storages import bulk
from connsearch.search.storages.bulk import NotWaitingError, Writes, write
from connsearch.search.storages.databases import connect, parse
from connsearch.search.storages.journal import Journal

KNOBS = {
    "count": (3.0, IntDistribution(1, 9, log=True)),
    "topology": (1.0, CategoricalDistribution(["chain", "dense"])),
    "ratio": (1.25, FloatDistribution(1.0, 2.0)),
}
ATTRS = {"network": {"blocks": [1, 2.5, None, "é"]}, "val_error": 0.25, "lease": {"attempt": 1}}


def everything() -> Writes:
    """Return one of each kind, values that are no plain numbers among them."""
    fixed = {"fixed_params": {"count": 3, "topology": "dense"}, "constraints:failed": 1.0}
    states: list[Any] = [(TrialState.RUNNING, None), (TrialState.COMPLETE, [math.inf, -0.5])]
    return Writes(fixed, dict(KNOBS), dict(ATTRS), states)


@pytest.fixture(
    params=["journal", "sqlite", "memory", pytest.param("postgresql", marks=pytest.mark.slow)],
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    if request.param == "journal":
        yield optuna.storages.JournalStorage(Journal(tmp_path / "journal.log", tmp_path / "lock"))
    elif request.param == "sqlite":
        yield connect(parse(f"sqlite:///{tmp_path}/studies.db"))
    elif request.param == "memory":
        yield optuna.storages.InMemoryStorage()
    else:
        with server_or_skip() as server:
            yield connect(parse(server.url))


def new_trial(storage: BaseStorage, state: TrialState = TrialState.WAITING) -> int:
    try:
        study = storage.get_study_id_from_name("study")
    except KeyError:
        study = storage.create_new_study([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE], "study")
    return storage.create_new_trial(study, create_trial(state=state, user_attrs={"lease": {"attempt": 0}}))


def record(trial: FrozenTrial) -> Any:
    times = trial.datetime_start is not None, trial.datetime_complete is not None
    attrs = trial.user_attrs, trial.system_attrs
    return trial.state, trial.values, list(trial.params.items()), trial.distributions, *attrs, *times


@pytest.mark.parametrize("last", [0, 1, 2], ids="{}-changes-of-state".format)
def test_at_once_is_as_one_by_one(storage: BaseStorage, last: int) -> None:
    at_once, one_by_one = new_trial(storage), new_trial(storage)
    writes = everything()
    writes.states = writes.states[:last]
    write(storage, at_once, writes)
    bulk._one_by_one(storage, one_by_one, writes)
    assert record(storage.get_trial(at_once)) == record(storage.get_trial(one_by_one))
    trial = storage.get_trial(at_once)
    assert trial.params == {"count": 3, "topology": "dense", "ratio": 1.25}
    assert trial.user_attrs == ATTRS
    assert trial.state == [TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE][last]


def test_another_release_of_optuna_is_written_one_by_one(
    storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: Any) -> None:
        raise AssertionError("tables or lines of an unknown release")

    monkeypatch.setattr("optuna.__version__", "5.1.0")
    monkeypatch.setattr(bulk, "_to_database", unknown)
    monkeypatch.setattr(bulk, "_to_journal", unknown)
    trial = new_trial(storage)
    write(storage, trial, everything())
    assert storage.get_trial(trial).state == TrialState.COMPLETE
    assert storage.get_trial(trial).user_attrs == ATTRS


def test_what_is_written_twice_is_written_once(storage: BaseStorage) -> None:
    trial = new_trial(storage, TrialState.RUNNING)
    writes = everything()
    writes.states = []
    write(storage, trial, writes)
    writes.user_attrs["val_error"] = 0.5
    write(storage, trial, writes)
    assert storage.get_trial(trial).user_attrs == {**ATTRS, "val_error": 0.5}
    assert storage.get_trial(trial).params == {"count": 3, "topology": "dense", "ratio": 1.25}


def test_a_finished_trial_is_not_changed(storage: BaseStorage) -> None:
    trial = new_trial(storage, TrialState.RUNNING)
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.1, 0.2])
    before = record(storage.get_trial(trial))
    with pytest.raises(UpdateFinishedTrialError, match=r"finished"):
        write(storage, trial, everything())
    assert record(storage.get_trial(trial)) == before
    assert record(storage.get_trial(new_trial(storage)))[0] == TrialState.WAITING  # it can be used


@pytest.mark.parametrize("drawn", [{"count": KNOBS["count"]}, {"ratio": KNOBS["ratio"]}])
def test_of_two_that_draw_the_knobs_of_a_trial_the_first_one_wins(storage: BaseStorage, drawn: Any) -> None:
    trial = new_trial(storage)
    first = Writes(params=drawn, states=[(TrialState.RUNNING, None)])
    write(storage, trial, first)
    before = record(storage.get_trial(trial))
    with pytest.raises(NotWaitingError, match=r"^$"):
        write(storage, trial, everything())
    assert record(storage.get_trial(trial)) == before


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_of_many_at_once_one_wins(tmp_path: Path, kind: str) -> None:
    def connected() -> BaseStorage:
        if kind == "journal":
            return optuna.storages.JournalStorage(Journal(tmp_path / "journal.log", tmp_path / "lock"))
        return connect(parse(f"sqlite:///{tmp_path}/studies.db"))

    storages = [connected() for _ in range(4)]
    trial, barrier = new_trial(storages[0]), threading.Barrier(4)

    def draw(index: int) -> bool:
        knob = {"count": (float(index + 1), KNOBS["count"][1])}
        barrier.wait()
        try:
            write(storages[index], trial, Writes({}, knob, {"who": index}, [(TrialState.RUNNING, None)]))
        except NotWaitingError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(draw, range(4)))
    assert sum(won) == 1
    for storage in storages:
        there = storage.get_trial(trial)
        assert (there.params, there.user_attrs["who"]) == ({"count": won.index(True) + 1}, won.index(True))


def test_a_database_gets_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    storage = connect(parse(f"sqlite:///{tmp_path}/studies.db"))
    trial = new_trial(storage)
    before = record(storage.get_trial(trial))

    def gone(*args: Any) -> None:
        raise OperationalError("", {}, Exception("server closed the connection"))

    with monkeypatch.context() as patch:
        patch.setattr(bulk, "_change", gone)  # the last of it
        with pytest.raises(StorageInternalError, match="exception is raised during the commit"):
            write(storage, trial, everything())
    assert record(storage.get_trial(trial)) == before
    write(storage, trial, everything())
    assert storage.get_trial(trial).user_attrs == ATTRS
