"""MNIST, Fashion-MNIST and their kin as they are published: IDX files, compressed or not.

An IDX file is big-endian: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension
as 4 bytes, then the values. Source: http://yann.lecun.com/exdb/mnist, "The IDX file format".
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from connsearch.data.found import SPLITS, Found, Part, Picture, Source, listed
from connsearch.errors import DataError

_NAME = re.compile(
    r"(?P<set>.*?)-?(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx[13]-ubyte(\.gz)?"
)


def idx_files(root: Path) -> dict[tuple[str, str, str], Path]:
    """Return the IDX files of a folder by (set, split, "images" or "labels")."""
    found = {}
    for file in sorted(root.iterdir(), reverse=True) if root.is_dir() else ():  # plain files win over .gz
        if match := _NAME.fullmatch(file.name):
            found[match["set"], SPLITS[match["split"]], match["what"]] = file
    return found


def idx_source(path: str) -> Source:
    """Return the source of a folder with IDX files.

    Raises:
        DataError: if it is not there, holds none, several sets, or images without labels.
    """
    root = Path(path)
    files = idx_files(root)
    sets = sorted({name for name, _, _ in files})
    if not files:
        raise DataError(f"{root}: no folder with IDX files (train-images-idx3-ubyte, with .gz or without)")
    if len(sets) > 1:
        raise DataError(f"{root}: holds several sets ({listed(sets)}): give each a folder of its own")
    by_split: dict[str, dict[str, Path]] = {}
    for (_, split, what), file in files.items():
        by_split.setdefault(split, {})[what] = file
    for split, pair in by_split.items():
        for what in {"images", "labels"} - pair.keys():
            have = next(iter(pair.values())).name
            raise DataError(f"{root}: {split}: no {what}: a file like {have} with {what} is missing")
    if "train" not in by_split:
        raise DataError(f"{root}: no training images: train-images-idx3-ubyte is missing")
    read = partial(_read, by_split)
    return Source(root.name, root, tuple(sorted(files.values())), read, {"format": "idx"})


def _read(by_split: dict[str, dict[str, Path]]) -> Found:
    return Found({split: _part(pair["images"], pair["labels"]) for split, pair in by_split.items()})


def _part(images_file: Path, labels_file: Path) -> Part:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file}: {len(images)} images, but {len(labels)} labels in {labels_file.name}: "
            "one of the two is of another data set"
        )

    def pictures() -> Iterator[Picture]:
        return iter(images[..., None])

    return Part(labels, pictures, lambda index: f"image {index} of {images_file.name}")


def read_idx(file: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """Return what an IDX file of unsigned bytes holds.

    Raises:
        DataError: if it is damaged, or of another type or number of dimensions.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {error}: get it again") from None
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        begins = content[:4].hex(" ") or "nothing"
        raise DataError(
            f"{file}: no IDX file of {ndim}-dimensional bytes: begins with {begins}: get it again"
        )
    shape = struct.unpack(f">{ndim}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(f"{file}: damaged: {len(content)} bytes, its header says {expected}: get it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
