"""Jobs of a cluster, run as processes of this host."""

from __future__ import annotations

import pickle
import signal
import sys
from pathlib import Path

import pytest
from made_up import made_up_outcome, make_config

from connsearch.errors import StudyError
from connsearch.search.objective import Outcome
from connsearch.search.session import run_study
from connsearch.search.slurm import WorkerJob, parse_options, submit
from connsearch.search.study import Study


@pytest.mark.large
def test_jobs_share_a_study(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    url = f"sqlite:///{tmp_path}/studies.db"
    job = WorkerJob(tmp_path / "study", make_config(), trials=6, storage=url, device="cpu")
    jobs = submit(job, 2, {"timeout_min": 5}, cluster="local")
    assert len({submitted.job_id for submitted in jobs}) == 2
    closing = [submitted.result() for submitted in jobs]
    assert all(line.startswith(f"{tmp_path}/study: 6 complete, 0 failed, 0 pruned; best") for line in closing)
    assert [trial.state.name for trial in Study.load(tmp_path / "study").trials()] == ["COMPLETE"] * 6


def test_a_job_that_is_preempted_is_queued_again(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    job = WorkerJob(tmp_path, make_config(), trials=3)
    again = job.checkpoint()
    assert again.function == job
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_job_keeps_freed_memory_and_leaves_signals_to_submitit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    kept: list[bool] = []

    def trained(*args: object, **more: object) -> Outcome:
        seen.append(signal.getsignal(signal.SIGTERM))
        return made_up_outcome(*args, **more)

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", trained)
    monkeypatch.setattr("connsearch.search.slurm.keep_freed", lambda: kept.append(True))
    mine = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        WorkerJob(tmp_path / "job", make_config(), trials=1, device="cpu")()
        run_study(tmp_path / "run", make_config(), 1, "cpu")
    finally:
        signal.signal(signal.SIGTERM, mine)
    assert seen[0] == signal.SIG_IGN
    assert callable(seen[1])
    assert kept == [True]  # the job's, not that of a study run by a program


def test_what_submitit_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    job = WorkerJob(tmp_path / "study", make_config())
    with pytest.raises(StudyError, match=r"^submitit: .*colour"):
        submit(job, 1, {"colour": "red"}, cluster="local")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(StudyError, match=r"^jobs need submitit: pip install 'connsearch\[slurm\]'$"):
        submit(job, 1, {})


def test_options_are_toml_or_text() -> None:
    assert parse_options(["a=1", "b=x y", "c=true"]) == {"a": 1, "b": "x y", "c": True}
    with pytest.raises(StudyError, match=r"^--job takes key=value, got 'a'$"):
        parse_options(["a"])
