"""Which data set is this? A key made of what its files hold, remembered so that they are read once.

Reading 100 GB takes minutes, looking at names, sizes and times of files seconds: what these looked like
when the content was read is noted beside the caches, and as long as they look the same, the note is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from connsearch.errors import ConnsearchError, DataError
from connsearch.files import write_whole

SETTLED_S = 2.0
"""A file changed less than so long ago may change again within a tick of its clock: no note is made."""


def cache_directory() -> Path:
    """Return where decoded data sets are kept: below `$CONNSEARCH_CACHE`, `$XDG_CACHE_HOME/connsearch` or
    `~/.cache/connsearch`, the first that is set.
    """
    if asked := os.environ.get("CONNSEARCH_CACHE"):
        return Path(asked).expanduser() / "datasets"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "connsearch" / "datasets"


def content_key(root: Path, files: Sequence[Path], parameters: Mapping[str, Any]) -> str:
    """Return a hash of the files' names below `root`, of what they hold, and of parameters.

    Raises:
        DataError: if a file cannot be read.
    """
    try:
        looks, newest = _looks(root, files)
        note = cache_directory() / "seen" / looks
        content = _noted(note)
        if content is None:
            content = _content(root, files)
            if time.time() - newest > SETTLED_S:
                _note(note, content)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read: {error.strerror or error}") from None
    return _hash([content, json.dumps(dict(parameters), sort_keys=True)])


def _looks(root: Path, files: Sequence[Path]) -> tuple[str, float]:
    """Return a hash of what files look like from outside, and when one last changed, in seconds."""
    digest, newest = hashlib.sha256(str(root).encode()), 0.0
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0".encode())
        newest = max(newest, status.st_mtime, status.st_ctime)
    return digest.hexdigest(), newest


def _content(root: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            held = hashlib.file_digest(opened, "sha256").hexdigest()
        below = file != root and file.is_relative_to(root)
        name = file.relative_to(root).as_posix() if below else file.name
        digest.update(f"{name}\0{file.stat().st_size}\0{held}\0".encode())
    return digest.hexdigest()


def _noted(note: Path) -> str | None:
    """Return the hash that a note holds; None if there is none that can be read, or it is no hash."""
    try:
        text = note.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if len(text) == 64 else None


def _note(note: Path, content: str) -> None:
    """Remember a hash; where that cannot be, as in a cache that others share, the files are read again."""
    with suppress(OSError, ConnsearchError):  # a cache that must be written says itself that it cannot be
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, content.encode())


def unwritable(directory: Path, error: Exception) -> DataError:
    """Return the error of a cache that cannot be written, with the way out."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return DataError(
        f"{directory}: the cache of data sets cannot be written: {reason}; "
        "set the environment variable CONNSEARCH_CACHE to another folder"
    )


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
