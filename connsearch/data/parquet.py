"""Data sets in the layout of the Hugging Face hub: Parquet files in a folder, or a name online.

A row holds an image (`{bytes, path}`, as the hub stores it, or plain bytes) and a label. Names of classes
come from the schema that the `datasets` library writes. Local files are read as they lie, without a copy;
what a name on the hub stands for is downloaded by that library, once, to where it keeps its data.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connsearch.data.found import SPLITS, Found, Part, Picture, Source, listed
from connsearch.errors import DataError

ROWS = 256
"""Rows that are read at once."""
ASK_THE_HUB = ": correct the name, or give the folder of a copy: --set train.dataset=<folder>"
LABELS = ("label", "labels", "class", "target")
"""What columns of labels are called where no schema says which one it is."""


def parquet_source(path: str, *, image_column: str, label_column: str, config: str) -> Source:
    """Return the source of a folder with Parquet files.

    Raises:
        DataError: if it is not there, or holds none.
    """
    root = Path(path)
    files = tuple(sorted(parquet_files(root)))
    if not files:
        raise DataError(f"{root}: no folder with Parquet files (*.parquet)")
    read = partial(_read_folder, root, image_column, label_column, config)
    reading = {"format": "parquet", "image": image_column, "label": label_column, "config": config}
    card = root / "README.md"  # may say which file is which split
    return Source(root.name, root, (*files, card) if card.is_file() else files, read, reading)


def parquet_files(root: Path) -> Iterator[Path]:
    """Yield the Parquet files of a folder, hidden ones and those in hidden folders excepted."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(folder, n) for n in names if n.endswith(".parquet") and not n.startswith("."))


def hub_source(name: str, *, image_column: str, label_column: str, config: str, revision: str) -> Source:
    """Return the source of a data set on the hub; downloads it if it was not before.

    Raises:
        DataError: if it cannot be reached, or there is none of that name.
    """
    opened = _opened(name, f"hub data set {name!r}", config=config, revision=revision, streaming=False)
    files = tuple(sorted({Path(file["filename"]) for split in opened.values() for file in split.cache_files}))
    root = Path(os.path.commonpath(files))
    read = partial(_found, opened, image_column, label_column, f"hub data set {name!r}", embedded=False)
    reading = {"format": "hub", "image": image_column, "label": label_column, "config": config}
    return Source(name, root if root.is_dir() else root.parent, files, read, reading)


def _read_folder(root: Path, image_column: str, label_column: str, config: str) -> Found:
    opened = _opened(str(root), str(root), config=config, revision="", streaming=True)
    return _found(opened, image_column, label_column, str(root), embedded=True)


def _opened(path: str, place: str, *, config: str, revision: str, streaming: bool) -> Any:
    """Return what `datasets` makes of a folder or a name: its splits by name."""
    datasets = _library(place)
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # a plain README.md is no fault
    try:
        return datasets.load_dataset(path, config or None, revision=revision or None, streaming=streaming)
    except Exception as error:
        raise _unreadable(place, error, "" if streaming else ASK_THE_HUB) from None


def _library(place: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{place}: Parquet files and names of the hub need the package datasets: "
            "pip install 'connsearch[data]'"
        ) from None
    return datasets


def _unreadable(place: str, error: Exception, way_out: str = "") -> DataError:
    """Return an error of `datasets` or `pyarrow`, of whatever type, as one line."""
    reason = " ".join((str(error) or type(error).__name__).split())
    return DataError(f"{place}: cannot be read: {reason[:300]}{way_out}")


def _found(opened: Any, image_column: str, label_column: str, place: str, *, embedded: bool) -> Found:
    splits = {SPLITS[name]: split for name, split in opened.items() if name in SPLITS}
    if "train" not in splits:
        names = listed(list(opened))
        raise DataError(f"{place}: no split is called train, found: {names}: rename the files")
    features = splits["train"].features
    if features is None:
        raise DataError(f"{place}: its files hold no rows")
    label = label_column or _label_column(features, place)
    image = image_column or _image_column(features, place)
    for column in (image, label):
        if column not in features:
            raise DataError(f"{place}: no column {column!r}, found: {listed(list(features))}")
    parts = {}
    for name, split in splits.items():
        pictures = _pictures(split, image, f"{place}: {name}", embedded)
        parts[name] = Part(_labels(split, label, f"{place}: {name}"), pictures, lambda index: f"row {index}")
    return Found(parts, tuple(getattr(features[label], "names", ())))


def _image_column(features: Any, place: str) -> str:
    """Return the one column that holds images."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    images = images or [name for name, feature in features.items() if _holds_bytes(feature)]
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


def _label_column(features: Any, place: str) -> str:
    """Return the one column that holds labels."""
    named = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    usual = [name for name, feature in features.items() if name in LABELS and _holds_classes(feature)]
    for candidates in (named, usual):
        if len(candidates) == 1:
            return str(candidates[0])
        if len(candidates) > 1:
            raise DataError(f"{place}: several columns of labels ({listed(candidates)}): set label_column")
    found = listed(list(features))
    raise DataError(f"{place}: no labels: no column holds classes, found {found}: set label_column")


def _labels(split: Any, label: str, place: str) -> npt.NDArray[Any]:
    """Return the labels of a split."""
    try:
        column = [x for batch in split.select_columns([label]).iter(batch_size=8192) for x in batch[label]]
    except Exception as error:
        raise _unreadable(place, error) from None
    missing = next((index for index, x in enumerate(column) if x is None), None)
    if missing is not None:
        raise DataError(f"{place}: row {missing} has no label in column {label!r}: remove such rows")
    if any(not isinstance(x, int | str) for x in column[:1]):
        raise DataError(f"{place}: column {label!r} holds {type(column[0]).__name__}, not a number or a word")
    return np.asarray(column)


def _pictures(split: Any, image: str, place: str, embedded: bool) -> Callable[[], Iterator[Picture]]:
    datasets = _library(place)

    def pictures() -> Iterator[Picture]:
        column = split.select_columns([image])
        if type(split.features[image]).__name__ == "Image":
            column = column.cast_column(image, datasets.Image(decode=False))
        batches = column.iter(batch_size=ROWS)
        row = 0
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                raise _unreadable(place, error) from None
            if batch is None:
                return
            for cell in batch[image]:
                yield _content(cell, f"{place}: row {row}", embedded)
                row += 1

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
