"""Which classes does a network take for which? Counted on the images of a split, or on their pixels."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from connsearch.data.dataset import Dataset, Split
from connsearch.errors import DataError, SpecError, did_you_mean
from connsearch.files import write_whole
from connsearch.text import si, table
from connsearch.train.evaluation import predictions
from connsearch.train.tasks import task_of_split

SPLITS = ("train", "val", "test")
_TAKEN = "most often taken for"
Floats = npt.NDArray[np.float64]


class Majority(NamedTuple):
    """What answering with the most frequent class everywhere reaches: what any network must beat.

    Attributes:
        name: That class.
        error: Share of the others.
        mean_iou: Its share, divided by the number of classes that occur.
    """

    name: str
    error: float
    mean_iou: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each class was taken for each.

    Attributes:
        counts: K K, int64: rows are true classes, columns predicted ones; of pixels those that are not void.
        class_names: K.
        dense: Whether pixels were counted, not images.
    """

    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    dense: bool = False

    def __post_init__(self) -> None:
        size = len(self.class_names)
        if self.counts.shape != (size, size) or self.counts.dtype != np.int64:
            got = f"{self.counts.dtype} of shape {self.counts.shape}"
            raise DataError(f"a confusion of {size} classes needs {size} x {size} int64 counts, got {got}")
        if self.counts.min(initial=0) < 0 or not self.counts.any():
            raise DataError("a confusion counts at least one image or pixel, and none is negative")

    @property
    def support(self) -> npt.NDArray[np.int64]:
        """How often each class is true, K."""
        found: npt.NDArray[np.int64] = self.counts.sum(1)
        return found

    @property
    def accuracy(self) -> float:
        """Share of all that is right (of pixels: global accuracy), in [0, 1]."""
        return float(self.counts.trace() / self.counts.sum())

    @property
    def error(self) -> float:
        """Share of all that is wrong, in [0, 1]."""
        return float((self.counts.sum() - self.counts.trace()) / self.counts.sum())

    @cached_property
    def class_accuracy(self) -> Floats:
        """Share of each true class that is found (recall), K; nan where a class is never true."""
        return _ratio(self.counts.diagonal(), self.counts.sum(1))

    @cached_property
    def precision(self) -> Floats:
        """Share of what is taken for a class that is it, K; nan where nothing is."""
        return _ratio(self.counts.diagonal(), self.counts.sum(0))

    @cached_property
    def iou(self) -> Floats:
        """Intersection over union of each class, K; nan where it is neither true nor predicted."""
        hits = self.counts.diagonal()
        return _ratio(hits, self.counts.sum(0) + self.counts.sum(1) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur, in [0, 1]."""
        return float(np.nanmean(self.iou))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes that are true somewhere, in [0, 1]."""
        return float(np.nanmean(self.class_accuracy))

    @property
    def majority(self) -> Majority:
        """What answering with the most frequent class everywhere reaches."""
        most, total = int(self.support.argmax()), int(self.support.sum())
        share = self.support[most] / total
        error = float((total - self.support[most]) / total)
        return Majority(self.class_names[most], error, float(share / (self.support > 0).sum()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; shares are fractions, what is not known is None."""
        record = {
            "counted": "pixels" if self.dense else "images",
            "error": self.error,
            "mean_class_accuracy": self.mean_class_accuracy,
            "mean_iou": self.mean_iou,
            "majority": self.majority._asdict(),
            "classes": [_known(row) for row in self._rows()],
            "counts": self.counts.tolist(),
        }
        return record if self.dense else {k: v for k, v in record.items() if k != "mean_iou"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confusion:
        """Return what `to_dict` wrote.

        Raises:
            DataError: if it did not.
        """
        try:
            names = tuple(str(row["name"]) for row in data["classes"])
            return cls(np.array(data["counts"], np.int64), names, data["counted"] == "pixels")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no confusion: {type(error).__name__}: {error}") from None

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row for each true class: support, shares, and how often it was taken for each class.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        file = io.StringIO()
        rows = [_known(row) for row in self._rows()]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*rows[0], *(f"taken for {name}" for name in self.class_names)])
        for row, counts in zip(rows, self.counts.tolist(), strict=True):
            writer.writerow(["" if value is None else value for value in (*row.values(), *counts)])
        return write_whole(path, file.getvalue().encode())

    def __str__(self) -> str:
        """Return a row for each class, what all reach, and what the most frequent class alone would."""
        shares = ["accuracy", "precision", *(["iou"] if self.dense else [])]
        header = ["class", "pixels" if self.dense else "images", *(f"{name} %" for name in shares), _TAKEN]
        rows = [
            [
                row["name"],
                si(row["support"]),
                *(_percent(row[name]) for name in shares),
                self._confused(index),
            ]
            for index, row in enumerate(self._rows())
        ]
        return "\n".join([table(header, rows, left=["class", _TAKEN]), "", *self._totals()])

    def _totals(self) -> list[str]:
        most = self.majority
        if not self.dense:
            lines = [f"error           {_percent(self.error)} %, baseline {_percent(most.error)} %"]
        else:
            lines = [
                f"mean IoU        {_percent(self.mean_iou)} %, baseline {_percent(most.mean_iou)} %",
                f"accuracy        {_percent(self.accuracy)} %, baseline {_percent(1 - most.error)} %",
            ]
        mean = f"class accuracy  {_percent(self.mean_class_accuracy)} % on average"
        return [*lines, mean, f"The baseline answers {most.name!r}, the most frequent class, everywhere."]

    def _rows(self) -> list[dict[str, Any]]:
        columns: dict[str, Any] = {
            "name": self.class_names,
            "support": self.support.tolist(),
            "accuracy": self.class_accuracy.tolist(),
            "precision": self.precision.tolist(),
        }
        if self.dense:
            columns["iou"] = self.iou.tolist()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _confused(self, index: int) -> str:
        """Return what a class is taken for most often when it is not found, and with which share."""
        others = self.counts[index].copy()
        others[index] = 0
        if not others.any():
            return ""
        other = int(others.argmax())
        return f"{self.class_names[other]} ({_percent(others[other] / self.support[index])} %)"


def confusion(
    model: nn.Module,
    dataset: Dataset,
    split_name: str,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
) -> Confusion:
    """Return how often each class of a split is taken for each.

    In evaluation mode and float32; the model gets its modes back.

    Args:
        model: As `connsearch.train.evaluate` takes it.
        dataset: The data set.
        split_name: "train", "val" or "test".
        device: Where; the model is moved to it.
        batch_size: Images at once, at most.

    Raises:
        SpecError: if there is no such split.
        TrainError: if the model does not return one number per image (or pixel) and class.
    """
    split = split_of(dataset, split_name)
    n_classes = dataset.n_classes
    task = type(task_of_split(split))(n_classes, dataset.void if split.dense else -1)
    total = np.zeros((n_classes, n_classes), np.int64)
    for logits, labels in predictions(model, split, task, batch_size=batch_size, device=device):
        total += task.confusion(logits[:, :n_classes], labels).cpu().numpy()
    return Confusion(total, dataset.class_names, split.dense)


def split_of(dataset: Dataset, name: str) -> Split:
    """Return a split by name.

    Raises:
        SpecError: if there is none of that name.
    """
    if name not in SPLITS:
        raise SpecError(f"unknown split {name!r}. {did_you_mean(name, SPLITS)}")
    split: Split | None = getattr(dataset, name)
    if split is None:
        raise SpecError(f"dataset {dataset.name!r} has no {name} images")
    return split


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"
