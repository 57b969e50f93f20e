"""Real training, really killed: what is resumed reaches what was never killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import dying
import pytest
import torch  # noqa: F401  # so that tests/conftest.py gives it one thread, as the killed process has
from made_up import make_config

import copies
from connsearch.search.storages import claims_of
from connsearch.search.storages.claims import ClaimLog
from connsearch.search.study import Study


def kill_at(path: Path, hook: str, trial: int, epoch: int = 0) -> None:
    """Run a study in a process that kills itself when a hook tells of a trial, or of an epoch of it."""
    process = copies.start(dying.run_and_die, str(path), hook, trial, epoch)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def reached(study: Study) -> list[tuple[int, dict[str, Any], list[float], list[dict[str, Any]]]]:
    def curve(trial: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in trial.user_attrs["curve"]]

    return [(trial.number, trial.params, trial.values, curve(trial)) for trial in study.trials()]


@pytest.mark.parametrize("hook", ["trial_started", "epoch_ended"])
def test_killed_in_mid_trial_and_resumed_equals_never_killed(tmp_path: Path, hook: str) -> None:
    config = make_config(sampler={"name": "tpe", "n_startup_trials": 2})
    unbroken = Study.from_config(tmp_path / "unbroken", config)
    unbroken.run(4, device="cpu")

    killed = tmp_path / "killed"
    Study.from_config(killed, config)
    kill_at(killed, hook, trial=2, epoch=1)
    states = [trial.state.name for trial in Study.load(killed).trials()]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING"]

    resumed = Study.from_config(killed, config)
    assert resumed.run(4, device="cpu") == 2
    assert reached(resumed) == reached(unbroken)
    assert len({error for _, _, (error, _), _ in reached(unbroken)}) > 1
    assert resumed.pareto_front().to_dict()["hypervolume"] == unbroken.pareto_front().to_dict()["hypervolume"]


@pytest.mark.slow
def test_killed_three_times_in_mid_trial_equals_never_killed(tmp_path: Path) -> None:
    train = {**make_config().train.to_full_dict(), "epochs": 4}
    config = make_config(sampler={"name": "tpe", "n_startup_trials": 2}, train=train)
    unbroken = Study.from_config(tmp_path / "unbroken", config)
    unbroken.run(4, device="cpu")

    killed = tmp_path / "killed"
    study = Study.from_config(killed, config)
    for trial, epoch in ((1, 2), (1, 3), (3, 1)):
        kill_at(killed, "epoch_ended", trial, epoch)
        assert [file.name for file in (killed / "checkpoints").iterdir()] == [f"trial-{trial}"]
        lease = Study.load(killed).trials()[trial].user_attrs["lease"]
        assert lease["epoch"] == epoch
        assert "released" not in lease
        if epoch == 2:  # as on another host: it starts over, and gets there
            (killed / "checkpoints" / f"trial-{trial}").unlink()
    assert Study.load(killed).run(4, device="cpu") == 1
    assert reached(study) == reached(unbroken)
    holders = ClaimLog(claims_of(study._study)).holders()
    assert [(holders[n].attempt, holders[n].epoch, holders[n].deaths) for n in range(4)] == [
        (1, 0, 0), (3, 3, 1), (1, 0, 0), (2, 1, 1),
    ]  # fmt: skip
    assert not (killed / "checkpoints").exists()


@pytest.mark.large
def test_a_trial_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path, make_config())
    for _ in range(3):
        kill_at(tmp_path, "trial_started", trial=1)
    assert study.run(4, device="cpu") == 3
    assert study.trials()[1].user_attrs["reason"] == "worker died 3 times"
    assert study.status().states == {"complete": 3, "failed": 1, "pruned": 0, "unfinished": 0}
