"""Training and validation images as one split: which ones, whether they are copied, what stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from connsearch.data import Dataset, Split, joined, load_dataset
from connsearch.data.joining import joined_split
from connsearch.errors import DataError


def mapped(path: Path, *, dense: bool = False) -> Dataset:
    """Return 7 training, 3 validation and 2 test images in one mapped file, as the cache has them."""
    draw = np.random.default_rng(0)
    np.save(path / "images.npy", draw.integers(0, 256, (12, 3, 4, 5), dtype=np.uint8))
    maps = draw.integers(0, 3, (12, 4, 5), dtype=np.uint8)
    np.save(path / "labels.npy", maps if dense else draw.integers(0, 3, 12))
    images, labels = (
        torch.from_numpy(np.load(path / name, mmap_mode="c")) for name in ("images.npy", "labels.npy")
    )
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    rows = {"train": slice(0, 7), "val": slice(7, 10), "test": slice(10, 12)}
    splits = {name: Split(images[row], labels[row], mean, std, f"all {name}") for name, row in rows.items()}
    return Dataset("mapped", ("a", "b", "c"), **splits, mean=mean, std=std)


@pytest.mark.parametrize("dense", [False, True], ids=["labels", "maps"])
def test_what_lies_together_is_not_copied(tmp_path: Path, dense: bool) -> None:
    data = mapped(tmp_path, dense=dense)
    train, val = data.train, data.val
    assert val is not None
    both = joined(data)
    assert both.val is None
    assert len(both.train) == 10
    assert both.train.images.data_ptr() == train.images.data_ptr()
    assert both.train.labels.data_ptr() == train.labels.data_ptr()
    assert torch.equal(both.train.images, torch.cat([train.images, val.images]))
    assert torch.equal(both.train.labels, torch.cat([train.labels, val.labels]))
    assert (both.train.mean, both.train.std) == (train.mean, train.std)
    assert both.test is data.test


def test_others_are_copied(tmp_path: Path) -> None:
    data = mapped(tmp_path)
    swapped = joined_split(data.test, data.train)  # one memory, but the other way round
    assert torch.equal(swapped.images, torch.cat([data.test.images, data.train.images]))
    far = joined_split(data.train, data.test)  # with a gap
    assert torch.equal(far.labels, torch.cat([data.train.labels, data.test.labels]))
    made = load_dataset("synthetic(n_train=20, n_val=5)")
    both = joined(made)
    assert made.val is not None
    assert torch.equal(both.train.images[20:], made.val.images)
    assert both.mean == made.mean  # of the training images alone, as before


def test_a_digest_is_of_both_in_their_order(tmp_path: Path) -> None:
    data = mapped(tmp_path)
    one, other = joined_split(data.train, data.test), joined_split(data.test, data.train)
    assert one.digest
    assert other.digest != one.digest
    unknown = Split(data.test.images, data.test.labels, data.mean, data.std)
    assert joined_split(data.train, unknown).digest == ""


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = mapped(tmp_path)
    once = joined(data)
    with pytest.raises(
        DataError, match=r"^dataset 'mapped' has no validation images: there is nothing to join$"
    ):
        joined(once)
    scaled = Split(data.test.images, data.test.labels, data.mean, (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"kind of labels or normalisation differ$"):
        joined_split(data.train, scaled)
    small = replace(data.test, images=data.test.images[:, :, :3])
    with pytest.raises(DataError, match=r"sizes differ$"):
        joined_split(data.train, small)
