from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from connsearch.data import Augment, Dataset, Split, check_matches
from connsearch.errors import DataError


def split(count: int = 4, *, size: tuple[int, int, int] = (2, 3, 5), highest: int = 2) -> Split:
    images = torch.arange(count * size[0] * size[1] * size[2]).float().reshape(count, *size)
    return Split(images, torch.arange(count) % (highest + 1))


def dataset(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {"name": "made", "class_names": ("a", "b", "c")}
    fields |= {"train": split(6), "val": split(4), "test": split(5)}
    return Dataset(**(fields | changes))


def test_a_dataset_prints_itself_and_knows_its_shape() -> None:
    made = dataset()
    assert repr(made) == "Dataset(made: 2 x 3 x 5, 3 classes, 6 train / 4 val / 5 test)"
    assert repr(made.val) == "Split(4 images of 2 x 3 x 5)"
    assert (made.channels, made.height, made.width, made.n_classes) == (2, 3, 5, 3)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), r"images .* 4 dimensions, got .*\(2, 3, 4\)"),
        (torch.zeros(2, 1, 4, 4).double(), torch.zeros(2).long(), r"images must be torch.float32 .*float64"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), r"labels must be torch.int64 .*float32"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1).long(), r"labels must .* 1 dimensions"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), "a label per image, got 2 and 3"),
        (
            torch.zeros(0, 1, 4, 4),
            torch.zeros(0).long(),
            r"images with pixels, got shape \(0, 1, 4, 4\)",
        ),
        (torch.zeros(2, 0, 4, 4), torch.zeros(2).long(), r"needs images with pixels"),
        (torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1).long(), "images must be finite"),
        (torch.full((1, 1, 2, 2), torch.inf), torch.zeros(1).long(), "images must be finite"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, -1]), "labels must be 0 or more, got -1"),
    ],
)
def test_a_split_checks_itself(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Split(images, labels)


def test_a_split_that_is_there_already_is_not_moved() -> None:
    here = split()
    assert here.to("cpu") is here
    assert here.to(torch.device("cpu")) is here


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val": split(size=(1, 3, 5))},
            "val: images are 1 x 3 x 5, those of train 2 x 3 x 5",
        ),
        ({"test": split(size=(2, 5, 3))}, "dataset 'made': test: images are 2 x 5 x 3"),
        ({"test": split(highest=3)}, "dataset 'made': test: label 3 has no name, there are 3 classes"),
        ({"augment": Augment(shift=3)}, "dataset 'made': cannot shift 3 x 5 pixels by 3"),
        ({"mean": (0.0,), "std": (1.0,)}, "mean and std need 2 numbers each"),
        ({"mean": (0.0, 0.0)}, "mean and std need 2 numbers each"),
    ],
)
def test_a_dataset_checks_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(**changes)


def test_the_largest_shift_is_one_less_than_the_image() -> None:
    assert dataset(augment=Augment(shift=2)).augment.shift == 2
    with pytest.raises(DataError, match="shift is a number of pixels, 0 or more, got -1"):
        Augment(shift=-1)


def test_normalisation_uses_the_training_split_only() -> None:
    raw = torch.tensor([[1.0, 10.0], [3.0, 30.0]]).reshape(2, 2, 1, 1)
    labels = torch.tensor([0, 1])
    made = Dataset.normalised(
        "made",
        ["a", "b"],
        train=(raw, labels),
        val=(raw + 2, labels),
        test=(raw * 0, labels),
        augment=Augment(),
    )
    assert (made.mean, made.std) == ((2.0, 20.0), (1.0, 10.0))
    assert made.train.images.flatten().tolist() == [-1, -1, 1, 1]
    torch.testing.assert_close(made.val.images.flatten(), torch.tensor([1, -0.8, 3, 1.2]))
    assert made.black == tuple(made.test.images[0].flatten().tolist()) == (-2, -2)


def test_images_taken_as_they_are_are_black_at_zero() -> None:
    assert dataset().black == (0, 0)


def test_a_constant_channel_cannot_be_normalised() -> None:
    part = (torch.ones(2, 1, 2, 2), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="dataset 'flat': a channel of the training images is constant"):
        Dataset.normalised("flat", ["a", "b"], train=part, val=part, test=part, augment=Augment())


def test_a_network_that_fits_passes() -> None:
    check_matches(dataset(), channels=2, height=3, width=5, n_classes=3)


@pytest.mark.parametrize("wrong", ["channels", "height", "width", "n_classes"])
def test_a_network_that_does_not_fit_says_both_sides_and_the_way_out(wrong: str) -> None:
    sizes = {"channels": 2, "height": 3, "width": 5, "n_classes": 3} | {wrong: 9}
    expected = (
        "dataset 'made' holds 2 x 3 x 5 images of 3 classes, the network takes "
        f"{sizes['channels']} x {sizes['height']} x {sizes['width']} images and knows {sizes['n_classes']} "
        "classes: set input = { channels = 2, height = 3, width = 5 } and n_classes = 3"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        check_matches(dataset(), **sizes)
