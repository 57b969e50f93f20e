"""The file that a training can go on from: what it looks like, when it is trusted, what its loss costs.

    connsearch checkpoint
    {"training": {...}, "curve": [...], "tensors": [["model/0.weight", "float32", [8, 2, 3, 3]], ...]}
    <the tensors' numbers, one after the other> <SHA-256 of everything above>
    end of connsearch checkpoint

The second line, JSON, says which training the file is of. JSON and numbers are all there is: reading a
file executes nothing that it holds, as a pickle may, a changed bit is noticed, and a network of 10^5
parameters is written in a few milliseconds.

A checkpoint is an insurance, never a result, so trouble with it must not cost the training:

- it is damaged (cut off, overwritten, bits flipped): `CheckpointWarning`, and training starts over;
- it cannot be written (a full disk): `CheckpointWarning`, the old one stays whole, training goes on and
  tries again after the next epoch.

A mistake is an error before the first step instead: a file of something else, which is left alone, a
directory that is not there or not writable, and the checkpoint of another training.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from connsearch.errors import ConnsearchError, TrainError
from connsearch.files import remove_leftovers, write_whole

HEAD, TAIL = b"connsearch checkpoint\n", b"\nend of connsearch checkpoint\n"
DIGEST_BYTES = hashlib.sha256().digest_size
_OTHER = "name another file, or delete this one to start over"

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that has no space for now."""


class CheckpointError(TrainError):
    """A checkpoint is of another training.

    Attributes:
        path: The file.
        differs: What is not the same, as dotted keys such as `seed`, `config.lr` or `machine.torch`.
    """

    def __init__(self, message: str, path: Path, differs: tuple[str, ...]) -> None:
        super().__init__(message)
        self.path = path
        self.differs = differs

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes whole."""
        return type(self), (str(self), self.path, self.differs)


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and is not used, or could not be written; training goes on."""


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        header: Plain data, as JSON holds them.
        numbers: The bytes that the header describes.
    """

    header: dict[str, Any]
    numbers: memoryview


class _DamageError(Exception):
    """Bytes are not those of a whole checkpoint."""


class Checkpoint:
    """The file of one training.

    Args:
        path: Where it lies; it need not exist, its directory must.
        training: Which training it is: plain data, equal for equal trainings.

    Raises:
        TrainError: if nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], training: dict[str, Any]) -> None:
        self.path = Path(path)
        self.training: dict[str, Any] = json.loads(json.dumps(training))  # as it comes back from a file
        self._failing = False
        _check_writable(self.path)

    def load(self) -> Saved | None:
        """Return what the file holds; None if it is not there, or damaged, which warns.

        Raises:
            CheckpointError: if it is of another training.
            TrainError: if it cannot be read or is no checkpoint.
        """
        try:
            remove_leftovers(self.path)
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TrainError(f"{self.path}: cannot be read: {error.strerror or error}: {_OTHER}") from None
        except ConnsearchError as error:
            raise TrainError(f"{error}: {_OTHER}") from None
        if not _is_ours(content):
            raise TrainError(f"{self.path}: is no checkpoint of a training: {_OTHER}")
        try:
            saved = unpack(content)
        except _DamageError as damage:
            _warn(f"{self.path}: the checkpoint is damaged, {damage}: training starts over from epoch 1")
            return None
        self._check_training(saved.header.get("training"))
        return saved

    def no_state(self, error: Exception) -> TrainError:
        """Return the error of a file that is whole and of this training, but makes no sense: it is forged."""
        return TrainError(f"{self.path}: does not hold what its header says, {error!r}: {_OTHER}")

    def save(self, header: dict[str, Any], numbers: Sequence[bytes | memoryview]) -> None:
        """Replace the file, at once and durably; warn if that is not possible.

        Of several failures in a row the first one warns.
        """
        content = pack({"training": self.training, **header}, numbers)
        try:
            write_whole(self.path, content, durable=True)
        except ConnsearchError as error:
            if not self._failing:
                _warn(f"{error}: training goes on; until writing works again, the last checkpoint stays")
            self._failing = True
        else:
            self._failing = False

    def _check_training(self, there: object) -> None:
        old, new = dict(_leaves(there)), dict(_leaves(self.training))
        keys = sorted(old.keys() | new.keys())
        differs = tuple(key for key in keys if old.get(key, _UNSET) != new.get(key, _UNSET))
        if differs:
            first = differs[0]
            more = f" (and {len(differs) - 1} more)" if len(differs) > 1 else ""
            raise CheckpointError(
                f"{self.path}: is of another training: {first} is {old.get(first, _UNSET)!r} there, "
                f"{new.get(first, _UNSET)!r} here{more}: {_OTHER}",
                self.path,
                differs,
            )


def pack(header: dict[str, Any], numbers: Sequence[bytes | memoryview]) -> bytes:
    """Return a file's content."""
    start = HEAD + json.dumps(header, allow_nan=False).encode() + b"\n"
    digest = hashlib.sha256(start)
    for part in numbers:
        digest.update(part)
    return b"".join([start, *numbers, digest.digest(), TAIL])


def unpack(content: bytes) -> Saved:
    """Return what `pack` was given, the parts in one piece; refuse content of which a bit has changed."""
    if not content.endswith(TAIL):
        raise _DamageError(f"its end is missing after {len(content)} bytes")
    digest_at = len(content) - len(TAIL) - DIGEST_BYTES
    header_end = content.find(b"\n", len(HEAD), max(digest_at, 0))
    if header_end < 0 or not content.startswith(HEAD):
        raise _DamageError("its beginning is missing")
    whole = memoryview(content)
    if hashlib.sha256(whole[:digest_at]).digest() != whole[digest_at : digest_at + DIGEST_BYTES]:
        raise _DamageError("its content does not match its checksum")
    try:
        header = json.loads(content[len(HEAD) : header_end])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _DamageError("its header is no table")
    return Saved(header, whole[header_end + 1 : digest_at])


def _is_ours(content: bytes) -> bool:
    """Return whether a file was a checkpoint once; one of zeros alone is what a loss of power may leave."""
    return HEAD.startswith(content[: len(HEAD)]) or content.endswith(TAIL) or not any(content)


class _Unset:
    def __repr__(self) -> str:
        return "unset"


_UNSET = _Unset()


def _leaves(data: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables and lists by dotted key."""
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(data, list) and data:
        for i, value in enumerate(data):
            yield from _leaves(value, f"{key}[{i}]")
    else:
        yield key, data


def _check_writable(path: Path) -> None:
    """Try the directory with a file without a name: permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        if error.errno not in FULL:  # space may come back: that warns when it is written
            reason = error.strerror or error
            raise TrainError(
                f"{path}: a checkpoint cannot be written there: {reason}: name a file in a directory that "
                "exists and can be written"
            ) from None


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointWarning, stacklevel=6)  # the line that called `train`
