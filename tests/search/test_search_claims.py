"""Who may run a trial: races in one process, on every storage; deaths, leases, what is given back."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import made_up_outcome, make_config
from optuna.trial import TrialState
from postgres import server_or_skip

from connsearch.errors import StudyError
from connsearch.search import runner
from connsearch.search.drawing import Drawing
from connsearch.search.hooks import Progress
from connsearch.search.objective import Outcome
from connsearch.search.space import label
from connsearch.search.storages import claims, claims_of
from connsearch.search.storages.bulk import Writes, write
from connsearch.search.storages.claims import Claim, ClaimLog, Timing, Watch, Worker, lease_of, next_claim
from connsearch.search.storages.lease import Lease, LeaseLostError
from connsearch.search.storages.patient import PatientStorage, patient
from connsearch.search.study import Study
from connsearch.search.twins import network_hash

QUICK = Timing(beat=0.05, expiry=0.5, poll=0.05)
ELSEWHERE = Worker("elsewhere", "other-host", "another machine", 1, 1)


@contextmanager
def proxy(url: str) -> Iterator[str]:
    """A gRPC proxy in front of a database."""
    grpc = pytest.importorskip("grpc")
    from optuna.storages._grpc.server import make_server

    from connsearch.search.storages.databases import connect, parse

    pool = ThreadPoolExecutor(8)
    server = make_server(connect(parse(url)), "localhost", 0, pool)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"grpc://localhost:{port}"
    finally:
        server.stop(None).wait()
        pool.shutdown()
    assert grpc is not None


@pytest.fixture(
    params=[
        "journal",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sqlite", "grpc", "postgresql")),
    ]
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    database = f"sqlite:///{tmp_path}/studies.db"
    if request.param == "postgresql":
        with server_or_skip() as server:
            yield server.url
    elif request.param == "grpc":
        with proxy(database) as url:
            yield url
    else:
        yield None if request.param == "journal" else database


def attempts(study: Study) -> list[int]:
    holders = ClaimLog(claims_of(study._study)).holders()
    return [holders[number].attempt for number in sorted(holders)]


def test_workers_that_start_at_the_same_instant_share_the_trials(
    storage: str | None, tmp_path: Path, made_up: None
) -> None:
    n_trials, n_workers = 12, 4
    barrier = threading.Barrier(n_workers)
    ended: list[int] = []

    def work(index: int) -> int:
        barrier.wait()  # each of them creates the study, or joins it
        study = Study.from_config(tmp_path / "study", make_config(), storage)
        hooks = Progress(trial_ended=lambda number, _: ended.append(number))
        return study.run(n_trials, device="cpu", progress=hooks, timing=Timing(poll=0.05))

    with ThreadPoolExecutor(n_workers) as pool:
        ran = list(pool.map(work, range(n_workers)))
    assert sum(ran) == n_trials
    assert sorted(ended) == list(range(n_trials))
    study = Study.load(tmp_path / "study", storage)
    assert [(trial.number, trial.state.name) for trial in study.trials()] == [
        (number, "COMPLETE") for number in range(n_trials)
    ]
    assert attempts(study) == [1] * n_trials
    assert {len(trial.params) for trial in study.trials()} == {len(study.config.space.knobs())}


def test_trials_are_equal_on_every_storage(storage: str | None, tmp_path: Path, made_up: None) -> None:
    sampler = {"name": "tpe", "n_startup_trials": 3}
    study, plain = (
        Study.from_config(tmp_path / name, make_config(sampler=sampler), where)
        for name, where in (("study", storage), ("plain", None))
    )
    study.run(6)
    plain.run(6)
    assert [(t.params, list(t.values)) for t in study.trials()] == [
        (t.params, list(t.values)) for t in plain.trials()
    ]


@pytest.fixture
def study(tmp_path: Path, made_up: None) -> Study:
    return Study.from_config(tmp_path / "study", make_config())


def begin(study: Study, worker: Worker, number: int = 0) -> tuple[Claim, ClaimLog, int]:
    """Claim a trial and create it, as a worker does that is then heard of no more."""
    from optuna.trial import TrialState, create_trial

    from connsearch.search.storages.lease import first_sign

    log, claim = ClaimLog(claims_of(study._study)), Claim(number, 1, worker)
    assert log.take(claim)
    template = create_trial(state=TrialState.RUNNING, user_attrs={"lease": first_sign(claim)})
    return claim, log, study._study._storage.create_new_trial(study._study._study_id, template)


def test_the_first_claim_of_an_attempt_holds(study: Study) -> None:
    one, other = (ClaimLog(claims_of(Study.load(study.directory)._study)) for _ in range(2))
    mine, theirs = Claim(0, 1, Worker.here()), Claim(0, 1, ELSEWHERE)
    assert one.take(mine)
    assert not other.take(theirs)
    assert other.holders() == one.holders() == {0: mine}
    later = Claim(0, 2, ELSEWHERE)
    assert other.take(later)
    assert not one.holds(mine)
    assert not one.take(mine)  # an old attempt cannot come back


def test_a_new_trial_is_claimed_only_when_all_before_it_are_there(study: Study) -> None:
    log, worker = ClaimLog(claims_of(study._study)), Worker.here()
    with worker:
        claim = next_claim([], log, Watch(60), worker, total=3, outages=0)
        assert claim == Claim(0, 1, worker)
        assert log.take(claim)
        assert next_claim([], log, Watch(60), worker, total=3, outages=0) is None  # it is being created
    again = next_claim([], log, Watch(60), worker, total=3, outages=0)
    assert again == Claim(0, 2, worker, deaths=1)  # its worker is gone


def test_a_process_that_ended_is_seen_at_once() -> None:
    code = "from connsearch.search.storages.claims import Worker; w = Worker.here(); print(w.pid, w.started)"
    pid, started = map(int, subprocess.check_output([sys.executable, "-c", code]).split())
    ended = replace(Worker.here(), pid=pid, started=started)
    assert ended.is_gone()
    assert not replace(ended, machine="another").is_gone()  # cannot be seen from here
    with Worker.here() as here:
        assert not here.is_gone()
        assert replace(here, started=here.started + 1).is_gone()  # the number is another process's now
    assert here.is_gone()


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = replace(Worker.here(), pid=process.pid, started=claims._started(process.pid))
    assert not worker.is_gone()
    process.kill()
    for _ in range(500):
        if worker.is_gone():
            break
        threading.Event().wait(0.01)
    assert worker.is_gone()  # though nobody has asked for its exit status
    process.communicate()


def test_elsewhere_a_lease_that_does_not_change_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("connsearch.search.storages.claims.time.monotonic", lambda: now)
    watch, claim = Watch(60), Claim(0, 1, ELSEWHERE)

    def is_free(beat: int, outages: int = 0, after: float = 0.0, **more: Any) -> bool:
        nonlocal now
        now += after
        return watch.is_free(claim, {"attempt": 1, "beat": beat, **more}, outages)

    assert not is_free(1)
    assert not is_free(1, after=60)
    assert is_free(1, after=1)
    assert not is_free(2)  # it lives
    assert not is_free(2, after=59)
    assert not is_free(2, outages=1, after=30)  # the storage was away: nobody could be heard
    assert not is_free(2, outages=1, after=60)
    assert is_free(2, outages=1, after=1)
    assert is_free(3, released=True)
    assert not watch.is_free(Claim(0, 2, ELSEWHERE), {"attempt": 1, "released": True}, 0)  # an older one's


def test_deaths_count_only_without_progress() -> None:
    claim = Claim(7, 1, ELSEWHERE)
    for deaths, lease in [
        (1, {}), (2, {"epoch": 0}), (1, {"epoch": 3}), (2, {"epoch": 3}), (2, {"epoch": 3, "released": True}),
        (0, {"epoch": 4, "released": True}), (1, {"epoch": 2}),
    ]:  # fmt: skip
        claim = claim.successor(ELSEWHERE, lease)
        assert claim.deaths == deaths
    assert (claim.trial, claim.attempt, claim.epoch) == (7, 8, 4)


def test_a_trial_that_kills_its_worker_three_times_is_given_up(study: Study) -> None:
    claim, log, _ = begin(study, ELSEWHERE)
    for _ in range(2):
        claim = claim.successor(Worker.here(), {})
        assert log.take(claim)
    assert study.run(2, timing=QUICK) == 2
    first, second = study.trials()
    assert first.user_attrs["reason"] == "worker died 3 times"
    assert first.constraints == {"failed": 1.0}
    assert list(first.values) == [1.0, 200_000.0]
    assert "reason" not in second.user_attrs
    assert study.status().states == {"complete": 1, "failed": 1, "pruned": 0, "unfinished": 0}
    assert study.status().reasons == {"worker died 3 times": 1}


def test_what_a_dead_worker_elsewhere_left_is_taken_over(study: Study) -> None:
    begin(study, ELSEWHERE)
    assert study.run(2, timing=QUICK) == 2
    assert attempts(study) == [2, 1]
    # the living is not waited for: trial 1 was run first, trial 0 after its lease had run out
    assert study.trials()[1].datetime_complete < study.trials()[0].datetime_complete


def test_a_worker_that_was_thought_dead_lets_go(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    def robbed(*args: Any, **more: Any) -> Outcome:
        log = ClaimLog(claims_of(study._study))
        if len(notes) == 0 and log.holders()[0].attempt == 1:
            log.take(log.holders()[0].successor(ELSEWHERE, {}))
        return made_up_outcome(*args, **more)

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", robbed)
    assert study.run(1, progress=Progress(note=notes.append), timing=QUICK) == 1
    assert notes == ["trial 0: another worker has taken it over"]
    assert attempts(study) == [3]  # ours, theirs, and ours again when they were not heard of
    assert study.status().states["complete"] == 1


def test_a_trial_that_somebody_else_finished_is_let_go(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    def overtaken(*args: Any, **more: Any) -> Outcome:
        Study.load(study.directory)._study.tell(more["trial"], [0.125, 1.0])
        return made_up_outcome(*args, **more)

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", overtaken)
    assert study.run(1, progress=Progress(note=notes.append), timing=Timing()) == 0
    assert notes == ["trial 0: another worker has taken it over"]
    assert list(study.trials()[0].values) == [0.125, 1.0]


def test_a_lease_beats_and_notices_its_end(study: Study) -> None:
    claim, log, trial_id = begin(study, Worker.here())
    storage = patient(study._study)

    def beat() -> int:
        return int(lease_of(study.trials()[0])["beat"])

    def live() -> None:
        with Lease(storage, trial_id, claim, log, 0.02) as lease:
            lease.reached(3)
            assert lease_of(study.trials()[0])["epoch"] == 3
            first = beat()
            wait_for(lambda: beat() > first + 1)
            lease.check()
            log.take(claim.successor(ELSEWHERE, {}))
            with pytest.raises(LeaseLostError, match=r"^$"):
                lease.check()
            wait_for(lambda: lease._trouble is not None)
            lease.reached(4)

    with pytest.raises(LeaseLostError, match=r"^$"):
        live()
    assert "released" not in lease_of(study.trials()[0])  # it is not ours to give back


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StudyError("disk")])
def test_a_lease_is_given_back(study: Study, error: BaseException) -> None:
    claim, log, trial_id = begin(study, Worker.here())
    with (
        pytest.raises(type(error), match=f"^{error}$"),
        Lease(patient(study._study), trial_id, claim, log, 60),
    ):
        raise error
    assert lease_of(study.trials()[0])["released"] is True
    assert Watch(60).is_free(claim, lease_of(study.trials()[0]), 0)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["claimed", "making"])
@pytest.mark.parametrize("number", [0, 1, 2], ids="trial-{}".format)
def test_a_worker_that_stalls_before_its_trial_is_made_makes_none_too_many(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    """While it stalls, another one takes its claim over, makes the trial and runs it."""
    unbroken = Study.from_config(tmp_path / "unbroken", make_config())
    unbroken.run(4)
    owner: type = PatientStorage if when == "making" else runner._Runner
    name = "create_new_trial" if when == "making" else "_begin"
    inner, stalled = getattr(owner, name), []

    def stalling(self: Any, *args: Any) -> Any:
        if when == "claimed":
            begun = args[0].trial == number
        else:
            begun = "claim" not in args[1].user_attrs and len(study.trials()) == number
        if begun and not stalled:
            stalled.append(number)
            assert Study.load(study.directory).run(number + 1, timing=QUICK) == 1
        return inner(self, *args)

    monkeypatch.setattr(owner, name, stalling)
    assert study.run(3, timing=QUICK) == 2
    assert stalled == [number]
    trials = study.trials()
    spare = [trial for trial in trials if not trial.state.is_finished()]
    assert [(t.number, t.state.name, t.params) for t in spare] == (
        [(3, "WAITING", {})] if (number, when) == (2, "making") else []
    )
    assert outcomes(study)[:3] == outcomes(unbroken)[:3]
    assert attempts(study) == [2 if each == number else 1 for each in range(3)]
    status = study.status()
    assert status.states == {"complete": 3, "failed": 0, "pruned": 0, "unfinished": 0}
    assert (status.running, status.workers) == ((), ())  # what is spare is held by nobody
    assert not (study.directory / "checkpoints").exists()
    assert study.run(3) == 0
    assert study.run(4) == 1  # what is spare is run when it is asked for
    assert outcomes(study) == outcomes(unbroken)


def test_a_trial_whose_number_somebody_elses_has_taken_is_run_as_that(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stalled makes a trial at the very moment that another one makes the next."""
    unbroken = Study.from_config(tmp_path / "unbroken", make_config())
    unbroken.run(3)
    make, made = PatientStorage.create_new_trial, []

    def late(self: PatientStorage, study_id: int, template: Any = None) -> int:
        if "claim" not in template.user_attrs and len(study.trials()) == 1 and not made:
            made.append(make(self, study_id, template))
        return make(self, study_id, template)

    monkeypatch.setattr(PatientStorage, "create_new_trial", late)
    assert study.run(3, timing=Timing(expiry=1e9)) == 3
    assert len(made) == 1
    assert outcomes(study) == outcomes(unbroken)
    assert attempts(study) == [1, 1, 1]


def test_a_worker_that_stalls_while_it_draws_goes_on_with_nothing(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has drawn other knobs than the one who took its trial over: these stay, and are trained once."""
    draw, drawn = Drawing.draw, []

    def stalling(drawing: Drawing, *args: Any) -> dict[str, Any]:
        knobs = draw(drawing, *args)
        if not drawn:
            drawn.append({**knobs, "n_layers_1": 1 + knobs["n_layers_1"] % 3})
            assert Study.load(study.directory).run(1, timing=QUICK) == 1
            return drawn[0]
        return knobs

    monkeypatch.setattr(Drawing, "draw", stalling)
    assert study.run(1, timing=replace(QUICK, beat=1e6)) == 0
    assert attempts(study) == [2]
    (trial,) = study.trials()
    assert trial.params != drawn[0]
    assert trial.user_attrs["hash"] == network_hash(study.config.space.member(trial.params).spec)


def test_who_takes_over_goes_on_with_knobs_that_came_meanwhile(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was thought dead records its knobs while its successor draws others."""
    draw, notes = Drawing.draw, []
    begin(study, ELSEWHERE)
    study._study._storage.set_trial_state_values(study.trials()[0]._trial_id, TrialState.WAITING)
    other = make_config().space.draw(random.Random(5))
    theirs = {name: label(value) for name, value in other.knobs.items()}

    def late(drawing: Drawing, *args: Any) -> dict[str, Any]:
        knobs = draw(drawing, *args)
        notes.append(knobs)
        writes = Writes({"fixed_params": theirs}, {}, {}, [(TrialState.RUNNING, None)])
        write(patient(Study.load(study.directory)._study)._inner, drawing.trial_id, writes)
        return knobs

    monkeypatch.setattr(Drawing, "draw", late)
    assert study.run(1, timing=QUICK) == 1
    assert len(notes) == 1
    assert study.trials()[0].params == theirs != notes[0]
    assert attempts(study) == [2]


def outcomes(study: Study) -> list[Any]:
    return [
        (trial.number, trial.params, trial.values, trial.user_attrs.get("hash")) for trial in study.trials()
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about in 10 s")


def test_enqueued_trials_are_claimed_as_they_are(study: Study) -> None:
    drawn = make_config().space.knobs()
    study._study.enqueue_trial({"count": 1, "topology": "dense"})
    assert study.run(2) == 2
    first, second = study.trials()
    assert first.params["topology"] == "dense"
    assert set(first.params) == set(second.params) == set(drawn)
    assert attempts(study) == [1, 1]
