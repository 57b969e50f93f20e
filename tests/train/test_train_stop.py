"""A training that its caller ends, and a single step of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from connsearch.data import load_dataset
from connsearch.data.registry import DATASETS
from connsearch.train import train
from connsearch.train.config import TrainConfig
from connsearch.train.loop import training_step
from connsearch.train.result import EpochRecord, StopTraining, TrainResult

DATA = load_dataset(
    DATASETS.parse("synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32)")
)
CONFIG = TrainConfig(dataset=DATASETS.ref("synthetic"), epochs=4, batch_size=16, warmup_epochs=1.0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def stop_after(epoch: int, seen: list[int]) -> Any:
    def told(record: EpochRecord) -> None:
        seen.append(record.epoch)
        if record.epoch == epoch:
            raise StopTraining

    return told


def without_times(result: TrainResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.to_dict().items() if k != "seconds"} for record in result.curve]


def gradient_into(found: dict[nn.Parameter, torch.Tensor]) -> Callable[[torch.Tensor], None]:
    """Return a hook that keeps a parameter's gradient."""

    def hook(parameter: torch.Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        assert parameter.grad is not None
        found[parameter] = parameter.grad.clone()

    return hook


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_stopped_training_has_the_beginning_of_the_whole_curve(epoch: int) -> None:
    whole, seen = train(model(), DATA, CONFIG, seed=0), list[int]()
    stopped = train(model(), DATA, CONFIG, seed=0, on_epoch=stop_after(epoch, seen))
    assert without_times(stopped) == without_times(whole)[:epoch]
    assert seen == list(range(1, epoch + 1))
    assert not stopped.diverged
    assert stopped.val_error == whole.curve[epoch - 1].val_error


def test_one_that_went_further_ends_where_it_is_stopped(tmp_path: Path) -> None:
    whole = train(model(), DATA, CONFIG, seed=0, checkpoint=tmp_path / "state")
    seen: list[int] = []
    stopped = train(
        model(), DATA, CONFIG, seed=0, checkpoint=tmp_path / "state", on_epoch=stop_after(2, seen)
    )
    assert without_times(stopped) == without_times(whole)[:2]
    assert seen == [1, 2]


def test_another_error_ends_it_without_a_result() -> None:
    def broken(record: EpochRecord) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        train(model(), DATA, CONFIG, seed=0, on_epoch=broken)


def test_a_step_is_one_of_the_loop() -> None:
    """By hand: cross entropy, gradient, Nesterov momentum at the rate of the first step of the warm-up."""
    network, config = model(), CONFIG.model_copy(update={"augment": False})
    step = training_step(network, DATA, config)
    before = [p.detach().clone() for p in network.parameters()]
    gradients = dict[nn.Parameter, torch.Tensor]()
    hooks = [p.register_post_accumulate_grad_hook(gradient_into(gradients)) for p in network.parameters()]
    step()
    for hook in hooks:
        hook.remove()
    first = [p.detach().clone() for p in network.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, first, strict=True))
    rate = 0.1 / 4  # the first of four steps of an epoch of warm-up
    for p, q, parameter in zip(before, first, network.parameters(), strict=True):
        decayed = gradients[parameter] + 1e-4 * p
        torch.testing.assert_close(q, p - rate * (1 + 0.9) * decayed)
    step()
    assert network.training
