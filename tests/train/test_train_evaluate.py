from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from connsearch.data import Dataset, Split
from connsearch.errors import TrainError
from connsearch.train import evaluate


class Lookup(nn.Module):
    """Returns the first row of an image's first channel as its logits."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW[:, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 7, 20, 512])
def test_loss_and_error_are_those_of_the_formula(batch_size: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 5)) * 3, rng.integers(0, 5, 20)
    split = Split(torch.from_numpy(logits).float()[:, None, None], torch.from_numpy(labels))
    loss, error = evaluate(Lookup(), split, batch_size=batch_size)
    log_sum = np.log(np.exp(logits).sum(1))
    assert loss == pytest.approx((log_sum - logits[np.arange(20), labels]).mean(), rel=1e-5)
    assert error == (logits.argmax(1) != labels).mean()
    assert 0 < error < 1


def test_the_model_is_in_evaluation_mode_and_left_as_it_was(
    small: Dataset, make_net: Callable[..., nn.Sequential]
) -> None:
    net = make_net(dropout=0.9)
    net[1].eval()
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    first, second = evaluate(net, small.val), evaluate(net, small.val, batch_size=5)
    assert first == pytest.approx(second, rel=1e-6)
    assert [module.training for module in net.modules()] == modes
    assert len(set(modes)) == 2
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_modes_are_restored_when_the_model_fails(small: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(7, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        evaluate(net, small.val)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 2)), r"\(33, 2\)"),
        (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (72, 33))), r"\(72, 33\)"),
        (nn.Identity(), r"\(33, 2, 6, 6\)"),
    ],
    ids=["too few classes", "wrong batch", "no vector"],
)
def test_an_output_of_the_wrong_shape_is_named(small: Dataset, model: nn.Module, shape: str) -> None:
    with pytest.raises(TrainError, match=f"the model returns shape {shape} for 33 images of 3 classes"):
        evaluate(model, small.val)
