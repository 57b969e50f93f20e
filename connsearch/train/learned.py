"""What did a trained network learn to read, on which images? As tables and text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from connsearch.data.dataset import Dataset, Split, check_matches
from connsearch.data.registry import load_dataset
from connsearch.errors import DataError, SpecError, did_you_mean
from connsearch.files import write_whole
from connsearch.nn.connectivity import connection_strengths
from connsearch.nn.network import Network
from connsearch.nn.shares import has_gates, shares_by_class
from connsearch.registry import Ref
from connsearch.spec.ends import predicts_pixels
from connsearch.text import table
from connsearch.train.trained import Trained

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")
_BATCH = 256


class Images:
    """The images that gates are looked at with.

    Args:
        dataset: Which they are of.
        split: "train", "val" or "test".

    Raises:
        SpecError: if there is no such data set or split.
        DataError: if the data are missing or damaged.
    """

    def __init__(self, dataset: Ref | str, split: str = "val") -> None:
        if split not in SPLITS:
            raise SpecError(f"unknown split {split!r}. {did_you_mean(split, SPLITS)}")
        self.dataset: Dataset = load_dataset(dataset)
        self.split: Split = getattr(self.dataset, split)

    def check(self, network: Network) -> None:
        """Make sure that a network takes them.

        Raises:
            DataError: naming both sides.
        """
        spec = network.spec
        check_matches(
            self.dataset,
            channels=spec.input.channels,
            height=spec.input.height,
            width=spec.input.width,
            n_classes=spec.n_classes,
            dense=predicts_pixels(spec.head),
        )

    def batches(self) -> Iterator[Tensor]:
        """Yield them as networks take them."""
        return (self.split.inputs(batch) for batch in torch.split(self.split.images, _BATCH))


def images_of(trained: Trained, dataset: str | None, split: str) -> Images | None:
    """Return the images to look at: of the named data set, else of that of the training; None if neither.

    Raises:
        SpecError: if there is no such data set or split.
        DataError: if the data are missing or do not fit the network.
    """
    chosen = dataset or trained.dataset
    if chosen is None:
        return None
    images = Images(chosen, split)
    images.check(trained.network)
    return images


def learned_strengths(trained: Trained, dataset: str | None = None, split: str = "val") -> pd.DataFrame:
    """Return the strength of each connection, as `connection_strengths` does.

    Args:
        trained: The network.
        dataset: For gates: whose images; by default those of the training.
        split: For gates: which images.

    Raises:
        SpecError: if nothing is learned between layers, or there are gates and no data set is known.
    """
    if not has_gates(trained.network):
        if dataset is not None:
            raise SpecError(f"{trained.network.spec.name!r} has no gates: leave out the data set")
        return connection_strengths(trained.network)
    return connection_strengths(trained.network, needed_images(trained, dataset, split).batches())


def learned_shares_by_class(trained: Trained, dataset: str | None = None, split: str = "val") -> pd.DataFrame:
    """Return the gates by class, as `shares_by_class` does; arguments as for `learned_strengths`.

    Raises:
        SpecError: if there are no gates, or no data set is known.
        DataError: if images have no label of their own.
    """
    if not has_gates(trained.network):
        raise SpecError(
            f"{trained.network.spec.name!r} has no gates: images of all classes take the same way"
        )
    images = needed_images(trained, dataset, split)
    if images.split.labels.ndim != 1:
        raise DataError(f"dataset {images.dataset.name!r} has labels for pixels, not for images: no classes")
    names = images.dataset.class_names
    return shares_by_class(trained.network, images.batches(), images.split.labels, names)


def needed_images(trained: Trained, dataset: str | None, split: str) -> Images:
    """Return the images to look at, as `images_of` does.

    Raises:
        SpecError: also if no data set is known.
    """
    images = images_of(trained, dataset, split)
    if images is None:
        raise SpecError(
            f"{trained.network.spec.name!r} has gates, whose values follow from images: "
            "name a data set (--dataset)"
        )
    return images


def strengths_text(name: str, frame: pd.DataFrame) -> str:
    """Return a row for each block and kind: how strong connections are, and how many are weak."""
    header = [
        "block",
        "aggregation",
        "kind",
        "connections",
        "mean",
        "least",
        "largest",
        "below 0.1",
        "strongest",
    ]
    rows = []
    for (block, aggregation, kind), part in frame.groupby(["block", "aggregation", "kind"], sort=True):
        best = part.iloc[int(part["value"].argmax())]
        numbers = [f"{x:.4g}" for x in (part["value"].mean(), part["value"].min(), part["value"].max())]
        weak = str(int((part["relative"] < 0.1).sum()))
        edge = f"{best['source']} -> {best['reader']}"
        rows.append([str(block), str(aggregation), str(kind), str(len(part)), *numbers, weak, edge])
    note = "Below 0.1: connections of less than a tenth of their reader's strongest one."
    return f"{name}\n{table(header, rows, left=['aggregation', 'kind', 'strongest'])}\n{note}"


def strengths_record(
    trained: Trained, frame: pd.DataFrame, by_class: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return the strengths as plain data; nan is null."""
    record: dict[str, Any] = {"name": trained.network.spec.name, "connections": _rows(frame)}
    if by_class is not None:
        record["by_class"] = _rows(by_class)
    return record


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a table and return the path.

    Raises:
        ConnsearchError: if the file cannot be written.
    """
    return write_whole(path, frame.to_csv(index=False).encode())
