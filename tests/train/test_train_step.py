"""What a training step computes, against numpy, and what each optimizer is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from connsearch.data import Dataset, Split
from connsearch.nn import Network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.train import TrainConfig, train
from connsearch.train.optim import make_optimizer, parameter_groups

MakeNet = Callable[..., nn.Sequential]
Array = npt.NDArray[np.float64]


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_dict({"dataset": "synthetic", "epochs": 2, "batch_size": 16} | values)


def linear_problem() -> tuple[Dataset, Array, Array]:
    """Six images of two pixels in three classes, as a data set and as numpy."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 2)), np.array([0, 1, 2, 0, 1, 2])
    split = Split(torch.from_numpy(x).float().reshape(6, 1, 1, 2), torch.from_numpy(labels))
    return Dataset("line", ("a", "b", "c"), split, split, split), x, np.eye(3)[labels]


def gradient(w_KF: Array, b_K: Array, x: Array, target: Array) -> tuple[Array, Array, float]:
    logits = x @ w_KF.T + b_K
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = float(-(target * np.log(p)).sum(1).mean())
    return (p - target).T @ x / len(x), (p - target).mean(0), loss


@pytest.mark.parametrize("decay_norms", [True, False])
def test_steps_are_those_of_nesterov_momentum_with_smoothing_and_decay(decay_norms: bool) -> None:
    """y = m y + g, w = w - lr (g + m y), with g the gradient plus decay times w."""
    lr, momentum, decay, smoothing = 0.3, 0.8, 0.05, 0.1
    dataset, x, target = linear_problem()
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    weight, bias = (p.detach().double().numpy().copy() for p in model.parameters())
    velocity: list[Array] = [np.zeros_like(weight), np.zeros_like(bias)]
    smoothed = target * (1 - smoothing) + smoothing / 3
    losses = []
    for _ in range(3):
        *gradients, loss = gradient(weight, bias, x, smoothed)
        losses.append(loss)
        for i, (value, rate) in enumerate(((weight, decay), (bias, decay if decay_norms else 0.0))):
            g = gradients[i] + rate * value
            velocity[i] = momentum * velocity[i] + g
            value -= lr * (g + momentum * velocity[i])
    result = train(
        model,
        dataset,
        config(
            epochs=3,
            lr=lr,
            momentum=momentum,
            weight_decay=decay,
            decay_norms=decay_norms,
            label_smoothing=smoothing,
            schedule="constant",
        ),
        seed=0,
    )
    for parameter, expected in zip(model.parameters(), (weight, bias), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert [epoch.train_loss for epoch in result.curve] == pytest.approx(losses, rel=1e-5)
    _, _, val_loss = gradient(weight, bias, x, target)
    assert result.curve[-1].val_loss == pytest.approx(val_loss, rel=1e-5)
    assert result.val_error == pytest.approx((np.argmax(x @ weight.T + bias, 1) != target.argmax(1)).mean())


@pytest.mark.parametrize(("clip", "length"), [(0.01, 0.01), (1e6, None), (0, None)])
def test_the_gradient_is_clipped_to_its_limit(clip: float, length: float | None) -> None:
    dataset, x, target = linear_problem()
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    before = [p.detach().double().numpy().copy() for p in model.parameters()]
    *gradients, _ = gradient(*before, x, target)
    train(model, dataset, config(epochs=1, lr=1.0, momentum=0.0, weight_decay=0.0, grad_clip=clip), seed=0)
    moved = [b - p.detach().numpy() for b, p in zip(before, model.parameters(), strict=True)]
    full = float(np.sqrt(sum((g**2).sum() for g in gradients)))
    expected = full if length is None else length
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(expected, rel=1e-3)


def test_the_rate_follows_the_schedule(small: Dataset, make_net: MakeNet) -> None:
    result = train(make_net(), small, config(epochs=4, lr=0.2, schedule="step", milestones=(0.5,)), seed=0)
    assert [epoch.lr for epoch in result.curve] == pytest.approx([0.2, 0.2, 0.02, 0.02])
    assert [epoch.epoch for epoch in result.curve] == [1, 2, 3, 4]


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_scales_and_shifts_of_a_real_network_do_not_decay(aggregation: str) -> None:
    """Convolutions and linear layers are told by the ends of their parameters' names and their dimensions."""
    network = Network(NetworkSpec(blocks=[{"aggregation": aggregation, "n_layers": 3, "width": 4}] * 2))
    groups = parameter_groups(network, config(weight_decay=0.5, decay_norms=False))
    rates = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    owners = {f"{name}.{key}": module for name, module in network.named_modules()
              for key, _ in module.named_parameters(recurse=False)}  # fmt: skip
    for name, parameter in network.named_parameters():
        is_weight = name.endswith(".weight") and type(owners[name]).__name__ in ("Conv2d", "Features")
        assert rates[id(parameter)] == (0.5 if is_weight else 0.0), name
    assert len(rates) == len(list(network.parameters()))


def test_weights_of_transposed_convolutions_decay() -> None:
    layers = nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Linear(2, 2))
    decaying, free = parameter_groups(layers, config(weight_decay=0.5, decay_norms=False))
    assert [id(p) for p in decaying["params"]] == [id(layers[0].weight), id(layers[2].weight)]
    assert len(free["params"]) == 4


@pytest.mark.parametrize(
    ("name", "kind", "lr"), [("sgd", SGD, 0.1), ("adam", Adam, 0.01), ("adamw", AdamW, 0.01)]
)
def test_every_optimizer_learns(small: Dataset, make_net: MakeNet, name: str, kind: type, lr: float) -> None:
    how = config(epochs=10, optimizer=name, lr=lr)
    assert type(make_optimizer(make_net(), how, torch.device("cpu"))) is kind
    result = train(make_net(), small, how, seed=0)
    assert result.curve[-1].train_loss < 0.5 * result.curve[0].train_loss
    assert result.val_error < 0.4


def test_norms_and_biases_decay_only_if_asked(make_net: MakeNet) -> None:
    net = make_net()
    (everything,) = parameter_groups(net, config(weight_decay=0.5))
    assert (len(everything["params"]), everything["weight_decay"]) == (8, 0.5)
    decaying, free = parameter_groups(net, config(weight_decay=0.5, decay_norms=False))
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decaying["params"]} == {2, 4}
    assert {p.ndim for p in free["params"]} == {1}
    norms = [p for module in net.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()]
    assert {id(p) for p in norms} < {id(p) for p in free["params"]}
