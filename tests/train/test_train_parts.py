"""Batches in parts: the gradient of the whole batch, at the memory of a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from stopping import config, curve
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data import Augment, Dataset
from connsearch.errors import SpecError
from connsearch.train import TrainConfig, train
from connsearch.train.loop import training_step
from connsearch.train.stepping import Numerics, parts
from connsearch.train.tasks import Classification, Segmentation

MakeNet = Callable[..., nn.Sequential]


@given(n_images=st.integers(2, 40), count=st.integers(1, 20))
def test_parts_are_the_batch_in_order_and_even(n_images: int, count: int) -> None:
    images, targets = torch.arange(n_images)[:, None, None, None], torch.arange(n_images)
    found = list(parts(images, targets, count, Classification(n_images)))
    sizes = [len(part) for part, _, _ in found]
    assert torch.equal(torch.cat([part for part, _, _ in found]), images)
    assert torch.equal(torch.cat([own for _, own, _ in found]), targets)
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == min(count, n_images // 2)
    assert [share for _, _, share in found] == pytest.approx([size / n_images for size in sizes])


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["labels", "shares", "maps"])
def test_losses_and_gradients_of_parts_are_those_of_the_batch(
    kind: str, smoothing: float, count: int
) -> None:
    """Against torch's own mean over what has a label."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(11, 2, 4, 4, generator=draw)
    weight = torch.randn(3, 2, 1, 1, generator=draw, requires_grad=True)
    maps = torch.randint(3, (11, 4, 4), generator=draw)
    maps[1:6, 1:] = 9  # void, and not alike in all parts
    labels, shares = torch.randint(3, (11,), generator=draw), torch.rand(11, 3, generator=draw)
    targets = {"labels": labels, "shares": shares, "maps": maps}[kind]
    task = Segmentation(3, 9) if kind == "maps" else Classification(3)

    def logits(x: Tensor) -> Tensor:
        found = F.conv2d(x, weight)
        return found if kind == "maps" else found.mean((2, 3))

    void = {"ignore_index": 9} if kind == "maps" else {}
    expected = F.cross_entropy(logits(images), targets, label_smoothing=smoothing, **void)
    divided = parts(images, targets, count, task)
    total = torch.stack([share * task.loss(logits(x), own, smoothing) for x, own, share in divided]).sum()
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-7)
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in (total, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_a_batch_without_any_label_is_no_loss() -> None:
    void = torch.full((4, 2, 2), 9)
    shares = [share for _, _, share in parts(torch.zeros(4, 1, 2, 2), void, 2, Segmentation(3, 9))]
    assert shares == [0.0, 0.0]


def plain() -> nn.Module:
    """A network without statistics of batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
        )


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"grad_clip": 0.05},
        {"mixup": 0.5, "cutout": 2},
        {"label_smoothing": 0.1, "ema": 0.9, "schedule": "one_cycle"},
        {"optimizer": "adamw", "lr": 0.003},
    ],
    ids=["plain", "clipped", "mixed", "averaged", "adamw"],
)
@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_without_norms_of_batches_parts_train_the_same(
    small: Dataset, how: dict[str, Any], accumulate: int
) -> None:
    moving = replace(small, augment=Augment(flip=True, shift=1))
    whole, divided = plain(), plain()
    expected = curve(train(whole, moving, config(**how), seed=0))
    found = curve(train(divided, moving, config(**how, accumulate=accumulate), seed=0))
    for old, new in zip(expected, found, strict=True):
        assert new == pytest.approx(old, rel=1e-4, abs=1e-6)
    for a, b in zip(divided.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_clipped_gradient_is_the_sum_of_parts(small: Dataset) -> None:
    """Clipped part by part it would be up to four times as long."""
    model = plain()
    before = [p.detach().clone() for p in model.parameters()]
    how = {"epochs": 1, "batch_size": 70, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    train(model, small, config(**how, lr=1.0, grad_clip=0.01, accumulate=4), seed=0)
    moved = [(p - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)]
    assert torch.stack(moved).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


class Watching(nn.Linear):
    """Notes how many images it sees at once while it trains."""

    def __init__(self) -> None:
        super().__init__(72, 3)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(len(images))
        return super().forward(images.flatten(1))


@pytest.mark.parametrize("batch_size", [16, 20, 70, 9])
@pytest.mark.parametrize("accumulate", [1, 3, 4])
def test_no_more_images_at_once_than_promised(small: Dataset, batch_size: int, accumulate: int) -> None:
    model, how = Watching(), config(epochs=1, batch_size=batch_size, accumulate=accumulate)
    train(model, small, how, seed=0)
    assert sum(model.seen) == 70
    assert 2 <= min(model.seen) <= max(model.seen) <= how.micro_batch_size
    model.seen.clear()
    training_step(model, small, how)()
    assert len(model.seen) == accumulate


def test_norms_see_parts(small: Dataset, make_net: MakeNet) -> None:
    counts = []
    for accumulate in (1, 2):
        net = make_net()
        train(net, small, config(epochs=1, accumulate=accumulate), seed=0)
        counts.append(int(net[1].num_batches_tracked))
    assert counts == [5, 10]


@pytest.mark.parametrize(("batch_size", "most"), [(64, 32), (9, 4), (2, 1)])
def test_parts_of_a_single_image_are_refused(batch_size: int, most: int) -> None:
    how = {"dataset": "digits", "batch_size": batch_size}
    TrainConfig.from_dict({**how, "accumulate": most})
    message = (
        f"^accumulate = {most + 1} leaves less than 2 of batch_size = {batch_size} images.* most {most}$"
    )
    with pytest.raises(SpecError, match=message):
        TrainConfig.from_dict({**how, "accumulate": most + 1})


class Inputs(nn.Module):
    """Notes what a convolution gets and gives, by whether it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)
        self.seen: dict[bool, tuple[bool, torch.dtype]] = {}

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        last = images.is_contiguous(memory_format=torch.channels_last)
        self.seen[self.training] = (last, found.dtype)
        logits: Tensor = self.head(found.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("how", "last", "dtype"),
    [
        ({}, False, torch.float32),
        ({"layout": "channels_last"}, True, torch.float32),
        ({"precision": "bfloat16"}, True, torch.bfloat16),
        ({"precision": "bfloat16", "layout": "channels_first"}, False, torch.bfloat16),
    ],
)
def test_precision_and_layout_are_those_asked_for(
    small: Dataset, how: dict[str, Any], last: bool, dtype: torch.dtype
) -> None:
    model = Inputs()
    result = train(model, small, config(**how), seed=0)
    assert model.seen[True] == (last, dtype)
    assert model.seen[False][1] == torch.float32, "evaluation is exact"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    assert Numerics(config(**how), torch.device("cpu")).bfloat16 == (dtype == torch.bfloat16)
