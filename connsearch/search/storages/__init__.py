"""Where a study lies: a directory with its journal, or beside a database that holds the record.

The directory has a copy of the configuration for people, the checkpoints of running trials, and for a
database its address. A journal appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import StudyError
from connsearch.files import write_whole
from connsearch.search.config import StudyConfig
from connsearch.search.transfer.studies import for_people
from connsearch.text import first_line

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL

STUDY_NAME = "connsearch"
CLAIMS = "/claims"
"""What the name of a study's log of claims adds to its own."""
JOURNAL, COPY, LOCK, ADDRESS = "journal.log", "study.toml", "lock", "storage.toml"
CHECKPOINTS = "checkpoints"
_CONFIG_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """A study's directory and storage. Make one with `find`.

    Attributes:
        directory: The directory.
        url: The database; None for the journal in the directory.
        name: The study's name in its storage.
    """

    directory: Path
    url: URL | None
    name: str

    @property
    def label(self) -> str:
        """How messages name the record."""
        from connsearch.search.storages.databases import label

        return str(self.directory / JOURNAL) if self.url is None else label(self.url)

    def connect(self, patience: float = 0.0) -> BaseStorage:
        """Return the storage, which calls again where it does not answer, for so many seconds.

        Raises:
            StudyError: if it cannot be reached or used.
        """
        from connsearch.search.storages.patient import PatientStorage

        if self.url is None:
            return PatientStorage(_journal(self.directory / JOURNAL, self.directory / LOCK), self.label)
        storage = PatientStorage(_connect(self.url, time.monotonic() + patience), self.label)
        storage.patience = patience
        return storage


def _connect(url: URL, end: float) -> BaseStorage:
    """Return a database; try again until a time is over."""
    from connsearch.search.storages.databases import connect

    while True:
        try:
            return connect(url)
        except StudyError:
            if time.monotonic() >= end:
                raise
        time.sleep(1.0)


def find(directory: Path, storage: str | None = None) -> Place:
    """Return where the study of a directory lies.

    Args:
        directory: The study's directory, which need not be there.
        storage: A database's address; by default the one that the directory remembers, else its journal.

    Raises:
        StudyError: if the address is none, or the directory is another storage's.
    """
    from connsearch.search.storages.databases import label, parse, without_password

    url = parse(storage) if storage is not None else None
    name = directory.absolute().resolve().name or STUDY_NAME
    if os.path.isfile(directory / ADDRESS):
        remembered, name = _remembered(directory / ADDRESS)
        if url is not None and without_password(url) != remembered:
            raise StudyError(
                f"{directory}: its study is in {label(remembered)}, not in {label(url)}: choose another --dir"
            )
        return Place(directory, url or remembered, name)
    if url is None:
        return Place(directory, None, STUDY_NAME)
    if os.path.isfile(directory / JOURNAL):
        raise StudyError(
            f"{directory}: its study is in {JOURNAL} there, not in {label(url)}: choose another --dir"
        )
    return Place(directory, url, name)


def _remembered(path: Path) -> tuple[URL, str]:
    from connsearch.search.storages.databases import parse

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return parse(data["storage"]), str(data["study"])
    except (KeyError, ValueError, OSError) as error:
        raise StudyError(f"{path}: does not say where the study is ({error}): restore it") from None


def exists(path: Path) -> bool:
    """Return whether a directory holds a study, or says in which database it is."""
    return os.path.isfile(path / JOURNAL) or os.path.isfile(path / ADDRESS)


def is_there(place: Place) -> bool:
    """Return whether a study is in its storage; makes nothing there.

    Raises:
        StudyError: if the storage cannot be reached.
    """
    if place.url is None:
        return exists(place.directory)
    from connsearch.search.storages.databases import has_studies

    return has_studies(place.url) and any(
        study.study_name == place.name for study in place.connect().get_all_studies()
    )


def create(place: Place, config: StudyConfig) -> None:
    """Make a study; one that another process has made meanwhile stays.

    Raises:
        StudyError: if the directory cannot be written or holds a file of the user's own in the way, or the
            database cannot be used.
    """
    path = place.directory
    check_free(path)
    storage = place.connect() if place.url is not None else None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if storage is not None:
                _create_study(storage, place.name, config)
                from connsearch.search.storages.databases import label

                _write_address(path, label(place.url) if place.url is not None else "", place.name)
            elif not exists(path):
                _create_journal(path, config)
            if not os.path.lexists(path / COPY):
                write_whole(path / COPY, for_people(config).to_toml().encode())
    except OSError as error:
        raise StudyError(_unwritable(path, error.strerror)) from None


def _create_journal(path: Path, config: StudyConfig) -> None:
    new = path / f"{JOURNAL}.new"
    new.unlink(missing_ok=True)
    _create_study(_journal(new, path / f"{LOCK}.new"), STUDY_NAME, config)
    (path / f"{LOCK}.new").unlink(missing_ok=True)
    os.replace(new, path / JOURNAL)


def _create_study(storage: Any, name: str, config: StudyConfig) -> None:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        optuna.create_study(storage=storage, study_name=name + CLAIMS, load_if_exists=True)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(config.objectives.values()),
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    if "config" not in study.user_attrs:
        study.set_user_attr("config", json.dumps(config.to_full_dict()))


def _write_address(path: Path, address: str, name: str) -> None:
    import tomli_w

    text = tomli_w.dumps({"storage": address, "study": name})
    write_whole(
        path / ADDRESS, f"# Passwords are not kept: PGPASSWORD, ~/.pgpass, or --storage.\n{text}".encode()
    )


def load(place: Place, patience: float = 0.0) -> tuple[StudyConfig, optuna.Study]:
    """Return a study's configuration and its record.

    Raises:
        StudyError: if there is none, or its record is damaged or cannot be reached.
        SpecError: if its configuration needs what is not registered here.
    """
    import optuna

    path = place.directory
    if place.url is None and not exists(path):
        raise StudyError(f"{path}: no study there: run one with `connsearch run STUDY.toml --dir {path}`")
    try:
        study = optuna.load_study(study_name=place.name, storage=place.connect(patience))
        config = json.loads(_config(study))
    except StudyError:
        raise
    except Exception as error:  # what is raised depends on what the record holds
        reason = first_line(f"{type(error).__name__}: {error}")
        if place.url is not None:
            raise StudyError(f"{place.label}: no study {place.name!r} there, or damaged ({reason})") from None
        raise StudyError(
            f"{place.label}: no study's journal, or damaged ({reason}): restore it, or choose another --dir"
        ) from None
    return StudyConfig.from_dict(config, source=str(path)), study


def _config(study: optuna.Study) -> str:
    """Return a study's configuration as JSON; who creates a study records it a moment later."""
    end = time.monotonic() + _CONFIG_SECONDS
    while (attrs := study.user_attrs).get("config") is None and time.monotonic() < end and not study.trials:
        time.sleep(0.1)
    return str(attrs["config"])


def claims_of(study: optuna.Study) -> optuna.Study:
    """Return the log of a study's claims; made if it is not there."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=study._storage, study_name=study.study_name + CLAIMS, load_if_exists=True
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep the other processes of this host from writing to a directory, until the context is left."""
    from connsearch.search.storages.journal import KernelLock

    lock = KernelLock(path / LOCK)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_free(path: Path) -> None:
    """Make sure that a study's copy of its configuration would overwrite no other file.

    Raises:
        StudyError: if it would.
    """
    if os.path.lexists(path / COPY) and not exists(path):  # a study's record is there before its copy
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


def _journal(journal: Path, lock: Path) -> Any:
    from optuna.storages import JournalStorage

    from connsearch.search.storages.journal import Journal

    return JournalStorage(Journal(journal, lock))
