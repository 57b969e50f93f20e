"""Real training, really killed: what is resumed reaches what was never killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401  # so that tests/conftest.py gives it one thread, as the killed process has
from made_up import make_config

from connsearch.search.study import Study

KILLED = """
import os, signal, sys
import torch
from connsearch.search.study import Progress, Study

torch.set_num_threads(1)

def die(number, *_):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Study.load(sys.argv[1]).run(4, device="cpu", progress=Progress(**{sys.argv[2]: die}))
"""


def reached(study: Study) -> list[tuple[int, dict[str, Any], list[float], list[dict[str, Any]]]]:
    def curve(trial: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in trial.user_attrs["curve"]]

    return [(trial.number, trial.params, trial.values, curve(trial)) for trial in study.trials()]


@pytest.mark.parametrize("hook", [pytest.param("trial_started", marks=pytest.mark.slow), "epoch_ended"])
def test_killed_in_mid_trial_and_resumed_equals_never_killed(tmp_path: Path, hook: str) -> None:
    config = make_config(sampler={"name": "tpe", "n_startup_trials": 2})
    unbroken = Study.from_config(tmp_path / "unbroken", config)
    unbroken.run(4, device="cpu")

    killed = tmp_path / "killed"
    Study.from_config(killed, config)
    process = subprocess.run([sys.executable, "-c", KILLED, str(killed), hook], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    states = [trial.state.name for trial in Study.load(killed).trials()]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING"]

    resumed = Study.from_config(killed, config)
    assert resumed.run(4, device="cpu") == 2
    assert reached(resumed) == reached(unbroken)
    assert len({error for _, _, (error, _), _ in reached(unbroken)}) > 1
    assert resumed.pareto_front().to_dict()["hypervolume"] == unbroken.pareto_front().to_dict()["hypervolume"]
