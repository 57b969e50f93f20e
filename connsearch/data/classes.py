"""What do the numbers in label maps stand for, and which of them stands for nothing?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from connsearch.errors import DataError

USUAL_VOID = 255
FILES = ("id2label.json", "classes.txt")
"""Beside the images: `{"0": "road", ...}` as the Hugging Face hub has it, or a name in each line."""
LABELS = 256
"""Numbers that a pixel of 8 bits can be."""


class Classes(NamedTuple):
    """What labels of pixels stand for.

    Attributes:
        names: In the order of the labels, from 0; empty where nobody says: then every label is a class.
        void: The label of pixels that count for nothing.
    """

    names: tuple[str, ...]
    void: int = USUAL_VOID


KNOWN = {
    "camvid": Classes(
        (
            *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
            *("pedestrian", "bicyclist"),
        ),
        void=11,
    ),
    "cityscapes": Classes(
        (
            *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
            *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
            *("motorcycle", "bicycle"),
        )
    ),
    "voc": Classes(
        (
            *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
            *("cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep"),
            *("sofa", "train", "tv monitor"),
        )
    ),
}
"""Well-known ones: CamVid's 11 classes in the order of SegNet's files, Cityscapes' 19, PASCAL VOC's 21."""


def classes_of(asked: str, void: int, root: Path) -> Classes:
    """Return what is asked for, else what a file beside the images says.

    Args:
        asked: A key of `KNOWN`; names separated by commas, or by spaces if there is no comma; or "".
        void: The label that stands for nothing; -1 for the usual one.
        root: The folder of the data set.

    Raises:
        DataError: if there is no such label, a file is not as it should be, or a name comes twice.
    """
    if not -1 <= void < LABELS:
        raise DataError(f"{root}: void is a label, 0 to {LABELS - 1}, or -1 for the usual one, got {void}")
    if (known := KNOWN.get(asked.lower())) is not None:
        return known._replace(void=known.void if void < 0 else void)
    names = _split(asked) if asked.strip() else _from_file(root)
    if len(names) == 1:
        sets = ", ".join(KNOWN)
        raise DataError(
            f"{root}: classes = {asked or names[0]!r} is one name: name all, separated by commas, or one of "
            f"the known sets: {sets}"
        )
    if len(twice := {name for name in names if names.count(name) > 1}):
        raise DataError(f"{root}: two classes are called {sorted(twice)[0]!r}: rename one")
    if len(names) >= LABELS:
        raise DataError(f"{root}: {len(names)} classes, pixels of 8 bits can name {LABELS - 1}")
    return Classes(names, USUAL_VOID if void < 0 else void)


def _split(text: str) -> tuple[str, ...]:
    parts = re.split(r"\s*,\s*" if "," in text else r"\s+", text.strip())
    return tuple(part for part in parts if part)


def _from_file(root: Path) -> tuple[str, ...]:
    for name in FILES:
        file = root / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            return _by_number(text) if file.suffix == ".json" else tuple(filter(None, text.split("\n")))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise DataError(
                f"{file}: does not name classes ({reason or error}): correct it, or set classes"
            ) from None
    return ()


def _by_number(text: str) -> tuple[str, ...]:
    """Return the names of `{"0": "road", "1": "car", ...}`, in order."""
    table = {int(number): str(name) for number, name in json.loads(text).items()}
    if sorted(table) != list(range(len(table))):
        raise ValueError(f"its numbers are not 0 to {len(table) - 1}")
    return tuple(table[number] for number in range(len(table)))


def class_files(root: Path) -> tuple[Path, ...]:
    """Return the files beside the images that may name classes."""
    return tuple(root / name for name in FILES if (root / name).is_file())
