"""Several workers on one study, really killed: nothing is lost, nothing is run twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import make_config
from postgres import Server, server_or_skip

from connsearch.errors import StudyError
from connsearch.search.config import StudyConfig
from connsearch.search.failures import MAX_DEATHS, died
from connsearch.search.hooks import Progress
from connsearch.search.storages import claims_of
from connsearch.search.storages.claims import ClaimLog, Timing, lease_of
from connsearch.search.study import Study
from connsearch.search.workers import Crew, _Parent, _Worker

QUICK = Timing(beat=0.5, expiry=5.0, poll=0.2)
TRIALS, WORKERS = 24, 4
FEWER = 14  # trials of a round of random kills


def config(**changes: Any) -> StudyConfig:
    train = {**make_config().train.to_full_dict(), "epochs": 6}
    return make_config(train=train, sampler={"name": "tpe", "n_startup_trials": 4}, **changes)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_or_skip() as server:
        yield server


class Run:
    """Workers in the background, whose trials' ends are written down."""

    def __init__(self, study: Study, total: int, workers: int = WORKERS) -> None:
        self.total = total
        self.ended: list[int] = []
        self.notes: list[str] = []
        self.killed: list[int] = []
        hooks = Progress(trial_ended=lambda n, _: self.ended.append(n), note=self.notes.append)
        crew = Crew(study.directory, None, total, ("cpu",) * workers, QUICK)
        self.parent = _Parent(crew, hooks)
        self.ran = 0
        self.trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.ran = self.parent.run()
        except BaseException as error:
            self.trouble = error

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 180
        while not condition() and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert condition(), (self.ended, self.notes, self.trouble)

    def kill(self, rng: random.Random) -> None:
        """Kill -9 a random worker that is not dead yet."""
        alive = [w.process.pid for w in self.parent.workers if w.process.is_alive()]
        self.killed.append(rng.choice(alive))
        os.kill(self.killed[-1], signal.SIGKILL)

    def wait(self) -> None:
        self._thread.join(timeout=240)
        assert not self._thread.is_alive()
        if self.trouble is not None:
            raise self.trouble


def check_nothing_lost_or_run_twice(study: Study, run: Run) -> None:
    again = Study.load(study.directory)
    trials = again.trials()
    assert [trial.number for trial in trials] == list(range(run.total))
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    given_up = [trial for trial in trials if trial.user_attrs.get("reason") == died(MAX_DEATHS).reason]
    assert MAX_DEATHS * len(given_up) <= len(run.killed)  # in the same epoch of the same trial each time
    ran = run.total - len(given_up)
    assert again.status().states == {"complete": ran, "failed": len(given_up), "pruned": 0, "unfinished": 0}
    assert max(Counter(run.ended).values()) == 1
    # One that was killed may not have told its last end.
    assert run.total - len(run.killed) <= len(run.ended) <= run.total
    attempts = {
        number: claim.attempt for number, claim in ClaimLog(claims_of(again._study)).holders().items()
    }
    assert set(attempts) >= set(range(run.total))
    assert sum(attempts.values()) - len(attempts) <= len(run.killed)  # each kill costs an attempt at most
    curves = [trial.user_attrs["curve"] for trial in trials if trial not in given_up]
    assert all(len(curve) == again.config.train.epochs for curve in curves)
    assert not (study.directory / "checkpoints").exists()


def kill_two(study: Study, rng: random.Random, *, between: Callable[[], object] = lambda: None) -> Run:
    run = Run(study, TRIALS)
    first = rng.randrange(1, TRIALS // 3)  # so that workers are still at work when the second one is killed
    run.until(lambda: len(run.ended) >= first)
    time.sleep(rng.random() / 10)
    run.kill(rng)
    between()
    run.until(lambda: len(run.ended) >= first + 3)
    time.sleep(rng.random() / 10)
    run.kill(rng)
    run.wait()
    assert sum("died (SIGKILL)" in note for note in run.notes) == 2
    return run


@pytest.mark.large
def test_two_of_four_workers_killed_on_a_journal_file(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "study", config())
    check_nothing_lost_or_run_twice(study, kill_two(study, random.Random(0)))


@pytest.mark.slow
def test_two_of_four_workers_killed_on_postgresql_and_connections_dropped(
    server: Server, tmp_path: Path
) -> None:
    study = Study.from_config(tmp_path / "dropped", config(), server.url)
    dropped: list[int] = []
    run = kill_two(study, random.Random(1), between=lambda: dropped.append(server.drop_connections()))
    assert dropped[0] >= 4
    check_nothing_lost_or_run_twice(study, run)


@pytest.mark.large
def test_a_database_that_goes_away_and_comes_back(server: Server, tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "away", config(), server.url)
    run = Run(study, TRIALS, workers=2)
    run.until(lambda: len(run.ended) >= 3)
    server.stop()
    run.until(lambda: bool(run.notes))
    time.sleep(8)  # longer than a lease lasts here
    server.start()
    run.wait()
    away, back = run.notes
    assert re.fullmatch(r".* is away \(.*\): waiting for it, up to 10 min 0 s", away)
    assert re.fullmatch(r".* is back after \d+ s", back)
    check_nothing_lost_or_run_twice(study, run)


def cli(*args: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("connsearch"), *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


@pytest.mark.large
@pytest.mark.parametrize("signals", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_workers_that_are_stopped_give_their_trials_back(tmp_path: Path, signals: signal.Signals) -> None:
    study = Study.from_config(tmp_path / "study", config(n_trials=40))
    toml = study.directory / "study.toml"
    run = cli("run", toml, "--dir", study.directory, "--workers", 2, "--device", "cpu")
    assert run.stderr is not None
    assert run.stderr.readline().startswith("[1/40] trial ")
    if signals == signal.SIGINT:
        os.killpg(run.pid, signals)  # as Ctrl-C in a terminal
    else:
        os.kill(run.pid, signals)  # as a cluster does
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == f"Stopped. Run the same command again to go on with {study.directory}."
    assert "Traceback" not in err
    again = Study.load(study.directory)
    cut_off = [trial for trial in again.trials() if not trial.state.is_finished()]
    assert all(lease_of(trial)["released"] for trial in cut_off)
    assert len(again.trials()) < 40
    assert again.run(len(again.trials()), device="cpu", timing=Timing(expiry=1e9)) == len(cut_off)


@pytest.mark.large
def test_workers_whose_parent_is_killed_end(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "study", config(n_trials=400))
    run = cli(
        "run", study.directory / "study.toml", "--dir", study.directory, "--workers", 2, "--device", "cpu"
    )
    assert run.stderr is not None
    assert run.stderr.readline().startswith("[1/400] trial ")
    run.kill()
    run.communicate()
    held = [lease_of(trial) for trial in study.trials() if not trial.state.is_finished()]
    assert held
    end = time.monotonic() + 30
    while any(Path(f"/proc/{lease['pid']}").exists() for lease in held) and time.monotonic() < end:
        time.sleep(0.1)
    again = Study.load(study.directory)
    cut_off = [trial for trial in again.trials() if not trial.state.is_finished()]
    assert all(lease_of(trial)["released"] for trial in cut_off)
    assert len(again.trials()) < 100
    assert again.run(len(again.trials()), device="cpu", timing=Timing(expiry=1e9)) == len(cut_off)


@pytest.mark.slow
def test_workers_that_cannot_live_are_not_replaced_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.from_config(tmp_path / "study", config())
    monkeypatch.setattr("connsearch.search.workers._work", _die)
    run = Run(study, TRIALS, workers=2)
    message = r"study: 7 workers died and no trial ended, the last of SIGKILL: see what they wrote above"
    with pytest.raises(StudyError, match=message):
        run.wait()
    assert run.notes == [f"worker {n} died (SIGKILL): another one takes its place" for n in dying(run)]


def dying(run: Run) -> list[int]:
    return [int(note.split()[1]) for note in run.notes]


def _die(*args: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.from_config(tmp_path / "study", config())
    (study.directory / "checkpoints").write_text("in the way")
    run = Run(study, TRIALS)
    with pytest.raises(StudyError, match=r"checkpoints: cannot be made: File exists$"):
        run.wait()
    assert run.parent.workers == []


@pytest.mark.large
@pytest.mark.parametrize("where", ["journal", "postgresql"])
def test_twenty_rounds_of_random_kills(server: Server, tmp_path: Path, where: str) -> None:
    for seed in range(10):
        url = server.url if where == "postgresql" else None
        study = Study.from_config(tmp_path / f"{where}-{seed}", config(seed=seed), url)
        run = random_kills(study, random.Random(f"{where} {seed}"), server if url else None)
        check_nothing_lost_or_run_twice(study, run)


def random_kills(study: Study, rng: random.Random, server: Server | None) -> Run:
    run = Run(study, FEWER)
    enough = FEWER - WORKERS
    for _ in range(rng.randrange(2, 6)):
        goal = min(len(run.ended) + 1, enough)
        time.sleep(rng.random() / 2)
        run.until(lambda goal=goal: len(run.ended) >= goal)
        if len(run.ended) >= enough:
            break
        run.kill(rng)
        if server is not None and rng.random() < 0.3:
            server.drop_connections()
    run.wait()
    return run


class Gone:
    """A process of which nobody knows how it ended: what started it was killed."""

    exitcode = 255

    def join(self) -> None:
        """Wait for nothing."""


def test_a_worker_that_was_done_needs_nobody_in_its_place(tmp_path: Path) -> None:
    notes: list[str] = []
    parent = _Parent(Crew(tmp_path, None, 3, ("cpu",), QUICK), Progress(note=notes.append))
    ours, theirs = multiprocessing.Pipe()
    parent.workers.append(_Worker(0, Gone(), ours))  # type: ignore[arg-type]
    theirs.send(("ran", 3))
    theirs.close()
    for _ in range(2):
        parent._listen(1.0)
    assert (parent.workers, parent.ran, notes) == ([], 3, [])
