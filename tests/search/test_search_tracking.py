"""Trials for TensorBoard and MLflow, read back with their own readers."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from made_up import diverged_outcome, made_up_outcome, make_config

from connsearch.errors import ConnsearchError, StudyError
from connsearch.search.pruning.rules import PRUNED, Pruned
from connsearch.search.study import Study
from connsearch.search.tracking import tensorboard as to_tensorboard
from connsearch.search.tracking.log import LoggedTrial, alone, identity_of, logged_trials
from connsearch.search.tracking.mlflow import STATE, STUDY, TRIAL, log_mlflow
from connsearch.search.tracking.tensorboard import MARK, log_tensorboard
from connsearch.spec.network import NetworkSpec

pytestmark = pytest.mark.slow  # TensorBoard and MLflow are imported

N = 6


def mixed_outcome(spec: NetworkSpec, train_config: object, **more: Any) -> Any:
    """Fail, diverge or end well, by the network."""
    if spec.blocks[0].topology.name == "sparse":
        raise RuntimeError("no such luck")
    if spec.blocks[0].topology.name == "dense":
        return diverged_outcome(spec, train_config)
    return made_up_outcome(spec, train_config, **more)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", mixed_outcome)
    made = Study.from_config(tmp_path / "mine", make_config(n_trials=N, seed=1))
    made.run(device="cpu")
    assert {trial.user_attrs.get("reason") for trial in made.trials()} == {
        None,
        "diverged",
        "RuntimeError: no such luck",
    }
    return made


def test_what_is_logged_of_a_trial(study: Study) -> None:
    logged = logged_trials(study.trials())
    assert [each.number for each in logged] == list(range(N))
    for each, trial in zip(logged, study.trials(), strict=True):
        assert trial.params.items() <= each.params.items()
        assert each.tags["hash"] == trial.user_attrs["hash"]
        assert each.final["macs"] == trial.user_attrs["cost"]["macs"]
        assert each.tags.get("reason") == trial.user_attrs.get("reason")
        assert each.failed == ("reason" in trial.user_attrs)
        assert ("val_error" in each.final) == (each.state != "failed")
        assert [epoch.number for epoch in each.curve] == ([] if each.failed else [1])


def test_a_pruned_trial_has_not_failed(study: Study) -> None:
    trial = copy.deepcopy(next(t for t in study.trials() if "reason" not in t.user_attrs))
    trial.user_attrs[PRUNED] = Pruned(1, 0.5, 0.25, 3, 1).to_dict()
    (logged,) = logged_trials([trial])
    assert (logged.state, logged.failed) == ("pruned", False)


def test_a_user_without_a_name_can_log(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run as a number that no line of its /etc/passwd has."""

    def nameless(number: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nameless)
    entered = []
    with alone(study):
        entered.append(study)
    assert entered == [study]


# ---- TensorBoard -----------------------------------------------------------------------------------------


def read_run(directory: Path) -> Any:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(directory))
    found.Reload()
    return found


def hparams_of(run: Any) -> tuple[dict[str, Any], int]:
    """Return the hyperparameters and the status of a run, as TensorBoard's plugin reads them."""
    from tensorboard.plugins.hparams import metadata

    data = run.summary_metadata
    start = metadata.parse_session_start_info_plugin_data(
        data[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    end = metadata.parse_session_end_info_plugin_data(data[metadata.SESSION_END_INFO_TAG].plugin_data.content)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, end.status


def test_runs_read_back(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    assert log_tensorboard(study, tmp_path / "deep/tb") == N
    runs = sorted(path.name for path in (tmp_path / "deep/tb").glob("trial-*"))
    assert runs == [f"trial-{number:05d}" for number in range(N)]
    for each in logged_trials(study.trials()):
        check_run(each, read_run(tmp_path / "deep/tb" / each.name))


def check_run(each: LoggedTrial, run: Any) -> None:
    curves = {name: [(e.step, e.value) for e in run.Scalars(name)] for name in run.Tags()["scalars"]}
    final = {f"final/{name}": [(len(each.curve), value)] for name, value in each.final.items()}
    by_epoch: dict[str, list[tuple[int, float]]] = {}
    for epoch in each.curve:
        for name, value in epoch.values.items():
            by_epoch.setdefault(name, []).append((epoch.number, value))
    assert curves.keys() == final.keys() | by_epoch.keys()
    for name, points in {**final, **by_epoch}.items():
        assert curves[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    hparams, status = hparams_of(run)
    assert status == (2 if each.failed else 1)  # success, failure
    assert {name: hparams[name] for name in each.params} == each.params
    assert hparams["state"] == each.state
    assert hparams.get("reason") == each.tags.get("reason")


def test_called_again_it_adds_what_is_new(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    out = tmp_path / "tb"
    assert log_tensorboard(study, out) == N
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*tfevents*")}
    assert log_tensorboard(study, out) == 0
    study.run(N + 2, device="cpu")
    assert log_tensorboard(study, out) == 2
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert len(list(out.rglob("*tfevents*"))) == N + 2


def test_a_call_that_is_killed_leaves_no_half_of_a_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    replace, calls = os.replace, []

    def killed_at_the_third(source: Path, target: Path) -> None:
        if Path(source).name != ".new":
            return replace(source, target)
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(to_tensorboard.os, "replace", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            log_tensorboard(study, tmp_path / "tb")
    assert len(list((tmp_path / "tb").glob("trial-*"))) == 2
    assert log_tensorboard(study, tmp_path / "tb") == N - 2
    assert not (tmp_path / "tb/.new").exists()


def test_a_directory_with_something_else(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    log_tensorboard(study, tmp_path / "tb")
    other = Study.from_config(tmp_path / "other", make_config(seed=9))
    assert identity_of(other) != identity_of(study)
    with pytest.raises(StudyError, match=r"tb: has the runs of another study: choose another directory"):
        log_tensorboard(other, tmp_path / "tb")
    (tmp_path / "tb" / MARK).write_text("[]")
    with pytest.raises(StudyError, match="does not say whose runs these are"):
        log_tensorboard(study, tmp_path / "tb")
    (tmp_path / "tb" / MARK).unlink()
    with pytest.raises(StudyError, match="has runs of something else"):
        log_tensorboard(study, tmp_path / "tb")
    (tmp_path / "file").touch()
    with pytest.raises(ConnsearchError, match="file: cannot be written: File exists"):
        log_tensorboard(study, tmp_path / "file")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tensorboard", r"^TensorBoard's files need tensorboard: pip install 'connsearch\[tensorboard\]'$"),
        ("mlflow", r"^MLflow's runs need mlflow: pip install 'connsearch\[mlflow\]'$"),
    ],
)
def test_a_tool_that_is_not_installed(
    module: str, message: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    log = {"tensorboard": log_tensorboard, "mlflow": log_mlflow}[module]
    with pytest.raises(ConnsearchError, match=message):
        log(study, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# ---- MLflow ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store in a file."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow", reason="needs the extra [mlflow], which is not installed")
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs_of(store: str, experiment: str) -> dict[int, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {int(run.data.tags[TRIAL]): run for run in client.search_runs([found.experiment_id])}


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_runs_read_back(study: Study, store: str) -> None:
    from mlflow import MlflowClient

    assert log_mlflow(study, store) == N
    runs, client = runs_of(store, "mine"), MlflowClient(tracking_uri=store)
    assert sorted(runs) == list(range(N))
    for each in logged_trials(study.trials()):
        run = runs[each.number]
        assert run.info.run_name == each.name
        assert run.info.status == ("FAILED" if each.failed else "FINISHED")
        assert run.info.start_time == round(1000 * each.started.timestamp())
        assert run.data.params == {name: str(value) for name, value in each.params.items()}
        assert run.data.tags[STATE] == each.state
        assert run.data.tags.get("connsearch.reason") == each.tags.get("reason")
        final = {f"final/{name}": value for name, value in each.final.items()}
        assert final.items() <= run.data.metrics.items()
        for epoch in each.curve:
            history = client.get_metric_history(run.info.run_id, "val_error")
            assert [(m.step, m.value) for m in history] == [(epoch.number, epoch.values["val_error"])]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_called_again_adds_what_is_new(study: Study, store: str) -> None:
    from mlflow import MlflowClient

    assert log_mlflow(study, store, "other name") == N
    assert log_mlflow(study, store, "other name") == 0
    study.run(N + 1, device="cpu")
    client = MlflowClient(tracking_uri=store)
    key = client.get_experiment_by_name("other name").experiment_id
    half = client.create_run(key, tags={STUDY: identity_of(study), TRIAL: str(N)})  # a call that was killed
    assert log_mlflow(study, store, "other name") == 1
    runs = runs_of(store, "other name")
    assert sorted(runs) == list(range(N + 1))
    assert runs[N].info.run_id != half.info.run_id


@pytest.mark.filterwarnings("ignore")
def test_a_store_that_cannot_be_used(study: Study, store: str) -> None:
    with pytest.raises(ConnsearchError, match=r"^nonsense://x: MLflow cannot use it: "):
        log_mlflow(study, "nonsense://x")


def test_the_mark_is_plain(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    log_tensorboard(study, tmp_path / "tb")
    assert json.loads((tmp_path / "tb" / MARK).read_text()) == {"study": identity_of(study)}
