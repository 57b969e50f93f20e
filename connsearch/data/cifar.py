"""CIFAR-10 and CIFAR-100 in their binary version, as an archive or unpacked.

A record is one byte with the class (CIFAR-100: two, superclass and class) and 3,072 with the pixels: 1,024
red, green, blue, row by row. Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
The version for Python is refused: it is pickled, and reading a pickle runs what it says.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from connsearch.data.found import Found, Part, Picture, Source
from connsearch.errors import DataError, did_you_mean

PIXELS = 3072
LABELS = ("fine", "coarse")
_BINARY = re.compile(r"(data_batch_(?P<batch>\d+)|(?P<split>train|test|test_batch))\.bin")
_NAMES = {
    "batches.meta.txt": "fine",
    "fine_label_names.txt": "fine",
    "coarse_label_names.txt": "coarse",
}


def cifar_source(path: str, *, labels: str) -> Source:
    """Return the source of an archive, of the folder that it unpacks to, or of the folder around that.

    Args:
        path: Where it is.
        labels: "fine" or "coarse" (the 20 superclasses of CIFAR-100).

    Raises:
        DataError: if it is not there, is the pickled version, or something else.
    """
    root = Path(path)
    if labels not in LABELS:
        raise DataError(f"unknown labels {labels!r}. {did_you_mean(labels, LABELS)}")
    reading = {"format": "cifar_binary", "labels": labels}
    if root.is_file():
        return Source(root.name.split(".")[0], root, (root,), partial(_read_tar, root, labels), reading)
    folder = cifar_folder(root)
    if folder is None:
        raise DataError(
            f"{root}: neither a folder with the binary version of CIFAR (data_batch_1.bin or train.bin) "
            "nor its tar.gz"
        )
    files = tuple(sorted(f for f in folder.iterdir() if _BINARY.fullmatch(f.name) or f.name in _NAMES))
    return Source(root.name, root, files, partial(_read_folder, folder, files, labels), reading)


def cifar_folder(root: Path) -> Path | None:
    """Return the folder with the binary files: `root` or one in it; None if there is none.

    Raises:
        DataError: if it holds the pickled version.
    """
    for folder in [root, *sorted(f for f in root.iterdir() if f.is_dir())] if root.is_dir() else ():
        names = {file.name for file in folder.iterdir()}
        if any(_BINARY.fullmatch(name) for name in names):
            return folder
        if is_pickled(names):
            raise refusal(folder)
    return None


def is_pickled(names: set[str]) -> bool:
    """Say whether files of these names are CIFAR's version for Python."""
    return "data_batch_1" in names or {"meta", "train", "test"} <= names


def refusal(path: Path) -> DataError:
    """Return why the version for Python is not read, and what is."""
    return DataError(
        f"{path}: CIFAR's version for Python is pickled, and reading a pickle runs what it says: get the "
        "binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz) from "
        "https://www.cs.toronto.edu/~kriz/cifar.html"
    )


def _read_folder(folder: Path, files: tuple[Path, ...], labels: str) -> Found:
    try:
        return _found(folder, {file.name: file.read_bytes() for file in files}, labels)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _read_tar(file: Path, labels: str) -> Found:
    contents: dict[str, bytes] = {}
    names: set[str] = set()
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                name = Path(member.name).name
                names.add(name)
                opened = archive.extractfile(member)
                if opened is not None and (_BINARY.fullmatch(name) or name in _NAMES):
                    contents[name] = opened.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: no archive, or a damaged one: {error}: get it again") from None
    if is_pickled(names):
        raise refusal(file)
    return _found(file, contents, labels)


def _found(place: Path, contents: Mapping[str, bytes], labels: str) -> Found:
    batches: dict[str, list[str]] = {}
    for name in sorted(contents, key=_order):
        if match := _BINARY.fullmatch(name):
            split = "test" if (match["split"] or "").startswith("test") else "train"
            batches.setdefault(split, []).append(name)
    if "train" not in batches:
        raise DataError(f"{place}: no training images: data_batch_1.bin or train.bin is missing")
    hundred = "train.bin" in contents
    column = 0 if labels == "coarse" or not hundred else 1
    if labels == "coarse" and not hundred:
        raise DataError(f"{place}: CIFAR-10 has no coarse labels: set labels = 'fine'")
    count = 10 if not hundred else 20 if labels == "coarse" else 100
    names = _class_names(contents, labels) or tuple(map(str, range(count)))
    n_bytes = 2 if hundred else 1
    parts = {split: _part(place, contents, files, n_bytes, column) for split, files in batches.items()}
    return Found(parts, names)


def _order(name: str) -> tuple[int, str]:
    match = _BINARY.fullmatch(name)
    return (int(match["batch"]) if match and match["batch"] else 0, name)


def _class_names(contents: Mapping[str, bytes], labels: str) -> tuple[str, ...]:
    for name, kind in _NAMES.items():
        if name in contents and kind == labels:
            return tuple(contents[name].decode("utf-8", errors="replace").split())
    return ()


def _part(place: Path, contents: Mapping[str, bytes], files: list[str], n_bytes: int, column: int) -> Part:
    """Return a split from records of `n_bytes` classes and the pixels."""
    size = n_bytes + PIXELS
    for name in files:
        if not contents[name] or len(contents[name]) % size:
            raise DataError(
                f"{place}: {name}: damaged: {len(contents[name])} bytes, no multiple of {size}: get it again"
            )
    records = np.concatenate([np.frombuffer(contents[name], np.uint8).reshape(-1, size) for name in files])
    pixels_NHWC = records[:, n_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def pictures() -> Iterator[Picture]:
        return iter(pixels_NHWC)

    return Part(records[:, column], pictures, lambda index: f"image {index} of {', '.join(files)}")
