"""Whose is a directory? One process's at a time, and that of one kind of trainings for good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from connsearch.errors import TrainError
from connsearch.files import write_whole
from connsearch.train.checkpoint import leaves
from connsearch.train.finished import read_record, to_json

LOCK = "lock"


def make_directory(directory: Path) -> None:
    """Make a directory, and those above it.

    Raises:
        TrainError: if that is not possible.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise TrainError(f"{directory}: is a file: name a directory (-o)") from None
    except OSError as error:
        raise TrainError(f"{directory}: cannot be made: {error.strerror or error}") from None


@contextmanager
def alone(directory: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a directory; the system lets go of it when a process ends, however it ends.

    Args:
        directory: Which.
        patience: Seconds to wait for another process.

    Raises:
        TrainError: if another process holds it, or nothing can be written there.
    """
    lock = filelock.FileLock(directory / LOCK, timeout=patience)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrainError(
            f"{directory}: another process trains there: wait until it is done, or name another directory"
        ) from None
    except OSError as error:
        raise TrainError(f"{directory}: cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def check_same(path: Path, here: dict[str, Any]) -> None:
    """Make sure that a directory is of these trainings; one that is of none yet becomes so.

    Args:
        path: The file in it that says so.
        here: What it must say.

    Raises:
        TrainError: naming the first difference.
    """
    here = json.loads(json.dumps(here))  # as it comes back from a file
    there = read_record(path)
    if there is None:
        write_whole(path, to_json(here))
        return
    old, new = dict(leaves(there)), dict(leaves(here))
    differs = [key for key in (*new, *old) if old.get(key, "unset") != new.get(key, "unset")]
    if differs:
        key, n = differs[0], len(set(differs))
        more = f" (and {n - 1} more)" if n > 1 else ""
        raise TrainError(
            f"{path.parent}: holds other trainings: {key} is {old.get(key, 'unset')!r} there, "
            f"{new.get(key, 'unset')!r} here{more}: give the same, or name another directory (-o)"
        )
