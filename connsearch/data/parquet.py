"""Data sets in the layout of the Hugging Face hub: Parquet files in a folder, or a name online.

A row holds an image (`{bytes, path}`, as the hub stores it, or plain bytes) and a label, or a second image
whose pixels are labels. Names of classes come from the schema that the `datasets` library writes, those of
pixels from `connsearch.data.classes`. Local files are read as they lie, without a copy;
what a name on the hub stands for is downloaded by that library, once, to where it keeps its data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connsearch.data.classes import class_files, classes_of
from connsearch.data.found import SPLITS, Found, Pair, Part, Picture, Source, listed
from connsearch.data.parquet_rows import Rows, cards, folder_rows, hub_rows, parquet_files, unreadable
from connsearch.errors import DataError

LABELS = ("label", "labels", "class", "target")
"""What columns of labels are called where no schema says which one it is."""
MASKS = (
    *("annotation", "annotations", "mask", "masks", "label", "labels", "label_map", "seg_map"),
    *("segmentation", "segmentation_mask", "semantic_mask", "semantic_segmentation", "target"),
)
"""What columns of label maps are called, which are images too."""


@dataclass(frozen=True)
class Columns:
    """Where images and labels are, and what labels of pixels stand for; "" for what can be found out.

    Attributes:
        image, label, mask: Names of columns; a label and a mask exclude each other.
        classes: As `connsearch.data.classes.classes_of` takes it.
        void: Likewise.
    """

    image: str = ""
    label: str = ""
    mask: str = ""
    classes: str = ""
    void: int = -1

    def chosen(self, features: Any, place: str) -> Columns:
        """Return the columns with names.

        Raises:
            DataError: if one is not there, or there are several to choose from.
        """
        if self.label and self.mask:
            raise DataError(f"{place}: label_column and mask_column exclude each other: leave one out")
        label, mask = self.label, self.mask
        if label in features and _holds_images(features[label]):
            raise DataError(f"{place}: column {label!r} holds images: for label maps set mask_column")
        if not label and not mask:
            label, mask = _label_column(features, place)
        image = self.image or _image_column(features, place, besides=mask)
        for column in filter(None, (image, label, mask)):
            if column not in features:
                raise DataError(f"{place}: no column {column!r}, found: {listed(list(features))}")
        return Columns(image, label, mask, self.classes, self.void)


def parquet_source(path: str, columns: Columns, *, config: str) -> Source:
    """Return the source of a folder with Parquet files.

    Raises:
        DataError: if it is not there, or holds none.
    """
    root = Path(path)
    files = tuple(sorted(parquet_files(root)))
    if not files:
        raise DataError(f"{root}: no folder with Parquet files (*.parquet)")
    read = partial(_read_folder, root, columns, config)
    others = (*cards(root), *class_files(root))
    return Source(root.name, root, (*files, *others), read, _reading("parquet", columns, config))


def _reading(kind: str, columns: Columns, config: str) -> dict[str, str | int]:
    """Return what decides what is read, besides the files."""
    return {"format": kind, **asdict(columns), "config": config}


def hub_source(name: str, columns: Columns, *, config: str, revision: str) -> Source:
    """Return the source of a data set on the hub; downloads it if it was not before.

    Raises:
        DataError: if it cannot be reached, or there is none of that name.
    """
    place = f"hub data set {name!r}"
    opened = hub_rows(name, place, config=config, revision=revision)
    files = {Path(file["filename"]) for rows in opened.values() for file in rows.opened.cache_files}
    root = Path(os.path.commonpath(files))
    root = root if root.is_dir() else root.parent
    read = partial(_found, opened, columns, root, place, embedded=False)
    return Source(name, root, tuple(sorted(files)), read, _reading("hub", columns, config))


def _read_folder(root: Path, columns: Columns, config: str) -> Found:
    return _found(folder_rows(root, config), columns, root, str(root), embedded=True)


def _found(opened: Mapping[str, Rows], columns: Columns, root: Path, place: str, *, embedded: bool) -> Found:
    splits = {SPLITS[name]: rows for name, rows in opened.items() if name in SPLITS}
    if "train" not in splits:
        names = listed(list(opened))
        raise DataError(f"{place}: no split is called train, found: {names}: rename the files")
    features = splits["train"].features
    chosen = columns.chosen(features, place)
    parts = {name: _part(rows, chosen, f"{place}: {name}", embedded) for name, rows in splits.items()}
    if chosen.mask:
        classes = classes_of(columns.classes, columns.void, root)
        return Found(parts, classes.names, classes.void)
    if columns.classes or columns.void >= 0:
        raise DataError(
            f"{place}: column {chosen.label!r} has a label for each image: leave out classes, void"
        )
    return Found(parts, tuple(getattr(features[chosen.label], "names", ())))


def _part(rows: Rows, columns: Columns, place: str, embedded: bool) -> Part:
    if columns.mask:
        labels = np.zeros(len(rows), np.int64)
        pictures = _pictures(rows, (columns.image, columns.mask), place, embedded)
    else:
        labels = _labels(rows, columns.label, place)
        pictures = _pictures(rows, (columns.image,), place, embedded)
    return Part(labels, pictures, lambda index: f"row {index}")


def _image_column(features: Any, place: str, besides: str) -> str:
    """Return the one column that holds images, but for the label maps."""
    kinds = {name: type(feature).__name__ for name, feature in features.items() if name != besides}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    images = images or [name for name in kinds if _holds_bytes(features[name])]
    if len(images) != 1:
        found = f"several ({listed(images)})" if images else f"none among {listed(list(features))}"
        raise DataError(f"{place}: one column of images is needed, found {found}: set image_column")
    return str(images[0])


def _holds_bytes(feature: Any) -> bool:
    """Say whether a column without the hub's schema can hold encoded images."""
    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(inner, "dtype", "") in ("binary", "large_binary")


def _holds_classes(feature: Any) -> bool:
    """Say whether a column without the hub's schema can hold labels."""
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "string", "large_string"))


def _label_column(features: Any, place: str) -> tuple[str, str]:
    """Return the one column that holds labels of images, or the one that holds label maps, and ""."""
    named = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    usual = [name for name, feature in features.items() if name in LABELS and _holds_classes(feature)]
    masks = [name for name, feature in features.items() if name in MASKS and _holds_images(feature)]
    labels = named or usual
    if len(labels) + len(masks) == 1:
        return (str(labels[0]), "") if labels else ("", str(masks[0]))
    if labels and masks:
        raise DataError(
            f"{place}: labels of images ({listed(labels)}) and label maps ({listed(masks)}): "
            "set label_column or mask_column"
        )
    if labels or masks:
        option = "label_column" if labels else "mask_column"
        raise DataError(f"{place}: several columns of labels ({listed(labels or masks)}): set {option}")
    found = listed(list(features))
    raise DataError(
        f"{place}: no labels: no column holds classes, found {found}: set label_column, or mask_column for "
        "label maps"
    )


def _holds_images(feature: Any) -> bool:
    return type(feature).__name__ == "Image" or _holds_bytes(feature)


def _labels(rows: Rows, label: str, place: str) -> npt.NDArray[Any]:
    """Return the labels of a split."""
    column = [x for (values,) in rows.batches((label,)) for x in values]
    missing = next((index for index, x in enumerate(column) if x is None), None)
    if missing is not None:
        raise DataError(f"{place}: row {missing} has no label in column {label!r}: remove such rows")
    if any(not isinstance(x, int | str) for x in column[:1]):
        raise DataError(f"{place}: column {label!r} holds {type(column[0]).__name__}, not a number or a word")
    feature = rows.features[label]
    if isinstance(column[0] if column else 0, str) and type(feature).__name__ == "ClassLabel":
        try:
            column = feature.str2int(column)
        except ValueError as error:
            raise unreadable(place, error) from None
    return np.asarray(column)


def _pictures(
    rows: Rows, columns: Sequence[str], place: str, embedded: bool
) -> Callable[[], Iterator[Picture | Pair]]:
    """Return what gives the content of a column of images; of two columns, image by image."""

    def pictures() -> Iterator[Picture | Pair]:
        cells = (row for batch in rows.batches(columns) for row in zip(*batch, strict=True))
        for index, (image, *mask) in enumerate(cells):
            where = f"{place}: row {index}"
            content = _content(image, where, embedded)
            yield (content, _content(mask[0], f"{where}: {columns[1]}", embedded)) if mask else content

    return pictures


def _content(cell: Any, place: str, embedded: bool) -> bytes:
    """Return an encoded image: a cell's own bytes, or those of a file in the cache of `datasets`."""
    if isinstance(cell, dict):
        if cell.get("bytes") is None and cell.get("path"):
            if embedded:
                told = f"holds the path {cell['path']}, not the image"
                raise DataError(f"{place}: {told}: write the data set with its images")
            try:
                return Path(cell["path"]).read_bytes()
            except OSError as error:
                raise DataError(f"{place}: {cell['path']}: {error.strerror}") from None
        cell = cell.get("bytes")
    if not isinstance(cell, bytes):
        raise DataError(f"{place}: holds no image")
    return cell
