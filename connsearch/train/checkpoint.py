"""The file that a training can go on from: what it looks like, when it is trusted, what its loss costs.

It is a safetensors file: the tensors by name, and as its only metadata, `connsearch checkpoint`, JSON that
says which training it is of, and its checksum, which safetensors files do not have of themselves:

    {"sha256": "<over every other byte>", "training": {...}, "curve": [...], "seconds": 1.5}

JSON and numbers are all there is: reading a file executes nothing that it holds, as a pickle may, and a
changed bit is noticed.

A checkpoint is an insurance, never a result, so trouble with it must not cost the training:

- it is damaged (cut off, overwritten, bits flipped, all zeros): `CheckpointWarning`, and training starts
  over. That it was a checkpoint is told by its first bytes, of which more than half must be as written;
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
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from connsearch.errors import ConnsearchError, TrainError
from connsearch.files import remove_leftovers, write_whole

MARK = "connsearch checkpoint"
LENGTH_BYTES = 8
"""Of a safetensors file's beginning: how long its header is, as a little-endian integer."""
HEAD = rb'{"__metadata__":{"%b":"{\"sha256\": \"' % MARK.encode()
"""What follows: metadata come first, and one entry has no order."""
DIGEST = slice(LENGTH_BYTES + len(HEAD), LENGTH_BYTES + len(HEAD) + 2 * hashlib.sha256().digest_size)
"""Where the checksum is, in hexadecimal digits."""
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


@contextmanager
def checkpoint_warnings_told(note: Callable[[str], None]) -> Iterator[None]:
    """Hand every warning about a checkpoint to somebody as text; others are shown as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        show = warnings.showwarning

        def told(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, CheckpointWarning):
                note(str(message))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = told  # hands on whatever it is given
        yield


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        header: Its metadata: plain data, as JSON holds them.
        content: The whole safetensors file.
    """

    header: dict[str, Any]
    content: bytes


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
        if content[DIGEST] != _digest(content):
            _warn(
                f"{self.path}: the checkpoint is damaged, its {len(content)} bytes do not match its "
                "checksum: training starts over from epoch 1"
            )
            return None
        try:
            header = _header(content)
            self._check_training(header["training"])
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise self.no_state(error) from error
        return Saved(header, content)

    def no_state(self, error: Exception) -> TrainError:
        """Return the error of a file that is whole but makes no sense: it is forged."""
        return TrainError(f"{self.path}: does not hold what its header says, {error!r}: {_OTHER}")

    def metadata(self, header: dict[str, Any]) -> dict[str, str]:
        """Return the metadata of the safetensors file that `save` takes."""
        zeros = "0" * (DIGEST.stop - DIGEST.start)
        return {MARK: json.dumps({"sha256": zeros, "training": self.training, **header}, allow_nan=False)}

    def save(self, content: bytes) -> None:
        """Replace the file, at once and durably, by a safetensors file; warn if that is not possible.

        Of several failures in a row the first one warns.

        Args:
            content: With `metadata`; the checksum is put in.
        """
        try:
            write_whole(self.path, self._with_checksum(content), durable=True)
        except ConnsearchError as error:
            if not self._failing:
                _warn(f"{error}: training goes on; until writing works again, the last checkpoint stays")
            self._failing = True
        else:
            self._failing = False

    def _with_checksum(self, content: bytes) -> bytes:
        if not content.startswith(HEAD, LENGTH_BYTES):
            start = content[: DIGEST.start]
            raise TrainError(f"{self.path}: cannot be written: it would begin with {start!r}, not {HEAD!r}")
        whole = memoryview(content)
        return b"".join([whole[: DIGEST.start], _digest(content), whole[DIGEST.stop :]])

    def _check_training(self, there: object) -> None:
        old, new = dict(leaves(there)), dict(leaves(self.training))
        keys = sorted((old.keys() | new.keys()) - {"model.network.name"})  # a network may be renamed
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


def header_of(content: bytes) -> dict[str, Any] | None:
    """Return the metadata of a checkpoint, whatever training it is of; None if a file is something else.

    Raises:
        ValueError: if it is damaged.
    """
    if not _is_ours(content) or not any(content) or _says_otherwise(content):
        return None
    if content[DIGEST] != _digest(content):
        raise ValueError(f"its {len(content)} bytes do not match its checksum")
    return _header(content)


def _digest(content: bytes) -> bytes:
    """Return the checksum, over all bytes but its own."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[: DIGEST.start])
    digest.update(whole[DIGEST.stop :])
    return digest.hexdigest().encode()


def _header(content: bytes) -> dict[str, Any]:
    """Return a checkpoint's metadata."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length])
    return dict(json.loads(header["__metadata__"][MARK]))


def _says_otherwise(content: bytes) -> bool:
    """Return whether a file can be read and has other metadata, which may begin alike."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    try:
        return MARK not in json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length])["__metadata__"]
    except (KeyError, TypeError, ValueError):
        return False


def _is_ours(content: bytes) -> bool:
    """Return whether a file was a checkpoint once; one of zeros alone is what a loss of power may leave."""
    start = content[LENGTH_BYTES : DIGEST.start].ljust(len(HEAD), b"\0")
    same = sum(there == written for there, written in zip(start, HEAD, strict=True))
    return 2 * same > len(HEAD) or not any(content)


class _Unset:
    def __repr__(self) -> str:
        return "unset"


_UNSET = _Unset()


def leaves(data: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables and lists by dotted key."""
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(data, list) and data:
        for i, value in enumerate(data):
            yield from leaves(value, f"{key}[{i}]")
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
    warnings.warn(message, CheckpointWarning, stacklevel=_caller())


def _caller() -> int:
    """Return the `stacklevel`, for a warning of the function that asks, of the line that called training."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("connsearch.train."):
        level, frame = level + 1, frame.f_back
    return level + 1
