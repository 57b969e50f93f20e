from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.optim import SGD, lr_scheduler

from connsearch.errors import SpecError
from connsearch.train import TrainConfig, learning_rate


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_dict({"dataset": "digits", "epochs": 10, "lr": 0.5} | values)


def rates(schedule: TrainConfig, steps_per_epoch: int = 10) -> list[float]:
    return [
        learning_rate(schedule, step, steps_per_epoch) for step in range(schedule.epochs * steps_per_epoch)
    ]


def torch_rates(kind: Any, *args: Any, n_steps: int = 100, **kwargs: Any) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = kind(optimizer, *args, **kwargs)
    found = []
    for _ in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_that_of_torch_and_ends_near_zero() -> None:
    found = rates(config(schedule="cosine"))
    assert found == pytest.approx(torch_rates(lr_scheduler.CosineAnnealingLR, 100))
    assert found[0] == 0.5
    assert found[50] == pytest.approx(0.25)
    assert 0 < found[-1] < 0.5 * 3e-4


@pytest.mark.parametrize(("peak", "rise"), [(0.25, 25), (0.3, 30), (0.001, 1), (0.99, 99), (0.999, 100)])
def test_one_cycle_is_that_of_torch_in_straight_lines(peak: float, rise: int) -> None:
    found = rates(config(schedule="one_cycle", peak=peak))
    if 1 < rise < 100:  # torch has no phases of one step
        expected = torch_rates(
            lr_scheduler.OneCycleLR,
            max_lr=0.5,
            total_steps=100,
            pct_start=rise / 100,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=rise,
            final_div_factor=(101 - rise) / rise,
        )
        assert found == pytest.approx(expected)
    assert found.index(0.5) == rise - 1
    assert found[-1] == (0.5 if rise == 100 else pytest.approx(0.5 / (101 - rise)))


def test_one_cycle_rises_and_falls_in_equal_steps() -> None:
    found = rates(config(schedule="one_cycle", peak=0.25, lr=1.0), steps_per_epoch=2)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == pytest.approx([left / 16 for left in range(15, 0, -1)])


def test_step_is_that_of_torch() -> None:
    found = rates(config(schedule="step", milestones=(0.3, 0.75), gamma=0.2))
    assert found == pytest.approx(torch_rates(lr_scheduler.MultiStepLR, [30, 75], gamma=0.2))


@pytest.mark.parametrize("milestone", [0.07, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58])
def test_a_milestone_acts_at_its_step_whatever_the_rounding(milestone: float) -> None:
    found = rates(config(schedule="step", milestones=(milestone,)))
    at = round(100 * milestone)
    assert found[at - 1 : at + 1] == [0.5, pytest.approx(0.05)]


def test_constant_is_constant() -> None:
    assert set(rates(config(schedule="constant"))) == {0.5}
    assert set(rates(config(schedule="step", milestones=()))) == {0.5}


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_warm_up_rises_to_the_full_rate_and_hands_over_to_the_schedule(schedule: str) -> None:
    found = rates(config(schedule=schedule, warmup_epochs=1.5))
    assert found[:15] == pytest.approx([0.5 * (step + 1) / 15 for step in range(15)])
    assert found[14] == found[15] == 0.5
    assert (found[16] < 0.5) == (schedule == "cosine")


def test_one_cycle_takes_no_warm_up() -> None:
    config(schedule="one_cycle", warmup_epochs=0.0)
    message = "^warmup_epochs = 0.5 is not for 'one_cycle', which rises by itself: set peak, and warmup_"
    with pytest.raises(SpecError, match=message):
        config(schedule="one_cycle", warmup_epochs=0.5)


def test_cosine_after_warm_up_spans_the_steps_that_are_left() -> None:
    found = rates(config(schedule="cosine", warmup_epochs=2))
    assert found[20:] == pytest.approx(torch_rates(lr_scheduler.CosineAnnealingLR, 80, n_steps=80))


def test_milestones_count_the_warm_up() -> None:
    found = rates(config(schedule="step", milestones=(0.5,), warmup_epochs=2))
    assert found[49:51] == [0.5, pytest.approx(0.05)]


@settings(deadline=None)
@given(
    schedule=st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
    epochs=st.integers(1, 5),
    steps_per_epoch=st.integers(1, 7),
    share=st.floats(0.001, 0.99),
)
def test_a_rate_is_positive_and_at_most_the_highest(
    schedule: str, epochs: int, steps_per_epoch: int, share: float
) -> None:
    rise = {"peak": share} if schedule == "one_cycle" else {"warmup_epochs": share * epochs}
    found = rates(config(schedule=schedule, epochs=epochs, **rise), steps_per_epoch)
    assert all(0 < rate <= 0.5 for rate in found)
    assert max(found) == 0.5
