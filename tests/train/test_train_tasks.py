"""What is minimised and counted, against the formulas, with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from connsearch.data import Dataset, Split
from connsearch.errors import DataError, TrainError
from connsearch.train.tasks import Classification, Segmentation, median_frequency, task_of

VOID = 5


def maps(seed: int = 0, *, k: int = 4, size: tuple[int, int, int] = (3, 5, 7)) -> tuple[Tensor, Tensor]:
    """Return logits B K H W and labels B H W, a third of them void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size[0], k, *size[1:], generator=generator)
    labels = torch.randint(k, size, generator=generator)
    return logits, torch.where(torch.rand(size, generator=generator) < 0.33, VOID, labels)


def cross_entropy(logits: Tensor, labels: Tensor, weights: np.ndarray, smoothing: float) -> float:
    """Return the weighted mean over pixels that are not void, pixel by pixel."""
    total = amount = 0.0
    rows = logits.double().permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy()
    for row, label in zip(rows, labels.flatten().tolist(), strict=True):
        if label == VOID:
            continue
        minus_log = np.log(np.exp(row).sum()) - row
        hard, even = weights[label] * minus_log[label], (weights * minus_log).mean()
        total += (1 - smoothing) * hard + smoothing * even
        amount += weights[label]
    return total / amount


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [0.5, 2.0, 1.0, 0.1]])
def test_the_loss_of_maps_is_that_of_the_formula(weights: list[float], smoothing: float) -> None:
    logits, labels = maps()
    task = Segmentation(4, VOID, torch.tensor(weights))
    expected = cross_entropy(logits, labels, np.array(weights), smoothing)
    assert task.loss(logits, labels, smoothing).item() == pytest.approx(expected, rel=1e-5)


def test_void_pixels_change_no_loss_and_get_no_gradient() -> None:
    logits, labels = maps()
    task = Segmentation(4, VOID)
    known = labels != VOID
    noise = torch.where(known[:, None], 0.0, 100 * torch.randn(logits.shape))
    assert torch.equal(task.loss(logits, labels), task.loss(logits + noise, labels))
    assert torch.equal(task.wrong(logits, labels), task.wrong(logits + noise, labels))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(logits, labels, 0.1), logits)
    assert torch.equal(gradient.abs().sum(1) > 0, known)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 0.1])])
def test_parts_of_a_batch_add_up(weights: Tensor | None) -> None:
    logits, labels = maps()
    labels[1] = VOID  # a part without any label
    task = Segmentation(4, VOID, weights)
    parts = [(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    total = sum(task.loss(x, y, 0.1) * task.amount(y) for x, y in parts)
    assert (total / task.amount(labels)).item() == pytest.approx(
        task.loss(logits, labels, 0.1).item(), rel=1e-5
    )
    assert sum(task.wrong(x, y) for x, y in parts) == task.wrong(logits, labels)
    assert sum(task.count(y) for _, y in parts) == task.count(labels) == int((labels != VOID).sum())
    assert torch.equal(sum(task.confusion(x, y) for x, y in parts), task.confusion(logits, labels))


def test_a_batch_without_any_label_costs_nothing() -> None:
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    loss = Segmentation(4, VOID).loss(logits, torch.full((2, 3, 3), VOID))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_wrong_pixels_and_confusion_are_counted_one_by_one() -> None:
    logits, labels = maps(1)
    expected = np.zeros((4, 4), int)
    for true, predicted in zip(labels.flatten().tolist(), logits.argmax(1).flatten().tolist(), strict=True):
        if true != VOID:
            expected[true, predicted] += 1
    task = Segmentation(4, VOID)
    np.testing.assert_array_equal(task.confusion(logits, labels).numpy(), expected)
    assert task.wrong(logits, labels) == expected.sum() - expected.trace()


def test_a_coarser_head_is_compared_at_the_resolution_of_the_labels() -> None:
    logits, labels = maps(size=(2, 4, 6))
    coarse = logits[:, :, ::2, ::2]
    doubled = torch.nn.functional.interpolate(coarse, (4, 6), mode="bilinear")
    task = Segmentation(4, VOID)
    assert torch.equal(task.loss(coarse, labels), task.loss(doubled, labels))
    task.check(logits, labels)
    with pytest.raises(
        TrainError, match=r"returns shape \(2, 4, 2, 3\) for 2 label maps of 4 x 6 pixels and 4"
    ):
        task.check(coarse, labels)


@pytest.mark.parametrize("shape", [(2, 4), (1, 4, 4, 6), (2, 3, 4, 6), (2, 4, 6, 4)])
def test_an_output_that_is_no_map_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(TrainError, match="it must return one number per image, class and pixel"):
        Segmentation(4, VOID).check(torch.zeros(shape), torch.zeros(2, 4, 6, dtype=torch.int64))


def test_images_of_one_label_are_as_torch_has_them() -> None:
    logits, labels = torch.randn(9, 4), torch.randint(4, (9,))
    weights, shares = torch.tensor([0.5, 2.0, 1.0, 0.1]), torch.rand(9, 4).softmax(1)
    for target in (labels, shares):
        for weight in (None, weights):
            task = Classification(4, weights=weight)
            expected = torch.nn.functional.cross_entropy(logits, target, weight, label_smoothing=0.1)
            torch.testing.assert_close(task.loss(logits, target, 0.1), expected)
    assert Classification(4).count(labels) == Classification(4).amount(shares) == 9


# ---- weights of classes --------------------------------------------------------------------------------


def dataset(labels: Tensor, void: int = VOID, n_classes: int = 4) -> Dataset:
    images = (
        torch.zeros(len(labels), 1, *labels.shape[1:])
        if labels.ndim > 1
        else torch.zeros(len(labels), 1, 2, 2)
    )
    split = Split(images, labels)
    return Dataset("x", tuple("abcd"[:n_classes]), split, split, split, void=void)


def test_median_frequency_is_that_of_the_paper() -> None:
    first = torch.tensor([[0, 0, 0, 1], [0, 0, 0, VOID]], dtype=torch.uint8)  # of 7: 6 of 0, 1 of 1
    second = torch.tensor([[0, 0, 2, 2], [2, 2, VOID, VOID]], dtype=torch.uint8)  # of 6: 2 of 0, 4 of 2
    weights = median_frequency(Split(torch.zeros(2, 1, 2, 4), torch.stack([first, second])), 4, VOID)
    frequency = np.array([8 / 13, 1 / 7, 4 / 6])
    np.testing.assert_allclose(weights[:3], np.median(frequency) / frequency, rtol=1e-6)
    assert weights[3] == 0  # never seen


def test_median_frequency_of_images_is_by_their_shares() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    assert median_frequency(dataset(labels).train, 3).tolist() == pytest.approx([0.5, 1.0, 3.0])


def test_the_task_follows_from_the_labels() -> None:
    pixels = torch.tensor([[[0, 1], [VOID, 3]]] * 2, dtype=torch.uint8)
    task = task_of(dataset(pixels), "median_frequency")
    assert (type(task), task.void, task.n_classes) == (Segmentation, VOID, 4)
    assert task.weights.tolist() == [1, 1, 0, 1]
    task = task_of(dataset(torch.tensor([0, 1, 2])))
    assert (type(task), task.void, task.weights) == (Classification, -1, None)
    with pytest.raises(DataError, match=r"dataset 'x': every training pixel is void \(5\)"):
        task_of(dataset(torch.full((2, 2, 2), VOID, dtype=torch.uint8)))


def test_255_is_a_label_like_any_other_where_nothing_is_void() -> None:
    """Compared as numbers of 8 bits, -1 would be 255."""
    labels = torch.tensor([[[0, 1], [255, 1]]], dtype=torch.uint8).repeat(2, 1, 1)
    split = Split(torch.zeros(2, 1, 2, 2), labels)
    assert split.largest_label() == 255
    assert split.largest_label(255) == 1
    with pytest.raises(DataError, match="label 255 has no name, there are 2 classes"):
        Dataset("maps", ("a", "b"), split, split, split)
    weights = median_frequency(split, 256)
    assert weights[[0, 1, 255]].tolist() == [1.0, 0.5, 1.0]
