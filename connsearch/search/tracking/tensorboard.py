"""A study for TensorBoard: a run for each trial with its curve, its knobs and what it reached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import ConnsearchError, StudyError
from connsearch.files import write_whole
from connsearch.search.tracking.log import LoggedTrial, Scalar, alone, identity_of, logged_trials

if TYPE_CHECKING:
    from connsearch.search.study import Study

MARK = "connsearch.json"
"""The file that says whose runs a directory holds."""
_NEW = ".new"


def log_tensorboard(study: Study, directory: str | os.PathLike[str]) -> int:
    """Write a run for each finished trial that has none yet; return how many were written.

    A run appears whole: a call that is killed leaves no half of one, and the next call goes on.

    Args:
        study: Which one; it may be running.
        directory: What `tensorboard --logdir` is to be given; made if it does not exist.

    Raises:
        ConnsearchError: if tensorboard is not installed, or the directory cannot be written.
        StudyError: if the directory holds the runs of another study.
    """
    require_tensorboard()
    target = Path(directory)
    with alone(study):
        try:
            target.mkdir(parents=True, exist_ok=True)
            _claim(target, identity_of(study))
            shutil.rmtree(target / _NEW, ignore_errors=True)  # of a call that was killed
            missing = [each for each in logged_trials(study.trials()) if not (target / each.name).exists()]
            for each in missing:
                _write_run(target / _NEW, _events(each))
                os.replace(target / _NEW, target / each.name)
        except OSError as error:
            raise ConnsearchError(f"{target}: cannot be written: {error.strerror or error}") from None
    return len(missing)


def require_tensorboard() -> None:
    """Raise `ConnsearchError` if tensorboard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise ConnsearchError(
            "TensorBoard's files need tensorboard: pip install 'connsearch[tensorboard]'"
        ) from None


def _claim(target: Path, identity: str) -> None:
    """Make sure that a directory has this study's runs alone."""
    mark = target / MARK
    if not mark.exists():
        if any(target.glob("trial-*")):
            raise StudyError(f"{target}: has runs of something else: choose another directory")
        write_whole(mark, json.dumps({"study": identity}).encode())
    try:
        there = json.loads(mark.read_text())["study"]
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{mark}: does not say whose runs these are: choose another directory") from None
    if there != identity:
        raise StudyError(f"{target}: has the runs of another study: choose another directory")


def _write_run(directory: Path, events: Iterator[Any]) -> None:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(directory))
    try:
        for event in events:
            writer.add_event(event)
    finally:
        writer.close()


# ---- events ----------------------------------------------------------------------------------------------


def _events(trial: LoggedTrial) -> Iterator[Any]:
    """Yield all events of a trial: its beginning, its epochs, what it reached, its end."""
    from tensorboard.plugins.hparams import api_pb2, metadata

    status = api_pb2.STATUS_FAILURE if trial.failed else api_pb2.STATUS_SUCCESS
    start, end = trial.started.timestamp(), trial.ended.timestamp()
    yield _hparams_event(metadata.SESSION_START_INFO_TAG, start, session_start_info=_start(trial, start))
    for epoch in trial.curve:
        yield _scalars_event(epoch.values, epoch.number, epoch.ended.timestamp())
    last = len(trial.curve)
    yield _scalars_event({f"final/{name}": value for name, value in trial.final.items()}, last, end)
    info = {"status": status, "end_time_secs": end}
    yield _hparams_event(metadata.SESSION_END_INFO_TAG, end, session_end_info=info)


def _start(trial: LoggedTrial, at: float) -> Any:
    from tensorboard.plugins.hparams import plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(group_name=trial.name, start_time_secs=at)
    for name, value in {**trial.params, **_state(trial)}.items():
        field = "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[name], "bool_value" if isinstance(value, bool) else field, value)
    return info


def _state(trial: LoggedTrial) -> Mapping[str, Scalar]:
    return {"state": trial.state, **({"reason": trial.tags["reason"]} if "reason" in trial.tags else {})}


def _hparams_event(tag: str, wall_time: float, **data: Any) -> Any:
    """Return an event of the plugin for hyperparameters, whose data lie in a summary's metadata."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
    value = summary_pb2.Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)
    return event_pb2.Event(wall_time=wall_time, step=0, summary=summary_pb2.Summary(value=[value]))


def _scalars_event(values: Mapping[str, float], step: int, wall_time: float) -> Any:
    from tensorboard.compat.proto import event_pb2, summary_pb2

    found: Sequence[Any] = [
        summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()
    ]
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=found))
