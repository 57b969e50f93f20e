from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from connsearch.data import Dataset, load_dataset


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on networks of this size, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small() -> Dataset:
    """70 training images of 2 x 6 x 6 in 3 classes."""
    return load_dataset(
        "synthetic(n_train=70, n_val=33, n_test=9, channels=2, height=6, width=6, n_classes=3, noise=0.3)"
    )


@pytest.fixture
def make_net() -> Callable[..., nn.Sequential]:
    """A convolutional network with the same weights every time; dropout if asked for."""

    def make(
        channels: int = 2, n_classes: int = 3, width: int = 8, depth: int = 1, dropout: float = 0.0
    ) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
            for _ in range(depth):
                layers += [
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=1, bias=False),
                ]
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout)]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_classes))

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a checkpoint is to lie, alone in its directory."""
    return tmp_path / "trial.checkpoint"
