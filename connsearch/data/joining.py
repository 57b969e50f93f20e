"""Training and validation images as one split: what trains when nothing is chosen any more.

Images of a data set on disk stay where they are: train and val lie one after the other in one mapped file,
and so does the split that is both. Others, which fit into memory, are copied once.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from connsearch.data.dataset import Dataset, Split
from connsearch.errors import DataError


def joined(dataset: Dataset) -> Dataset:
    """Return a data set whose `train` is training, then validation images; it has no `val`.

    Normalisation stays that of the training images alone: a network sees every image as it did before.

    Raises:
        DataError: if there are no validation images.

    >>> from connsearch.data import load_dataset
    >>> joined(load_dataset("synthetic"))
    Dataset(synthetic: 3 x 16 x 16, 10 classes, 768 train / 256 test)
    """
    if dataset.val is None:
        raise DataError(f"dataset {dataset.name!r} has no validation images: there is nothing to join")
    return replace(dataset, train=joined_split(dataset.train, dataset.val), val=None)


def joined_split(first: Split, second: Split) -> Split:
    """Return the images of two splits, in this order; without a copy where they lie so in memory.

    Raises:
        DataError: if they are of other sizes, kinds of labels or normalisation.
    """
    if (first.mean, first.std, first.dense) != (second.mean, second.std, second.dense):
        raise DataError(f"{first} and {second}: kind of labels or normalisation differ")
    if first.images.shape[1:] != second.images.shape[1:]:
        raise DataError(f"{first} and {second}: sizes differ")
    images, labels = (
        _one_after_the_other(getattr(first, name), getattr(second, name)) for name in ("images", "labels")
    )
    return Split(images, labels, first.mean, first.std, _digest(first, second))


def _digest(first: Split, second: Split) -> str:
    """Return what tells both splits, if both know theirs."""
    if not first.digest or not second.digest:
        return ""
    return hashlib.sha256(f"{first.digest} then {second.digest}".encode()).hexdigest()


def _one_after_the_other(first: Tensor, second: Tensor) -> Tensor:
    """Return rows of both: a view where they lie one after the other in one memory, else a copy."""
    follows = first.data_ptr() + first.nbytes == second.data_ptr()
    same = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    if same and follows and first.is_contiguous() and second.is_contiguous():
        shape = (len(first) + len(second), *first.shape[1:])
        return first.as_strided(shape, first.stride())
    return torch.cat([first, second])
