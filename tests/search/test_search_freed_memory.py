"""What workers and trainings do with freed memory: kept while a network trains, released between two."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from made_up import made_up_outcome, make_config

from connsearch import memory
from connsearch.errors import StudyError
from connsearch.search import workers
from connsearch.search.memory import free_bytes
from connsearch.search.proxies.report import compare_proxies
from connsearch.search.storages.claims import Timing
from connsearch.search.study import Study


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings, which are made up, and releases, in order."""
    found: list[str] = []

    def trained(*args: object, **more: object) -> object:
        found.append("trained")
        return made_up_outcome(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", trained)
    for place in ("connsearch.search.runner", "connsearch.search.memory", "connsearch.search.proxies.report"):
        monkeypatch.setattr(f"{place}.release", lambda: found.append("released"))
    return found


@pytest.fixture
def _interrupts() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_a_worker_process_keeps_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(workers, "keep_freed", lambda: kept.append("kept"))
    ours, theirs = multiprocessing.Pipe()
    workers._work(theirs, tmp_path / "none", None, 1, "cpu", Timing())
    kind, error = ours.recv()
    assert (kept, kind) == (["kept"], "error")
    assert isinstance(error, StudyError)


def test_memory_is_released_when_a_trial_ends(tmp_path: Path, events: list[str]) -> None:
    Study.from_config(tmp_path / "study", make_config()).run(3, device="cpu")
    assert events == ["trained", "released"] * 3


def test_memory_is_released_when_proxies_of_a_trial_are_measured(
    tmp_path: Path, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*args: object, trial: int, **more: object) -> dict[str, float]:
        events.append("measured")
        return {"snip": trial % 7}

    monkeypatch.setattr("connsearch.search.proxies.report.measure_proxies", measured)
    study = Study.from_config(tmp_path / "study", make_config())
    study.run(10, device="cpu")
    del events[:]
    compare_proxies(study, ["snip"])
    assert events == ["measured", "released"] * 10


def test_what_is_kept_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000\n")
    used.write_text("4000\n")
    monkeypatch.setattr("connsearch.search.memory._CGROUPS", ((limit, used),))
    monkeypatch.setattr("connsearch.search.memory.release", lambda: used.write_text("1000\n"))
    assert free_bytes("cpu") == 4000


def test_a_study_that_a_program_runs_leaves_its_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_kept", [])
    monkeypatch.setattr(memory, "malloc_policy", lambda: memory.DEFAULT)
    monkeypatch.setattr("ctypes.CDLL", lambda name: Mock(mallopt=lambda *_: 1))
    Study.from_config(tmp_path / "study", make_config()).run(1, device="cpu")
    assert memory._kept == []
