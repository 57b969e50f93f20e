"""Which images train, validate and test, where the files do not say all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from connsearch.data.found import Labels
from connsearch.errors import DataError

Rows = dict[str, tuple[str, Labels]]
"""For "train", "val" and "test": the split on disk, and the indices of its images."""


def choose_rows(
    labels: Mapping[str, Labels], *, share: float, seed: int, names: Sequence[str], place: str
) -> Rows:
    """Return which images make train, val and test.

    What there is, is used as it is. Without a validation split a `share` of the training images
    validates. Without a test split the validation split tests, and is replaced so; with neither, two
    shares are taken from the training images.

    Args:
        labels: Of the splits on disk.
        share: Of each class's images.
        seed: Which ones.
        names: Of the classes, for messages; one that is empty where labels are maps, and all are 0 here.
        place: The data set, for messages.

    Raises:
        DataError: if a class has too few training images for that.
    """
    rest = np.arange(len(labels["train"]))
    rows: Rows = {name: (name, np.arange(len(labels[name]))) for name in ("val", "test") if name in labels}
    if "test" not in rows and "val" in rows:
        rows["test"] = rows.pop("val")
    for draw, name in enumerate(("test", "val")):
        if name not in rows:
            by_class = [rest[labels["train"][rest] == label] for label in range(len(names))]
            _check_left(by_class, names, place)
            taken = _stratified(by_class, share, np.random.default_rng((seed, draw)))
            rest = np.setdiff1d(rest, taken, assume_unique=True)
            rows[name] = ("train", taken)
    return {"train": ("train", rest), "val": rows["val"], "test": rows["test"]}


def _check_left(by_class: Sequence[Labels], names: Sequence[str], place: str) -> None:
    for name, rows in zip(names, by_class, strict=True):
        if len(rows) == 1:
            has = f"class {name} has" if name else "there is"
            raise DataError(
                f"{place}: {has} 1 training image left, too few to take one for validation or "
                "test: add images, or split the data set yourself"
            )


def _stratified(by_class: Sequence[Labels], share: float, generator: np.random.Generator) -> Labels:
    """Return the share of each class's rows, one at least, in ascending order."""
    counts = [min(max(1, round(share * len(rows))), len(rows) - 1) for rows in by_class if len(rows)]
    filled = [rows for rows in by_class if len(rows)]
    taken = [generator.permutation(rows)[:n] for rows, n in zip(filled, counts, strict=True)]
    return np.sort(np.concatenate(taken))
