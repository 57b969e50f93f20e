"""Order and random changes of a batch, against numpy slicing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from connsearch.data import Augment, Dataset, Split, load_dataset
from connsearch.train.batches import Batches, steps_per_epoch

COUNT, SIZE = 11, (2, 5, 4)


def numbered(augment: Augment, *, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Dataset:
    """No two pixels of any two images are equal, and image n has label n."""
    images = torch.arange(1, COUNT * 40 + 1).float().reshape(COUNT, *SIZE)
    split = Split(images, torch.arange(COUNT))
    return Dataset("numbered", tuple(map(str, range(COUNT))), split, split, split, augment, mean, std)


def batches(
    dataset: Dataset, *, batch_size: int = 4, augment: bool = True, seeds: tuple[int, int] = (0, 1)
) -> Batches:
    return Batches(dataset, batch_size=batch_size, augment=augment, device=torch.device("cpu"), seeds=seeds)


def epoch(source: Batches) -> tuple[Tensor, Tensor]:
    images, labels = zip(*source.epoch(), strict=True)
    return torch.cat(images), torch.cat(labels)


def moved(
    image_CHW: npt.NDArray[np.float32], down: int, right: int, fill: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """The image moved by whole pixels, `fill` where nothing is left of it."""
    _, height, width = image_CHW.shape
    result = np.stack([np.full((height, width), value, np.float32) for value in fill])
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image_CHW[:, row - down, column - right]
    return result


@settings(deadline=None)
@given(n_images=st.integers(2, 3000), batch_size=st.integers(2, 300))
def test_batches_are_even_and_none_has_a_single_image(n_images: int, batch_size: int) -> None:
    n_steps = steps_per_epoch(n_images, batch_size)
    sizes = [len(part) for part in torch.arange(n_images).tensor_split(n_steps)]
    assert sum(sizes) == n_images
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)
    assert n_steps == -(-n_images // batch_size) or (batch_size == 2 and n_images % 2)


def test_an_epoch_sees_every_image_once_in_a_new_order() -> None:
    dataset = numbered(Augment())
    source = batches(dataset)
    assert [len(labels) for _, labels in source.epoch()] == [4, 4, 3]
    (images, first), (_, second) = epoch(source), epoch(source)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(COUNT))
    assert first.tolist() != second.tolist()
    assert torch.equal(images, dataset.train.images[first])


def test_each_seed_decides_its_own_stream() -> None:
    dataset = numbered(Augment(flip=True, shift=1))
    images, labels = epoch(batches(dataset, seeds=(3, 4)))
    same_images, same_labels = epoch(batches(dataset, seeds=(3, 4)))
    changed_images, same_order = epoch(batches(dataset, seeds=(3, 5)))
    _, other_order = epoch(batches(dataset, seeds=(6, 4)))
    assert torch.equal(images, same_images)
    assert torch.equal(labels, same_labels)
    assert torch.equal(labels, same_order)
    assert not torch.equal(images, changed_images)
    assert not torch.equal(labels, other_order)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_shift_moves_whole_images_by_at_most_its_pixels_everywhere(shift: int) -> None:
    dataset = numbered(Augment(shift=shift), mean=(1.0, 6.0), std=(2.0, 3.0))
    source, seen = batches(dataset), set()
    offsets = [(d, r) for d in range(-shift, shift + 1) for r in range(-shift, shift + 1)]
    for _ in range(30):
        for image, label in zip(*epoch(source), strict=True):
            original = dataset.train.images[label].numpy()
            found = [o for o in offsets if np.array_equal(moved(original, *o, (-0.5, -2.0)), image.numpy())]
            assert len(found) == 1
            seen.add(found[0])
    assert seen == set(offsets)


def test_a_flip_mirrors_some_images_left_to_right_and_leaves_the_others() -> None:
    dataset = numbered(Augment(flip=True))
    source, flipped = batches(dataset), []
    for _ in range(40):
        for image, label in zip(*epoch(source), strict=True):
            original = dataset.train.images[label].numpy()
            flipped.append(np.array_equal(image.numpy(), original[:, :, ::-1]))
            assert flipped[-1] or np.array_equal(image.numpy(), original)
    assert 0.4 < np.mean(flipped) < 0.6


def test_without_augmentation_images_stay() -> None:
    dataset = numbered(Augment(flip=True, shift=2))
    images, labels = epoch(batches(dataset, augment=False))
    assert torch.equal(images, dataset.train.images[labels])


def test_digits_are_moved_by_a_pixel_and_never_mirrored() -> None:
    digits = load_dataset("digits")
    images, _ = epoch(batches(digits, batch_size=64))
    source = batches(digits, batch_size=64)
    order = torch.randperm(1077, generator=torch.Generator().manual_seed(0))
    assert torch.equal(source.labels[order], epoch(source)[1])
    for image, original in zip(images[:100].numpy(), digits.train.images[order[:100]].numpy(), strict=True):
        assert any(
            np.array_equal(image, moved(original, down, right, digits.black).astype(np.float32))
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )


def test_batches_leave_the_data_set_alone() -> None:
    dataset = numbered(Augment(flip=True, shift=1))
    before = dataset.train.images.clone()
    for images, _ in batches(dataset).epoch():
        images.zero_()
    assert torch.equal(dataset.train.images, before)
