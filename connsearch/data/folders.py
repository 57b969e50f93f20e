"""Images in folders, one for each class: with a folder for each split around them, or without."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from connsearch.data.found import SPLITS, Found, Part, Picture, Source, listed
from connsearch.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}

Files = list[tuple[Path, str]]
"""Images, each with the name of its class."""


def folder_source(path: str) -> Source:
    """Return the source of `path/<split>/<class>/*.png` or `path/<class>/*.png`.

    Raises:
        DataError: if it is not there, or its images lie otherwise.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root}: no folder of images, one folder for each class")
    named = {folder.name.lower(): folder for folder in _folders(root)}
    splits = {SPLITS[name]: folder for name, folder in named.items() if name in SPLITS}
    if splits and "train" not in splits:
        raise DataError(f"{root}: no folder is called train, found: {listed(sorted(named))}")
    by_split = {name: _images(folder) for name, folder in (splits or {"train": root}).items()}
    files = tuple(sorted(file for images in by_split.values() for file, _ in images))
    return Source(root.name, root, files, partial(_read, root, by_split), {"format": "image_folder"})


def holds_image_folders(root: Path) -> bool:
    """Say whether a folder holds images in folders, two or three levels down."""
    return any(
        Path(name).suffix.lower() in SUFFIXES
        for folder in _folders(root)
        for inner in (folder, *_folders(folder))
        for name in os.listdir(inner)
    )


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _images(root: Path) -> Files:
    """Return the images of a split, by class, then by name; what lies deeper belongs to the class above."""
    loose = [file.name for file in root.iterdir() if file.suffix.lower() in SUFFIXES]
    if loose:
        raise DataError(
            f"{root}: no labels: {len(loose)} images ({listed(sorted(loose), 2)}) lie in no folder: "
            "put each into a folder named after its class"
        )
    images = []
    for folder in _folders(root):
        files = sorted(_walk(folder))
        if not files:
            raise DataError(
                f"{folder}: no images ({', '.join(sorted(SUFFIXES))}): remove the folder or fill it"
            )
        images += [(file, folder.name) for file in files]
    if not images:
        raise DataError(f"{root}: no folders of images, one for each class")
    return images


def _walk(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where, n) for n in names if Path(n).suffix.lower() in SUFFIXES and n[0] != ".")


def _read(root: Path, by_split: dict[str, Files]) -> Found:
    return Found({split: _part(root, images) for split, images in by_split.items()})


def _part(root: Path, images: Sequence[tuple[Path, str]]) -> Part:
    def pictures() -> Iterator[Picture]:
        for file, _ in images:
            try:
                yield file.read_bytes()
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error.strerror}") from None

    labels = np.asarray([name for _, name in images])
    return Part(labels, pictures, lambda index: str(images[index][0].relative_to(root)))
