"""Where a study lies: a directory with its journal, a copy of its configuration for people, and a lock.

The journal is an Optuna storage and the one record. It appears whole or not at all, is written by one
process at a time, and is mended after a kill.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import StudyError
from connsearch.files import write_whole
from connsearch.search.config import StudyConfig

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "connsearch"
JOURNAL, COPY, LOCK = "journal.log", "study.toml", "lock"


def exists(path: Path) -> bool:
    """Return whether a directory holds a study."""
    return os.path.isfile(path / JOURNAL)


def create(path: Path, config: StudyConfig) -> None:
    """Make a study; one that another process has made meanwhile stays.

    Raises:
        StudyError: if the directory cannot be written or holds a file of the user's own in the way, or
            another process is at it.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not exists(path):
                _create_journal(path, config)
                write_whole(path / COPY, config.to_toml().encode())
    except OSError as error:
        raise StudyError(_unwritable(path, error.strerror)) from None


def _create_journal(path: Path, config: StudyConfig) -> None:
    import optuna

    new = path / f"{JOURNAL}.new"
    for leftover in (new, _journal_lock(new)):
        leftover.unlink(missing_ok=True)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=_storage(new), study_name=STUDY_NAME, directions=list(config.objectives.values())
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.set_user_attr("config", json.dumps(config.to_full_dict()))
    os.replace(new, path / JOURNAL)


def load(path: Path) -> tuple[StudyConfig, optuna.Study]:
    """Return a study's configuration and its record.

    Raises:
        StudyError: if there is none, or its journal is damaged.
        SpecError: if its configuration needs what is not registered here.
    """
    import optuna

    if not exists(path):
        raise StudyError(f"{path}: no study there: run one with `connsearch run STUDY.toml --dir {path}`")
    try:
        study = optuna.load_study(study_name=STUDY_NAME, storage=_storage(path / JOURNAL))
        config = json.loads(study.user_attrs["config"])
    except Exception as error:  # what is raised depends on what the file holds
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StudyError(
            f"{path / JOURNAL}: no study's journal, or damaged ({reason}): "
            "restore it, or choose another --dir"
        ) from None
    return StudyConfig.from_dict(config, source=str(path)), study


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a study, until the context is left.

    Raises:
        StudyError: if another process is at it, or the directory cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyError(
            f"{path}: another process is running this study: wait for it, or choose another --dir"
        ) from None
    except OSError as error:
        raise StudyError(_unwritable(path, error.strerror)) from None
    try:
        yield
    finally:
        lock.release()


def mend(path: Path, n_knobs: int) -> None:
    """Take a journal back to where it can go on: remove what a killed process left half done.

    That is Optuna's own lock, a last line that was cut off, and a last trial whose knobs were not all
    drawn: it is drawn anew, from the state that the sampler saw then. Only whoever holds the study's
    lock may do so.

    Args:
        path: The study's directory.
        n_knobs: How many knobs a trial has.
    """
    from optuna.storages.journal._storage import JournalOperation

    _journal_lock(path / JOURNAL).unlink(missing_ok=True)
    with open(path / JOURNAL, "rb+") as journal:
        end, last_trial, drawn = 0, 0, n_knobs
        for line in journal:
            if not line.endswith(b"\n"):
                break
            operation = json.loads(line)["op_code"]
            if operation == JournalOperation.CREATE_TRIAL:
                last_trial, drawn = end, 0
            drawn += operation == JournalOperation.SET_TRIAL_PARAM
            end += len(line)
        journal.truncate(end if drawn >= n_knobs else last_trial)


def check_free(path: Path) -> None:
    """Make sure that a study's copy of its configuration would overwrite no other file.

    Raises:
        StudyError: if it would.
    """
    if os.path.lexists(path / COPY) and not exists(path):  # a study's journal is there before its copy
        raise StudyError(f"{path}: holds a {COPY} that is no study's copy: choose another --dir")


def check_writable(path: Path) -> None:
    """Make sure that a directory can be made and written, without making it.

    Raises:
        StudyError: if not.
    """
    nearest = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.exists(parent))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise StudyError(_unwritable(path, f"{nearest} does not allow it"))


def _unwritable(path: Path, reason: str | None) -> str:
    return f"{path}: cannot be written: {reason or 'unknown reason'}; choose another directory"


def _journal_lock(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


def _storage(journal: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(journal)))
