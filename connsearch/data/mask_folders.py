"""Images in one folder, their label maps in another, alike by name: which image has which map?

Four layouts are read, each name with the others of its row in `IMAGES` and `MASKS`:

    train/images/*  train/masks/*           a folder for each split
    images/train/*  masks/train/*           the same, inside out
    images/*        masks/*                 one folder for all
    train/*         trainannot/*            as CamVid comes with SegNet
    JPEGImages/*    SegmentationClass/*     PASCAL VOC, its splits listed in ImageSets/Segmentation
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from connsearch.data.classes import class_files, classes_of
from connsearch.data.folders import SUFFIXES
from connsearch.data.found import SPLITS, Found, Pair, Part, Source, listed
from connsearch.errors import DataError

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot"),
    "segmentationclass",
)
"""What folders are called, in any case."""
_LISTS = Path("ImageSets", "Segmentation")

Pairs = Sequence[tuple[Path, Path]]
"""Images with their label maps."""


def mask_folder_source(path: str, *, classes: str, void: int) -> Source:
    """Return the source of images with label maps in folders.

    Raises:
        DataError: if they are not there, or an image has no map.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root}: no folder of images and label maps")
    by_split = {split: _pairs(*folders) for split, folders in _folders(root).items()}
    if not by_split:
        raise DataError(
            f"{root}: no label maps: found no folders images/ and masks/, nor train/ and trainannot/"
        )
    by_split = _listed(root, by_split) or by_split
    if "train" not in by_split:
        raise DataError(f"{root}: no folder is called train, found: {listed(sorted(by_split))}")
    files = tuple(sorted(file for pairs in by_split.values() for pair in pairs for file in pair))
    lists = tuple(sorted((root / _LISTS).glob("*.txt")))
    reading: dict[str, str | int] = {"format": "mask_folder", "classes": classes, "void": void}
    read = partial(_read, root, by_split, classes, void)
    return Source(root.name, root, (*files, *lists, *class_files(root)), read, reading)


def holds_masks(root: Path) -> bool:
    """Say whether a folder holds images and label maps."""
    return bool(_folders(root))


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folder of images and that of label maps of each split; empty if there are none."""
    found = {}
    if (both := _both(root)) is not None:
        images, masks = (_below(folder) for folder in both)
        found = {SPLITS[n]: (images[n], masks[n]) for n in images if n in SPLITS and n in masks}
        return found or {"train": both}
    below = _below(root)
    for name, folder in below.items():
        if name in SPLITS and (both := _both(folder)) is not None:
            found[SPLITS[name]] = both
        elif name in SPLITS and f"{name}annot" in below:
            found[SPLITS[name]] = (folder, below[f"{name}annot"])
    return found


def _both(root: Path) -> tuple[Path, Path] | None:
    below = _below(root)
    images = [below[name] for name in IMAGES if name in below]
    masks = [below[name] for name in MASKS if name in below]
    return (images[0], masks[0]) if images and masks else None


def _below(root: Path) -> dict[str, Path]:
    return {f.name.lower(): f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")}


def _pairs(images: Path, masks: Path) -> Pairs:
    """Return each image with the label map of its name.

    Raises:
        DataError: if one has none. Of PASCAL VOC most have none, and the lists say which do.
    """
    maps, pictures = _by_stem(masks), _by_stem(images)
    alone = [name for name in pictures if name not in maps]
    if alone and not (images.parent / _LISTS).is_dir():
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise DataError(
            f"{pictures[alone[0]]}: no label map {masks.name}/{alone[0]}.*{more}: add it or remove the image"
        )
    return [(pictures[name], maps[name]) for name in pictures if name in maps]


def _by_stem(folder: Path) -> dict[str, Path]:
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
    if not files:
        raise DataError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))})")
    found: dict[str, Path] = {}
    for file in files:
        if (same := found.setdefault(file.stem, file)) is not file:
            raise DataError(f"{file}: {same.name} lies beside it: which one is meant? Remove one")
    return found


def _listed(root: Path, by_split: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return what PASCAL VOC's lists say; empty if there are none."""
    found: dict[str, Pairs] = {}
    pairs = {image.stem: (image, mask) for image, mask in by_split.get("train", ())}
    for file in sorted((root / _LISTS).glob("*.txt")):
        if file.stem not in SPLITS:
            continue
        names = file.read_text(encoding="utf-8").split()
        missing = [name for name in names if name not in pairs]
        if missing:
            raise DataError(f"{file}: no image with a label map is called {missing[0]}: correct the list")
        found[SPLITS[file.stem]] = [pairs[name] for name in names]
    return found


def _read(root: Path, by_split: Mapping[str, Pairs], classes: str, void: int) -> Found:
    names, void = classes_of(classes, void, root)
    return Found({split: _part(root, pairs) for split, pairs in by_split.items()}, names, void)


def _part(root: Path, pairs: Pairs) -> Part:
    def pictures() -> Iterator[Pair]:
        for image, mask in pairs:
            try:
                yield image.read_bytes(), mask.read_bytes()
            except OSError as error:
                raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    return Part(
        np.zeros(len(pairs), np.int64), pictures, lambda index: str(pairs[index][0].relative_to(root))
    )
