"""Decoded images on disk, mapped into memory: made once, whole or not there, checked when opened.

An entry is a folder:

    images.npy    uint8, N C H W: the images of train, then val, then test
    labels.npy    int64, N; where each pixel has a label uint8, N H W
    about.json    where they came from, how many of which split, names, statistics, a hash of each block

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from connsearch.data.content import cache_directory, unwritable

FORMAT = 1
"""Counts changes of what an entry holds; part of its name."""
BLOCK = 1 << 24
CHECKED_BLOCKS = 64
"""So many blocks of a file are read when it is opened, 1 GiB; of a larger one evenly spread ones."""


class DataWarning(UserWarning):
    """A data set can be used, but not all of it as it was found."""


@dataclass(frozen=True)
class About:
    """What an entry knows of itself besides images and labels.

    Attributes:
        source: The folder or file it was made of.
        counts: Number of images of train, val and test.
        class_names: In the order of the labels.
        mean: Of the training images, C numbers, in [0, 255].
        std: Likewise.
        void: The label of pixels that belong to no class; -1 where labels are of images.
    """

    source: str
    counts: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    void: int = -1


@dataclass(frozen=True, eq=False)
class Entry:
    """An opened entry.

    Attributes:
        about: What it knows of itself.
        images: uint8, N C H W, mapped; writing to it changes nothing on disk.
        labels: int64, N; or uint8, N H W, mapped likewise.
        digest: A hash of the hashes of all blocks.
    """

    about: About
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    digest: str


class _DamagedError(Exception):
    """An entry is not what it was when it was written."""


def cached(name: str, key: str, make: Callable[[Path], About]) -> Entry:
    """Return the entry of a key, made now if there is none or the one that is there is damaged.

    Any number of processes may ask at once: one makes it, the others wait.

    Args:
        name: Begins the folder's name, for people.
        key: What the content is a function of.
        make: Writes `images.npy` and `labels.npy` into a folder, returns the rest.

    Raises:
        DataError: if the cache cannot be written, and what `make` raises.
    """
    entry = cache_directory() / f"{name}-{key[:24]}-v{FORMAT}"
    try:
        if (opened := _opened(entry)) is not None:
            return opened
    except _DamagedError:
        pass  # looked at again, and told, by the one process that makes it anew
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(entry.with_name(f"{entry.name}.lock")):
            return _opened_or_told(entry) or _made(entry, make)
    except OSError as error:
        raise unwritable(entry.parent, error) from None


def _opened_or_told(entry: Path) -> Entry | None:
    try:
        return _opened(entry)
    except _DamagedError as error:
        warnings.warn(f"{entry}: damaged ({error}): made anew", DataWarning, stacklevel=2)
        return None


def _made(entry: Path, make: Callable[[Path], About]) -> Entry:
    """Make an entry, while holding its lock."""
    for leftover in entry.parent.glob(f".{entry.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(leftover)
    making = entry.with_name(f".{entry.name}.{os.getpid()}.tmp")
    replaced = entry.with_name(f".{entry.name}.{os.getpid()}.old.tmp")
    making.mkdir()
    try:
        about = make(making)
        blocks = {name: list(_hashes(making / name)) for name in ("images.npy", "labels.npy")}
        (making / "about.json").write_text(json.dumps({**asdict(about), "blocks": blocks}), encoding="utf-8")
        if entry.exists():
            entry.rename(replaced)  # who has it mapped keeps it
        making.rename(entry)
    finally:
        for rest in (making, replaced):
            shutil.rmtree(rest, ignore_errors=True)
    try:
        opened = _opened(entry)
    except _DamagedError as error:
        raise OSError(f"what was written reads otherwise ({error})") from None
    assert opened is not None
    return opened


def _opened(entry: Path) -> Entry | None:
    """Return an entry; None if there is none."""
    if not entry.is_dir():
        return None
    try:
        told = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        blocks: dict[str, list[str]] = told.pop("blocks")
        for name in ("images.npy", "labels.npy"):
            _check(entry / name, blocks[name])
        images = np.load(entry / "images.npy", mmap_mode="c")
        about = About(**{key: _tuple(value) for key, value in told.items()})
        labels = np.load(entry / "labels.npy", mmap_mode=None if about.void < 0 else "c")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise _DamagedError(str(error) or type(error).__name__) from None
    digest = hashlib.sha256(json.dumps(blocks, sort_keys=True).encode()).hexdigest()
    return Entry(about, images, labels, digest)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(file: Path, blocks: list[str]) -> None:
    """Make sure that a file is as long as it was, and that the blocks that are read are what they were."""
    count = -(-file.stat().st_size // BLOCK)
    if count != len(blocks):
        raise _DamagedError(f"{file.name} has another size")
    chosen = np.unique(np.linspace(0, count - 1, min(count, CHECKED_BLOCKS)).round().astype(int)).tolist()
    for index, found in zip(chosen, _hashes(file, chosen), strict=True):
        if found != blocks[index]:
            raise _DamagedError(f"{file.name} has changed within its bytes from {index * BLOCK} on")


def _hashes(file: Path, chosen: list[int] | None = None) -> Iterator[str]:
    """Yield a hash of each block of a file, or of some."""
    with file.open("rb") as opened:
        for index in chosen if chosen is not None else range(-(-file.stat().st_size // BLOCK)):
            opened.seek(index * BLOCK)
            yield hashlib.sha256(opened.read(BLOCK)).hexdigest()
