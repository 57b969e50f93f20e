"""Files that are either whole or not touched."""

from __future__ import annotations

import errno
import glob
import os
from pathlib import Path

from connsearch.errors import ConnsearchError


def write_whole(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> Path:
    """Write a file through a temporary one beside it, so that nobody sees half of it.

    Args:
        path: Where to; what is there is replaced at the end, in one step.
        content: All of it.
        durable: Whether to wait until the disk has it: a machine that loses power then has the old file
            or the new one. Costs what a disk takes to write, milliseconds.

    Raises:
        ConnsearchError: if that is not possible. What was there before is still there, unless only the
            last step failed, making the new name durable.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        try:
            temporary.write_bytes(content)
            if durable:
                _sync(temporary)
            os.replace(temporary, target)
            if durable:
                _sync_names(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConnsearchError(f"{target}: cannot be written: {error.strerror or error}") from None
    return target


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left when they wrote `path`.

    If a process is writing the file at this moment, its writing fails, and it says so.

    Raises:
        ConnsearchError: if one cannot be removed.
    """
    target = Path(path)
    try:
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise ConnsearchError(f"{target}: leftovers cannot be removed: {error.strerror or error}") from None


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(directory: Path) -> None:
    """Wait until the disk has the names of a directory, on systems that can be asked to."""
    if os.name != "posix":
        return
    try:
        _sync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that sync no directories
            raise
