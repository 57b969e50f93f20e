"""Training on raw images, cutout and mixup: exact on images made by hand, seeded, and equal when resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from connsearch.data import Augment, Dataset, Split
from connsearch.errors import TrainError
from connsearch.train import TrainConfig, train
from connsearch.train.batches import Batches, hard_labels
from connsearch.train.evaluation import evaluate
from connsearch.train.identity import identity
from connsearch.train.result import EpochRecord

COUNT, SIZE = 12, (3, 6, 5)
MEAN, STD = (100.0, 90.0, 80.0), (50.0, 60.0, 70.0)


def raw(count: int = COUNT, *, augment: Augment = Augment(), seed: int = 0, classes: int = 3) -> Dataset:  # noqa: B008
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *SIZE), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % classes, MEAN, STD)
    return Dataset("raw", tuple("abcdefghijkl"[:classes]), split, split, split, augment, MEAN, STD)


def as_floats(dataset: Dataset) -> Dataset:
    """The same data set, normalised at once."""

    def split(part: Split) -> Split:
        mean, std = (np.float32(x)[:, None, None] for x in (part.mean, part.std))
        return Split(torch.from_numpy((part.images.numpy().astype(np.float32) - mean) / std), part.labels)

    parts = {name: split(part) for name, part in dataset._splits().items()}
    return replace(dataset, **parts)


def batches(dataset: Dataset, **changes: Any) -> Batches:
    fields: dict[str, Any] = {
        "batch_size": 4,
        "augment": True,
        "seeds": (0, 1),
    }
    return Batches(dataset, device=torch.device("cpu"), **(fields | changes))


def epoch(source: Batches) -> tuple[Tensor, Tensor]:
    images, targets = zip(*source.epoch(), strict=True)
    return torch.cat(images), torch.cat(targets)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_raw_images_give_the_batches_that_normalised_ones_give(flip: bool, shift: int) -> None:
    dataset = raw(augment=Augment(flip=flip, shift=shift))
    one, other = batches(dataset), batches(as_floats(dataset))
    for _ in range(3):
        (images, labels), (expected, expected_labels) = epoch(one), epoch(other)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)  # black is rounded differently
        assert torch.equal(labels, expected_labels)
        assert images.is_contiguous()


def test_what_a_shift_uncovers_is_black() -> None:
    dataset = raw(augment=Augment(shift=3))
    white = replace(
        dataset, train=Split(torch.full_like(dataset.train.images, 255), dataset.train.labels, MEAN, STD)
    )
    images, _ = epoch(batches(white))
    for channel in range(3):
        black, full = (
            np.float32(-MEAN[channel] / STD[channel]),
            np.float32((255 - MEAN[channel]) / STD[channel]),
        )
        found = np.unique(images[:, channel].numpy())
        np.testing.assert_allclose(found, [black, full], rtol=1e-6)


def holes(images: Tensor) -> npt.NDArray[np.bool_]:
    return np.asarray((images == 0).all(1))


def test_a_cutout_is_a_square_of_the_mean_that_may_stick_out() -> None:
    ones = torch.ones(400, 2, 6, 5)
    split = Split(ones, torch.arange(400) % 2)
    dataset = Dataset("ones", ("a", "b"), split, split, split)
    images, _ = epoch(batches(dataset, cutout=3))
    seen = set()
    for hole in holes(images):
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        seen.add((rows[0], rows[-1], columns[0], columns[-1]))
    spans = {(max(0, middle - 1), min(n - 1, middle + 1)) for n in (6,) for middle in range(n)}
    across = {(max(0, middle - 1), min(4, middle + 1)) for middle in range(5)}
    assert seen == {(*down, *right) for down in spans for right in across}
    assert set(np.unique(images)) == {0, 1}


def test_a_cutout_changes_nothing_else() -> None:
    dataset = raw(augment=Augment(flip=True, shift=1))
    (plain, labels), (cut, cut_labels) = epoch(batches(dataset)), epoch(batches(dataset, cutout=2))
    assert torch.equal(labels, cut_labels)
    assert torch.equal(torch.where(cut == 0, cut, plain), cut)
    assert holes(cut).any((1, 2)).all()


def test_mixup_mixes_an_image_and_its_label_with_the_one_before() -> None:
    dataset = raw(augment=Augment(flip=True, shift=1))
    plain, mixed = list(batches(dataset).epoch()), list(batches(dataset, mixup=0.5).epoch())
    shares = []
    for (images, labels), (found, targets) in zip(plain, mixed, strict=True):
        assert targets.shape == (len(labels), 3)
        hot = np.eye(3, dtype=np.float32)[labels]
        before = np.roll(np.arange(len(labels)), 1)
        for index in range(len(labels)):
            one, other = images[index].numpy(), images[before[index]].numpy()
            difference = (one - other).ravel()
            share = float((found[index].numpy() - other).ravel() @ difference / (difference @ difference))
            np.testing.assert_allclose(found[index], share * one + (1 - share) * other, atol=1e-5)
            expected = share * hot[index] + (1 - share) * hot[before[index]]
            np.testing.assert_allclose(targets[index], expected, atol=1e-5)
            shares.append(share)
    assert len(set(np.round(shares, 6))) == COUNT


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    source = batches(raw(20000, classes=2), batch_size=20000, mixup=0.4)
    shares = source._draw(20000).share.double()
    assert 0 <= shares.min() <= shares.max() <= 1
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # variance of Beta(a, a)


def test_the_label_of_a_mixed_image_is_the_one_with_the_most() -> None:
    assert hard_labels(torch.tensor([[0.2, 0.8], [0.6, 0.4]])).tolist() == [1, 0]
    labels = torch.tensor([2, 0])
    assert hard_labels(labels) is labels


def test_what_is_not_asked_for_draws_no_numbers() -> None:
    plain, cut = batches(raw()), batches(raw(), cutout=2)
    plain._draw(COUNT), cut._draw(COUNT)
    assert not torch.equal(plain.changes.get_state(), cut.changes.get_state())
    generator = torch.Generator().manual_seed(1)
    torch.randint(1, (COUNT, 2), generator=generator), torch.rand(COUNT, generator=generator)
    assert torch.equal(plain.changes.get_state(), generator.get_state())


def test_impossible_changes_are_told() -> None:
    with pytest.raises(TrainError, match="cutout = 6 is more than images of 6 x 5 pixels have: set"):
        batches(raw(), cutout=6)
    maps = Split(raw().train.images, torch.zeros(COUNT, 6, 5, dtype=torch.uint8), MEAN, STD)
    dense = Dataset("maps", ("a", "b"), maps, maps, maps)
    with pytest.raises(TrainError, match=r"mixup = 0\.2 mixes labels of images, not label maps: set mixup"):
        batches(dense, mixup=0.2)


@pytest.mark.parametrize("void", [-1, 11])
def test_label_maps_move_with_their_images(void: int) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(1, 4, (COUNT, 6, 5), generator=generator, dtype=torch.uint8)
    images = (maps[:, None] * 20).expand(-1, 3, -1, -1).contiguous()
    split = Split(images, maps, (0.0,) * 3, (20.0,) * 3)
    names = tuple("abcd")
    dataset = Dataset("maps", names, split, split, split, Augment(flip=True, shift=2), void=void)
    found, labels = epoch(batches(dataset))
    assert labels.dtype == torch.int64
    uncovered = found[:, 0] == 0
    assert uncovered.any()
    assert torch.equal(labels[~uncovered], found[:, 0][~uncovered].long())
    assert set(labels[uncovered].tolist()) == {void}


def config(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {"dataset": "digits", "epochs": 3, "batch_size": 4, "lr": 0.05}
    return TrainConfig(**(fields | changes))


RECIPES = [{}, {"cutout": 3}, {"mixup": 0.3}, {"cutout": 2, "mixup": 1.0, "label_smoothing": 0.1}]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "+".join(recipe) or "plain")
def test_resumed_training_equals_one_that_never_stopped(
    recipe: dict[str, Any], make_net: Callable[..., nn.Sequential], path: Path
) -> None:
    dataset = raw(augment=Augment(flip=True, shift=1))

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    def run(**options: Any) -> list[dict[str, Any]]:
        net = make_net(channels=3)
        result = train(net, dataset, config(**recipe), seed=3, **options)
        return [{**record.to_dict(), "seconds": 0} for record in result.curve]

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, on_epoch=stop)
    assert run(checkpoint=path) == whole
    assert run() == whole


def test_the_loss_of_mixed_images_is_that_of_both_labels(make_net: Callable[..., nn.Sequential]) -> None:
    dataset, whole = raw(), config(epochs=1, batch_size=COUNT, mixup=0.7)
    result = train(make_net(channels=3), dataset, whole, seed=5)
    order, changes, _ = (int(s) for s in np.random.SeedSequence(5).generate_state(3, np.uint64))
    source = batches(dataset, batch_size=COUNT, mixup=0.7, seeds=(order, changes))
    [(images, targets)] = source.epoch()
    logs = make_net(channels=3)(images).log_softmax(1).detach()
    expected = -sum(targets[i, k] * logs[i, k] for i in range(COUNT) for k in range(3)) / COUNT
    assert result.curve[0].train_loss == pytest.approx(float(expected), rel=1e-5)
    wrong = logs.argmax(1) != targets.argmax(1)
    assert result.curve[0].train_error == pytest.approx(float(wrong.float().mean()))


def test_evaluation_normalises_raw_images(make_net: Callable[..., nn.Sequential]) -> None:
    dataset, net = raw(30), make_net(channels=3)
    floats = as_floats(dataset)
    assert evaluate(net, dataset.val, batch_size=7) == pytest.approx(evaluate(net, floats.val, batch_size=7))


def test_a_training_knows_its_raw_images_and_how_they_are_scaled(
    make_net: Callable[..., nn.Sequential],
) -> None:
    net = make_net(channels=3)

    def data(dataset: Dataset) -> dict[str, Any]:
        described: dict[str, Any] = identity(net, dataset, config(), seed=0, device=torch.device("cpu"))[
            "data"
        ]
        return described

    dataset = raw()
    other = replace(dataset.train, std=(50.0, 60.0, 71.0))
    scaled = Dataset("raw", dataset.class_names, other, other, other, mean=MEAN, std=STD)
    assert data(dataset)["sha256"] == data(raw())["sha256"] != data(raw(seed=1))["sha256"]
    assert data(dataset) != data(scaled)
    known = [replace(dataset.train, digest=digest) for digest in ("x", "x", "y")]
    one, same, different = (data(replace(dataset, train=k, val=k))["sha256"] for k in known)
    assert one == same != different
