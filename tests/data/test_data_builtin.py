"""The built-in data sets, against scikit-learn's raw digits and a ridge regression in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import datasets

from connsearch.data import Augment, Dataset, Split, load_dataset, registry
from connsearch.errors import DataError


def raw_rows(dataset: Dataset, split: Split) -> list[tuple[int, ...]]:
    """Return (label, 64 raw pixels) for each image, undoing the normalisation."""
    raw = split.images.double().flatten(1) * dataset.std[0] + dataset.mean[0]
    torch.testing.assert_close(raw, raw.round(), atol=1e-5, rtol=0)
    return [
        (label, *pixels) for label, pixels in zip(split.labels.tolist(), raw.round().tolist(), strict=True)
    ]


def test_digits_are_all_there_once() -> None:
    digits, raw = load_dataset("digits"), datasets.load_digits()
    rows = [row for split in (digits.train, digits.val, digits.test) for row in raw_rows(digits, split)]
    expected = [(label, *pixels) for label, pixels in zip(raw.target, raw.data, strict=True)]
    assert sorted(rows) == sorted(expected)


def test_digits_are_split_by_class() -> None:
    digits, raw = load_dataset("digits"), datasets.load_digits()
    total_K = np.bincount(raw.target)
    for split, size in ((digits.train, 1077), (digits.val, 360), (digits.test, 360)):
        assert len(split) == size
        share_K = np.bincount(split.labels.numpy()) - total_K * size / 1797
        assert np.abs(share_K).max() <= 1


def test_the_digits_split_never_changes() -> None:
    digits = load_dataset("digits")
    assert repr(digits) == "Dataset(digits: 1 x 8 x 8, 10 classes, 1077 train / 360 val / 360 test)"
    assert digits.test.labels[:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]
    assert digits.val.labels[:12].tolist() == [5, 0, 5, 9, 7, 1, 8, 1, 9, 2, 5, 2]


def test_a_mirrored_digit_is_no_digit() -> None:
    assert load_dataset("digits").augment == Augment(flip=False, shift=1)


def test_synthetic_follows_its_parameters() -> None:
    made = load_dataset(
        "synthetic(n_train=21, n_val=14, n_test=7, channels=2, height=5, width=9, n_classes=7)"
    )
    assert repr(made) == "Dataset(synthetic: 2 x 5 x 9, 7 classes, 21 train / 14 val / 7 test)"
    assert np.bincount(made.train.labels).tolist() == [3] * 7
    assert made.augment == Augment()


def test_synthetic_is_a_function_of_its_parameters() -> None:
    one, other = (load_dataset(f"synthetic(n_train=16, seed={seed})") for seed in (1, 2))
    registry._load.cache_clear()
    again = load_dataset("synthetic(n_train=16, seed=1)")
    assert again is not one
    assert torch.equal(again.train.images, one.train.images)
    assert torch.equal(again.test.labels, one.test.labels)
    assert not torch.equal(other.train.images, one.train.images)


def test_synthetic_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    load_dataset("synthetic(n_train=4, seed=77)")
    assert torch.equal(torch.get_rng_state(), before)


def test_without_noise_images_of_a_class_are_shifts_of_each_other() -> None:
    made = load_dataset("synthetic(n_train=40, noise=0, n_classes=2, height=8, width=8, channels=1)")
    images, labels = made.train.images[:, 0].numpy(), made.train.labels.numpy()
    first = images[labels == 0]
    for image in first:
        shifts = [np.roll(first[0], (r, c), (0, 1)) for r in range(8) for c in range(8)]
        assert min(np.abs(image - shifted).max() for shifted in shifts) < 1e-5
    assert len({image.tobytes() for image in first}) > 5


def ridge_error(train: Split, test: Split, n_classes: int) -> float:
    def features(split: Split) -> npt.NDArray[np.float64]:
        flat = split.images.flatten(1).double().numpy()
        return np.hstack([flat, np.ones((len(flat), 1))])

    x, target = features(train), np.eye(n_classes)[train.labels]
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ target)
    return float((np.argmax(features(test) @ weights, 1) != test.labels.numpy()).mean())


def test_synthetic_is_learnable_but_not_trivially() -> None:
    made = load_dataset("synthetic")
    assert 0.3 < ridge_error(made.train, made.val, 10) < 0.7
    noisy = load_dataset("synthetic(noise=100)")
    assert ridge_error(noisy.train, noisy.val, 10) > 0.8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("n_train=0", "n_train must be 1 or more, got 0"),
        ("n_val=-1", "n_val must be 1 or more, got -1"),
        ("n_test=0", "n_test must be 1 or more, got 0"),
        ("channels=0", "channels must be 1 or more, got 0"),
        ("height=0", "height must be 1 or more, got 0"),
        ("width=0", "width must be 1 or more, got 0"),
        ("n_classes=1", "n_classes must be 2 or more, got 1"),
        ("seed=-1", "seed must be 0 or more, got -1"),
        (f"seed={2**64}", f"seed must be at most {2**64 - 1}, got {2**64}"),
        (
            "n_train=99999999999999999999",
            "99999999999999999999 images of 3 x 16 x 16 are .* numbers, more than",
        ),
        (
            "height=3000000",
            "512 images of 3 x 3000000 x 16 are 73728000000 numbers, more than 4294967296: ask",
        ),
        ("noise=-0.5", "noise must be finite and 0 or more, got -0.5"),
    ],
)
def test_an_impossible_parameter_is_named(parameters: str, message: str) -> None:
    with pytest.raises(DataError, match=f"dataset 'synthetic': {message}"):
        load_dataset(f"synthetic({parameters})")


def test_the_greatest_seed_is_one() -> None:
    assert len(load_dataset(f"synthetic(n_train=4, seed={2**64 - 1})").train) == 4


def test_the_smallest_synthetic_exists() -> None:
    made = load_dataset("synthetic(n_train=2, n_val=1, n_test=1, channels=1, height=1, width=1, n_classes=2)")
    assert (made.height, made.width, len(made.train)) == (1, 1, 2)
