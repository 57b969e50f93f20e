"""Trainings that are stopped and go on, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from connsearch.data import Dataset
from connsearch.train import EpochRecord, TrainConfig, TrainResult, train
from connsearch.train.checkpoint import DIGEST

Make = Callable[[], nn.Module]


class StoppedError(Exception):
    """What the callback of a test raises."""


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_dict({"dataset": "synthetic", "epochs": 3, "batch_size": 16} | values)


def curve(result: TrainResult) -> list[dict[str, float]]:
    """The curve without its times."""
    return [{k: v for k, v in epoch.to_dict().items() if k != "seconds"} for epoch in result.curve]


def stop_at(epoch: int) -> Callable[[EpochRecord], None]:
    def stop(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise StoppedError

    return stop


def poisoned(model: nn.Module) -> nn.Module:
    """The model with nan or 99 for every number that it holds."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 99)
    return model


def header_of(path: Path) -> dict[str, Any]:
    """What the metadata of a checkpoint say, as any reader of safetensors files finds it."""
    with safe_open(path, framework="pt") as file:
        (content,) = file.metadata().values()
    header: dict[str, Any] = json.loads(content)
    return header


def epochs_of(path: Path) -> int:
    return len(header_of(path)["curve"])


def forged(content: bytes) -> bytes:
    """Content with the checksum that it ought to have."""
    before, after = content[: DIGEST.start], content[DIGEST.stop :]
    return before + hashlib.sha256(before + after).hexdigest().encode() + after


def stop_and_go(
    make: Make,
    dataset: Dataset,
    how: TrainConfig,
    path: Path,
    stops: Sequence[int],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[TrainResult, nn.Module]:
    """Train with a stop after each of the given epochs; all but the first model start with poison."""
    model = make()
    for stop in stops:
        with pytest.raises(StoppedError):
            train(model, dataset, how, seed=seed, on_epoch=stop_at(stop), checkpoint=path, device=device)
        model = poisoned(make())
    return train(model, dataset, how, seed=seed, checkpoint=path, device=device), model


def assert_same(found: tuple[TrainResult, nn.Module], expected: tuple[TrainResult, nn.Module]) -> None:
    """Equal curves but for seconds, and equal weights, bit for bit."""
    assert curve(found[0]) == curve(expected[0])
    assert found[0].diverged == expected[0].diverged
    state = expected[1].state_dict()
    assert found[1].state_dict().keys() == state.keys()
    for name, value in found[1].state_dict().items():
        assert torch.equal(value, state[name]), name
