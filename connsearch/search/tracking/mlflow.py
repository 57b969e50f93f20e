"""A study for MLflow: an experiment, a run for each trial with its curve, its knobs and what it reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from connsearch.errors import ConnsearchError
from connsearch.search.tracking.log import LoggedTrial, alone, identity_of, logged_trials
from connsearch.text import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from connsearch.search.study import Study

STUDY, TRIAL, STATE = "connsearch.study", "connsearch.trial", "connsearch.state"
"""Tags of a run."""
_AT_ONCE = 1000  # metrics in a call
_PARAMS = 100  # in a call
_LONGEST = 5000  # characters of a tag
_PAGE = 1000  # runs in an answer


def log_mlflow(study: Study, uri: str, experiment: str | None = None) -> int:
    """Write a run for each finished trial that has none yet; return how many were written.

    A run that a killed call left unfinished is deleted and written anew.

    Args:
        study: Which one; it may be running.
        uri: Of the tracking server or store: `http://HOST:PORT`, `sqlite:///FILE`.
        experiment: Its name, made if it does not exist; by default the study's directory's.

    Raises:
        ConnsearchError: if mlflow is not installed, or the store cannot be used.
    """
    require_mlflow()
    from mlflow import MlflowClient

    name = experiment or study.directory.absolute().resolve().name
    with alone(study), _store(uri):
        client, identity = MlflowClient(tracking_uri=uri), identity_of(study)
        key = _experiment(client, name)
        there = _finished(client, key, identity)
        missing = [each for each in logged_trials(study.trials()) if each.number not in there]
        for each in missing:
            _write_run(client, key, identity, each)
    return len(missing)


def require_mlflow() -> None:
    """Raise `ConnsearchError` if mlflow is not installed."""
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise ConnsearchError("MLflow's runs need mlflow: pip install 'connsearch[mlflow]'") from None


@contextmanager
def _store(uri: str) -> Iterator[None]:
    """Turn what a store raises into an error of ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ImportError) as error:
        raise ConnsearchError(f"{uri}: MLflow cannot use it: {first_line(error)}") from None


def _experiment(client: MlflowClient, name: str) -> str:
    """Return the key of an experiment, made if need be."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise ConnsearchError(f"MLflow's experiment {name!r} was deleted: restore it, or choose another name")
    return str(found.experiment_id)


def _finished(client: MlflowClient, experiment: str, identity: str) -> set[int]:
    """Return the numbers of the trials that have a whole run; delete what is half of one."""
    whole: set[int] = set()
    for run in list(_runs(client, experiment, identity)):
        if run.info.status == "RUNNING":
            client.delete_run(run.info.run_id)
        else:
            whole.add(int(run.data.tags[TRIAL]))
    return whole


def _runs(client: MlflowClient, experiment: str, identity: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{STUDY}` = '{identity}'", max_results=_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _write_run(client: MlflowClient, experiment: str, identity: str, trial: LoggedTrial) -> None:
    from mlflow.entities import Param

    tags = {STUDY: identity, TRIAL: str(trial.number), STATE: trial.state}
    tags |= {f"connsearch.{name}": value[:_LONGEST] for name, value in trial.tags.items()}
    run = client.create_run(experiment, _milliseconds(trial.started), tags, run_name=trial.name)
    key = run.info.run_id
    params = (Param(name, str(value)) for name, value in trial.params.items())
    while some := list(islice(params, _PARAMS)):
        client.log_batch(key, params=some)
    metrics = _metrics(trial)
    while batch := list(islice(metrics, _AT_ONCE)):
        client.log_batch(key, metrics=batch)
    client.set_terminated(key, "FAILED" if trial.failed else "FINISHED", _milliseconds(trial.ended))


def _metrics(trial: LoggedTrial) -> Iterator[Any]:
    from mlflow.entities import Metric

    for epoch in trial.curve:
        at = _milliseconds(epoch.ended)
        yield from (Metric(name, value, at, epoch.number) for name, value in epoch.values.items())
    end = _milliseconds(trial.ended)
    yield from (Metric(f"final/{name}", value, end, len(trial.curve)) for name, value in trial.final.items())


def _milliseconds(at: datetime) -> int:
    return round(1000 * at.timestamp())
