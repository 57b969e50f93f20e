"""The journal file of a study: how several processes write to one file, and none can leave half a line in it.

Optuna's journal, with three differences: the lock is the kernel's, so it dies with its owner; the end of
a line that a killed process began is cut off by the next writer; a write that fails is undone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from connsearch.errors import StudyError

_BLOCK = 1 << 16


class KernelLock:
    """A lock that the kernel releases when its owner dies, however it dies.

    Args:
        path: The file that stands for the lock; it stays.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> None:
        """Wait for the lock."""
        self._lock.acquire(poll_interval=0.002)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


class Journal(JournalFileBackend):
    """A journal file for the workers of one host.

    Args:
        path: The journal; made if it is not there.
        lock: The file of the lock.
    """

    def __init__(self, path: Path, lock: Path) -> None:
        super().__init__(str(path))
        self._path, self._writers = path, KernelLock(lock)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all others from writing until the context is left; this thread may write."""
        self._writers.acquire()
        try:
            yield
        finally:
            self._writers.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each entry: all of them, on the disk, or none.

        Raises:
            StudyError: if the file cannot be written; it is as it was.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            with self.alone():
                _append(self._path, lines)
        except OSError as error:
            raise StudyError(
                f"{self._path}: cannot be written: {error.strerror or error}; what was finished is in it: "
                "make room and run the same command again"
            ) from error


def _append(path: Path, lines: bytes) -> None:
    file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        end = _end_of_lines(file)
        os.ftruncate(file, end)
        os.lseek(file, end, os.SEEK_SET)
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except BaseException:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _end_of_lines(file: int) -> int:
    """Return where the last whole line ends."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _BLOCK)
        os.lseek(file, start, os.SEEK_SET)
        block = os.read(file, end - start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
