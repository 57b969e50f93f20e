"""What a reader finds on disk: which splits there are, their labels, and how to get at the images.

Nothing is decoded here. Readers of all formats return a `Found`; `connsearch.data.build` makes a cache of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connsearch.errors import DataError

Labels = npt.NDArray[np.int64]
Picture = bytes | npt.NDArray[np.uint8]
"""A file's content (PNG, JPEG, WebP, ...), or pixels: H W C."""
Pair = tuple[bytes, bytes]
"""The content of two files: an image, and the map of its labels."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
"""What splits are called on disk, and here. Others are not read."""


@dataclass(frozen=True)
class Part:
    """A split as it is on disk.

    Attributes:
        labels: A number or word for each image, as the files say it; 0 for each where labels are maps.
        pictures: Gives the images, in the order of the labels, from the start each time; with their label
            maps, where labels are maps.
        place: Says where the image of an index is, for messages.
    """

    labels: npt.NDArray[Any]
    pictures: Callable[[], Iterator[Picture | Pair]]
    place: Callable[[int], str]

    @contextmanager
    def opened(self) -> Iterator[Iterator[Picture | Pair]]:
        """Give the images, and let go of the files at the end, however far they were read."""
        pictures = self.pictures()
        try:
            yield pictures
        finally:
            if isinstance(pictures, Generator):
                pictures.close()  # readers with threads of their own are not left to the end of Python


@dataclass(frozen=True)
class Found:
    """All splits of a data set.

    Attributes:
        parts: By "train", "val", "test"; "train" at least.
        class_names: In the order of the labels, which are then numbers from 0; empty where the files do not
            say: then every label of the training split is a class, in ascending order. In label maps every
            number up to the largest one is then a class.
        void: In label maps, the label of pixels that belong to no class; None where each image has a label.
    """

    parts: Mapping[str, Part]
    class_names: tuple[str, ...] = ()
    void: int | None = None


@dataclass(frozen=True)
class Source:
    """Where a data set is, and how it is read.

    Attributes:
        name: How messages call it.
        root: The folder or file that the user named.
        files: What it is made of: their content decides whether a cache is of this data set.
        read: Opens them.
        reading: What else decides what is read: the format and its parameters.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    read: Callable[[], Found]
    reading: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def numbered(found: Found, root: Path) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Return the names of the classes, and each split's labels as numbers from 0.

    Raises:
        DataError: if a split has no labels, or one that is no class.
    """
    names = found.class_names
    if names:
        labels = {split: part.labels.astype(np.int64) for split, part in found.parts.items()}
    else:
        known = np.unique(found.parts["train"].labels)
        names = tuple(str(label) for label in known.tolist())
        labels = {split: _ranks(part, known, f"{root}: {split}") for split, part in found.parts.items()}
    for split, numbers in labels.items():
        _check(found.parts[split], numbers, len(names), f"{root}: {split}")
    return names, labels


def _ranks(part: Part, known: npt.NDArray[Any], place: str) -> Labels:
    """Return each label's rank among those of the training split."""
    ranks = np.searchsorted(known, part.labels).clip(max=len(known) - 1)
    if len(strange := np.flatnonzero(known[ranks] != part.labels)):
        raise DataError(
            f"{place}: {part.place(int(strange[0]))} has the label {part.labels[strange[0]]!s}, "
            f"which no training image has: remove these {len(strange)} images or correct their labels"
        )
    return ranks.astype(np.int64)


def _check(part: Part, numbers: Labels, n_classes: int, place: str) -> None:
    if len(numbers) == 0:
        raise DataError(f"{place}: holds no images")
    if n_classes < 2:
        raise DataError(f"{place}: all images have one label, at least 2 classes are needed")
    wrong = np.flatnonzero((numbers < 0) | (numbers >= n_classes))
    if len(wrong):
        raise DataError(
            f"{place}: {part.place(int(wrong[0]))} has the label {numbers[wrong[0]]}, "
            f"labels of {n_classes} classes are 0 to {n_classes - 1}: correct or remove {len(wrong)} images"
        )


def without_unlabelled(parts: Mapping[str, Part]) -> tuple[dict[str, Part], list[str]]:
    """Return the splits but those, other than train, whose labels are all -1, and the names of these."""
    hidden = [name for name, part in parts.items() if name != "train" and _unlabelled(part.labels)]
    return {name: part for name, part in parts.items() if name not in hidden}, hidden


def _unlabelled(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.kind == "i" and len(labels) > 0 and bool((labels == -1).all())


def listed(values: Sequence[str], most: int = 5) -> str:
    """Return some words for a message: the first ones, and how many more there are."""
    more = len(values) - most
    return ", ".join(values[:most]) + (f" and {more} more" if more > 0 else "")
