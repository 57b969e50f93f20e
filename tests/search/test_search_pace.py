"""How fast a study goes: recent rate, time left with the workers that are alive."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from made_up import make_config
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from connsearch.search.reading.pace import RECENT, Pace, pace_of, union
from connsearch.search.reading.records import EXPIRY, status_of
from connsearch.search.study import Study

NOON = datetime(2026, 1, 1, 12)
KNOB = CategoricalDistribution(["only"])


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def trial(start: float, end: float | None = None, **attrs: object) -> FrozenTrial:
    made = create_trial(
        state=TrialState.RUNNING if end is None else TrialState.COMPLETE,
        values=None if end is None else [0.5, 1e5],
        user_attrs=attrs,
        params={"knob": "only"},
        distributions={"knob": KNOB},
    )
    made.datetime_start, made.datetime_complete = at(start), None if end is None else at(end)
    return made


def one_after_the_other(n: int, seconds: float, pause: float = 0.0, begin: float = 0.0) -> list[FrozenTrial]:
    step = seconds + pause
    return [trial(begin + i * step, begin + i * step + seconds) for i in range(n)]


def test_one_worker_needs_as_long_as_its_trials_and_pauses() -> None:
    running = trial(100)
    pace = pace_of([*one_after_the_other(10, 9, pause=1), running], 5, [running], at(104))
    assert pace.trials_per_hour == pytest.approx(3600 * 10 / 99)
    assert pace.worker_seconds == pytest.approx(9.9)
    assert pace.seconds_left == pytest.approx(5 * 9.9 - 4)
    assert pace.seconds_since_last == pytest.approx(5)
    assert pace.text(5, 1) == "364 trials an hour lately, 10 s a trial; about 46 s left with 1 worker"


@pytest.mark.parametrize(("n_left", "rounds"), [(2, 1), (3, 2), (4, 2), (7, 4)])
def test_two_workers_take_what_is_left_in_turns(n_left: int, rounds: int) -> None:
    done = [*one_after_the_other(5, 10), *one_after_the_other(5, 10)]
    alive = [trial(50), trial(50)]
    pace = pace_of([*done, *alive], n_left, alive, at(50))
    assert pace.trials_per_hour == pytest.approx(720)
    assert pace.worker_seconds == pytest.approx(10)
    assert pace.seconds_left == pytest.approx(10 * rounds)


def test_a_night_in_which_nothing_ran_does_not_count() -> None:
    trials = [*one_after_the_other(5, 10), *one_after_the_other(5, 10, begin=40_000)]
    assert pace_of(trials, 0, [], at(40_060)).trials_per_hour == pytest.approx(360)


def test_the_wait_of_a_trial_that_was_taken_over_does_not_count() -> None:
    taken_over = trial(50, 40_000, seconds=12.0, lease={"attempt": 2})
    pace = pace_of([*one_after_the_other(5, 10), taken_over], 1, [], at(40_000))
    assert pace.trials_per_hour == pytest.approx(3600 * 6 / 62)


def test_trials_that_were_taken_over_and_failed_say_nothing_of_the_pace() -> None:
    """Nobody knows how long they were at work; that they ended some seconds apart is not work."""
    failing = [trial(start, start + 100, lease={"attempt": 2}) for start in (0, 3)]
    pace = pace_of(failing, 2, [], at(110))
    assert pace == Pace(seconds_since_last=7.0)
    assert pace.text(2, 0) == ""
    assert pace_of(failing, 0, [], at(110)).seconds_left == 0.0


def test_only_the_recent_past_counts() -> None:
    trials = [*one_after_the_other(30, 100), *one_after_the_other(RECENT, 10, begin=3000)]
    assert pace_of(trials, 1, [], at(3200)).worker_seconds == pytest.approx(10)


def test_nobody_alive_is_no_time_left_but_work() -> None:
    pace = pace_of(one_after_the_other(3, 60), 10, [], at(180))
    assert pace.seconds_left is None
    assert pace.text(10, 0) == (
        "60 trials an hour lately, 1 min 0 s a trial; no worker: about 10 min 0 s left for one"
    )


def test_nothing_is_known_before_the_first_trial_ends() -> None:
    running = trial(0)
    assert pace_of([running], 5, [running], at(10)) == Pace()
    assert Pace().text(5, 1) == ""


@pytest.mark.parametrize(
    ("spans", "bridge", "seconds"),
    [([(0, 4)], 0, 4), ([(0, 4), (2, 3)], 0, 4), ([(0, 4), (5, 6)], 0, 5), ([(5, 6), (0, 4)], 1, 6)],
)
def test_the_union_of_spans(spans: Sequence[tuple[int, int]], bridge: int, seconds: int) -> None:
    found = union([(at(a), at(b)) for a, b in spans], timedelta(seconds=bridge))
    assert found == pytest.approx(seconds)


# ---- status ----------------------------------------------------------------------------------------------


def lease(host: str, pid: int, silent: float = 0.0) -> dict[str, object]:
    return {"host": host, "pid": pid, "epoch": 1, "time": time.time() - silent, "attempt": 1}


def test_workers_are_counted_by_host() -> None:
    trials = [
        trial(0, lease=lease("a", 1)),
        trial(0, lease=lease("a", 2, silent=EXPIRY + 5)),
        trial(0, lease=lease("b", 1)),
        trial(0, lease=lease("b", 3) | {"released": True}),
    ]
    for number, each in enumerate(trials):
        each.number = number
    status = status_of(trials, 10, {"val_error": "minimize", "macs": "minimize"})
    assert status.workers == (
        {"host": "a", "alive": 1, "silent": 1},
        {"host": "b", "alive": 1, "silent": 0},
    )
    assert "workers  1 alive and 1 silent on a, 1 alive on b" in str(status).splitlines()


@pytest.mark.parametrize(
    ("sense", "best"), [("minimize", {"trial": 1, "macs": 4.0}), ("maximize", {"trial": 0, "macs": 9.0})]
)
def test_of_equal_errors_the_best_is_the_next_objectives(sense: str, best: dict[str, float]) -> None:
    trials = [create_trial(values=values) for values in ([0.25, 9.0], [0.25, 4.0], [0.25, 4.0], [0.5, 1.0])]
    for number, each in enumerate(trials):
        each.number = number
    found = status_of(trials, 4, {"val_error": "minimize", "macs": sense})
    assert found.best == {"val_error": 0.25, **best}


@pytest.mark.usefixtures("made_up")
def test_status_and_front_agree_on_the_hypervolume(tmp_path: object) -> None:
    study = Study.from_config(f"{tmp_path}/a", make_config(n_trials=8))
    assert study.status().hypervolume == 0.0
    study.run(device="cpu")
    front, status = study.pareto_front(), study.status()
    assert status.hypervolume == pytest.approx(front.hypervolume)
    assert status.hypervolume > 0
    assert status.reference == front.reference
    plain = json.loads(json.dumps(status.to_dict()))
    assert plain["hypervolume"] == status.hypervolume
    assert plain["trials_per_hour"] == status.pace.trials_per_hour
    assert plain["seconds_left"] == 0.0


@pytest.mark.usefixtures("made_up")
def test_no_hypervolume_without_a_fixed_reference(tmp_path: object) -> None:
    study = Study.from_config(f"{tmp_path}/a", make_config(n_trials=2, objectives={"params": "maximize"}))
    study.run(device="cpu")
    assert study.status().hypervolume is None
    assert "volume" not in str(study.status())
