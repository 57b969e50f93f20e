"""Which rows are of which split, and what do their columns hold? Of Parquet files and of the hub's data sets.

What the names of files, or a card beside them, say of splits and columns is for the `datasets` library to
judge. Rows of files are read by pyarrow itself, in the thread that asks for them: whoever stops early, as on
Ctrl-C, leaves no thread behind that is still reading when Python ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from connsearch.errors import DataError

ROWS = 256
"""Rows that are read at once."""
BUFFER = 1 << 20
"""Bytes of a column that are read at once, so that a large group of rows is never in memory as a whole."""
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""What may say, beside the files, which of them is which split."""


class Rows(Protocol):
    """The rows of a split."""

    @property
    def features(self) -> Any:
        """What the columns are, by name, as `datasets` says it."""

    def __len__(self) -> int: ...

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """Yield some rows at a time, in order: each of these columns' values, images as their files are.

        Raises:
            DataError: if they cannot be read.
        """


@dataclass(frozen=True)
class FileRows:
    """The rows of a split in Parquet files.

    Attributes:
        paths: The files, in order.
        features: What their columns are, by name.
    """

    paths: tuple[Path, ...]
    features: Any

    def __len__(self) -> int:
        """Return how many there are, as the files say; no row is read."""
        import pyarrow.parquet as pq

        total = 0
        for path in self.paths:
            try:
                total += pq.read_metadata(path).num_rows
            except Exception as error:
                raise unreadable(str(path), error) from None
        return total

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """Yield some rows at a time; other columns are not read."""
        for path in self.paths:
            yield from _batches(path, columns)


def _batches(path: Path, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
    import pyarrow.parquet as pq

    try:
        # neither buffers that are filled ahead nor threads: both go on when nobody reads any more
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            for batch in file.iter_batches(ROWS, columns=list(columns), use_threads=False):
                yield [batch.column(column).to_pylist() for column in columns]
    except Exception as error:
        raise unreadable(str(path), error) from None


@dataclass(frozen=True)
class HubRows:
    """The rows of a split as `datasets` keeps what it downloads.

    Attributes:
        opened: Its `Dataset`.
        place: Of the data set, for messages.
    """

    opened: Any
    place: str

    @property
    def features(self) -> Any:
        """What the columns are, by name."""
        return self.opened.features

    def __len__(self) -> int:
        return len(self.opened)

    def batches(self, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
        """Yield some rows at a time."""
        datasets = library(self.place)
        try:
            chosen = self.opened.select_columns(list(columns))
            for column in columns:
                if type(self.features[column]).__name__ == "Image":
                    chosen = chosen.cast_column(column, datasets.Image(decode=False))
            for batch in chosen.iter(batch_size=ROWS):
                yield [batch[column] for column in columns]
        except Exception as error:
            raise unreadable(self.place, error) from None


def parquet_files(root: Path) -> Iterator[Path]:
    """Yield the Parquet files of a folder, hidden ones and those in hidden folders excepted."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(folder, n) for n in names if n.endswith(".parquet") and not n.startswith("."))


def folder_rows(root: Path, config: str) -> dict[str, FileRows]:
    """Return the splits of a folder's Parquet files, by name; no other file in it is one of the data set's.

    Raises:
        DataError: if `datasets` is not installed, or finds no splits among the names.
    """
    datasets = library(str(root))
    with tempfile.TemporaryDirectory() as scratch:
        names = Path(scratch).resolve() / "names"
        _write_names(root, names)
        try:
            builder = datasets.load_dataset_builder(str(names), config or None, cache_dir=f"{scratch}/cache")
            found = builder.config.data_files or {}
        except Exception as error:
            raise unreadable(str(root), error, known_as=str(names)) from None
    splits = {str(split): _own_paths(files, names, root) for split, files in found.items()}
    features = builder.info.features
    if features is None and (first := next((paths[0] for paths in splits.values() if paths), None)):
        features = _schema(first)
    return {split: FileRows(paths, features) for split, paths in splits.items() if paths}


def _write_names(root: Path, names: Path) -> None:
    """Make empty files of the same names, and copies of the cards.

    In the folder itself the most frequent format would win, be it that of a few notes beside the images.
    """
    for path in parquet_files(root):
        copy = names / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    for card in cards(root):
        shutil.copy(card, names)


def cards(root: Path) -> tuple[Path, ...]:
    """Return the files in a folder that may say which file is which split."""
    return tuple(root / name for name in CARDS if (root / name).is_file())


def _own_paths(files: Sequence[str], names: Path, root: Path) -> tuple[Path, ...]:
    """Return the files that names stand for, each once; a card may name some that lie elsewhere."""
    found = [Path(file) for file in files]
    own = [root / path.relative_to(names) if path.is_relative_to(names) else path for path in found]
    return tuple(dict.fromkeys(own))


def _schema(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return library(str(path)).Features.from_arrow_schema(pq.read_schema(path))
    except Exception as error:
        raise unreadable(str(path), error) from None


def hub_rows(name: str, place: str, *, config: str, revision: str) -> dict[str, HubRows]:
    """Return the splits of a data set on the hub, by name; downloads it if it was not before.

    Raises:
        DataError: if it cannot be reached, or there is none of that name.
    """
    datasets = library(place)
    try:
        opened = datasets.load_dataset(name, config or None, revision=revision or None)
    except Exception as error:
        raise unreadable(place, error, way_out=ASK_THE_HUB) from None
    return {split: HubRows(rows, place) for split, rows in opened.items()}


ASK_THE_HUB = ": correct the name, or give the folder of a copy: --set train.dataset=<folder>"


def library(place: str) -> Any:
    """Return the package `datasets`.

    Raises:
        DataError: if it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{place}: Parquet files and names of the hub need the package datasets: "
            "pip install 'connsearch[data]'"
        ) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # every try to reach it; a plain README.md
    return datasets


def unreadable(place: str, error: Exception, *, way_out: str = "", known_as: str = "") -> DataError:
    """Return an error of `datasets` or `pyarrow`, of whatever type, as one line.

    Args:
        place: What was read.
        error: What came of it.
        way_out: Ends the line.
        known_as: What the error calls the place.
    """
    told = str(error).replace(known_as, place) if known_as else str(error)
    reason = " ".join((told or type(error).__name__).split())
    return DataError(f"{place}: cannot be read: {reason[:300]}{way_out}")
