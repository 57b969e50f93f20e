"""The loop: what comes of it, what it promises about randomness, and what goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from connsearch.data import Augment, Dataset, Split, load_dataset
from connsearch.errors import TrainError
from connsearch.nn import Network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.train import EpochRecord, TrainConfig, TrainResult, evaluate, train
from connsearch.train.surroundings import repeatable

MakeNet = Callable[..., nn.Sequential]


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_dict({"dataset": "synthetic", "epochs": 2, "batch_size": 16} | values)


def curve(result: TrainResult) -> list[dict[str, float]]:
    """The curve without its times."""
    return [{k: v for k, v in epoch.to_dict().items() if k != "seconds"} for epoch in result.curve]


class Forbidden:
    def __getattr__(self, name: str) -> Never:
        raise AssertionError(f"test.{name} was read")


# What comes of it


def test_a_small_network_reads_digits(make_net: MakeNet) -> None:
    digits = load_dataset("digits")
    net = make_net(channels=1, n_classes=10, width=16, depth=2)
    result = train(net, digits, config(epochs=8, batch_size=32), seed=0)
    assert result.val_error < 0.08
    loss, error = evaluate(net, digits.val)
    assert (loss, error) == (result.curve[-1].val_loss, result.val_error)
    assert all(0 <= epoch.train_error <= 1 and epoch.seconds > 0 for epoch in result.curve)
    assert result.seconds == pytest.approx(sum(epoch.seconds for epoch in result.curve))


def test_equal_seeds_give_identical_curves_and_weights(small: Dataset, make_net: MakeNet) -> None:
    moving = replace(small, augment=Augment(flip=True, shift=1))
    nets, curves = [], []
    for seed, noise in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(noise)
        nets.append(make_net(dropout=0.5))
        curves.append(curve(train(nets[-1], moving, config(), seed=seed)))
    assert curves[0] == curves[1]
    for name, value in nets[0].state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[name])
    assert curves[0] != curves[2]


@pytest.mark.parametrize("seed", [0, 2**63, 2**200])
def test_any_seed_from_0_on_works_and_counts(small: Dataset, make_net: MakeNet, seed: int) -> None:
    results = [curve(train(make_net(), small, config(epochs=1), seed=s)) for s in (seed, seed + 1)]
    assert results[0] != results[1]


def test_dropout_is_seeded_too(small: Dataset) -> None:
    """The order of a single batch changes nothing here, only dropout can tell seeds apart."""
    linear = nn.Linear(72, 3)
    how = config(epochs=1, batch_size=70)
    losses = []
    for seed in (0, 0, 1):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 3))
        net[2].load_state_dict(linear.state_dict())
        losses.append(train(net, small, how, seed=seed).curve[0].train_loss)
    assert losses[0] == losses[1]
    assert losses[0] != pytest.approx(losses[2], rel=1e-5)


def test_the_callers_random_state_and_the_models_modes_are_left_alone(
    small: Dataset, make_net: MakeNet
) -> None:
    net = make_net(dropout=0.5).eval()
    before = torch.get_rng_state()
    train(net, small, config(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in net.modules())
    assert net[1].num_batches_tracked == 10, "trains in training mode all the same"


def test_what_a_callback_raises_ends_training_and_leaves_the_state_alone(
    small: Dataset, make_net: MakeNet
) -> None:
    seen: list[EpochRecord] = []

    def prune(record: EpochRecord) -> None:
        seen.append(record)
        if record.epoch == 2:
            raise KeyError("pruned")

    before = torch.get_rng_state()
    with pytest.raises(KeyError, match="pruned"):
        train(make_net(), small, config(epochs=5), seed=0, on_epoch=prune)
    assert [record.epoch for record in seen] == [1, 2]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callback_sees_the_curve(small: Dataset, make_net: MakeNet) -> None:
    seen: list[EpochRecord] = []
    result = train(make_net(), small, config(), seed=0, on_epoch=seen.append)
    assert tuple(seen) == result.curve
    assert json.loads(json.dumps(seen[0].to_dict())) == seen[0].to_dict()
    assert list(seen[0].to_dict()) == [
        "epoch", "lr", "train_loss", "train_error", "val_loss", "val_error", "seconds",
    ]  # fmt: skip


def test_the_test_split_is_never_read(small: Dataset, make_net: MakeNet) -> None:
    expected = train(make_net(), small, config(), seed=0)
    sealed = replace(small)
    object.__setattr__(sealed, "test", Forbidden())
    assert curve(train(make_net(), sealed, config(), seed=0)) == curve(expected)


def test_validation_images_change_no_weight(small: Dataset, make_net: MakeNet) -> None:
    nets = make_net(), make_net()
    train(nets[0], small, config(), seed=0)
    train(nets[1], replace(small, val=small.test), config(), seed=0)
    for name, value in nets[0].state_dict().items():
        assert torch.equal(value, nets[1].state_dict()[name])


def test_switches_do_what_they_say(small: Dataset, make_net: MakeNet) -> None:
    moving = replace(small, augment=Augment(shift=2))
    plain = curve(train(make_net(), small, config(), seed=0))
    assert curve(train(make_net(), moving, config(), seed=0)) != plain
    assert curve(train(make_net(), moving, config(augment=False), seed=0)) == plain
    assert curve(train(make_net(), small, config(precision="float32"), seed=0)) == plain


# What goes wrong


def test_a_rate_far_too_high_is_divergence(small: Dataset, make_net: MakeNet) -> None:
    net = nn.Sequential(make_net()[0], nn.Flatten(), nn.Linear(8 * 36, 3))
    result = train(net, small, config(epochs=50, lr=1e6), seed=0)
    assert result.diverged
    assert result.val_error == 1.0
    assert len(result.curve) < 50
    assert all(np.isfinite(list(record.to_dict().values())).all() for record in result.curve)


class NanAfter(nn.Module):
    """A linear model whose output is nan from a call on, in one of its modes."""

    def __init__(self, calls: int, *, training: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(72, 3)
        self.left, self.mode, self.calls = calls, training, 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.calls += 1
        self.left -= self.training is self.mode
        logits: Tensor = self.linear(images_BCHW.flatten(1))
        return logits if self.left >= 0 or self.training is not self.mode else logits * torch.nan


@pytest.mark.parametrize(
    ("training", "good", "epochs", "calls"),
    [(True, 0, 0, 1), (True, 4, 0, 5), (True, 5, 1, 7), (True, 7, 1, 9), (False, 1, 1, 12)],
)
def test_the_first_loss_that_is_not_finite_stops_at_once(
    small: Dataset, training: bool, good: int, epochs: int, calls: int
) -> None:
    """Five steps and one evaluation per epoch; `good` of the kind in question work."""
    model = NanAfter(good, training=training)
    seen: list[EpochRecord] = []
    result = train(model, small, config(epochs=4), seed=0, on_epoch=seen.append)
    assert (result.diverged, result.val_error) == (True, 1.0)
    assert len(result.curve) == len(seen) == epochs
    assert model.calls == calls
    assert result.seconds >= sum(record.seconds for record in result.curve)
    for parameter in model.parameters():
        assert torch.isfinite(parameter).all()


def test_a_data_set_smaller_than_a_batch_is_one_batch(make_net: MakeNet) -> None:
    made = load_dataset("synthetic(n_train=2, n_val=1, n_test=1, channels=2, height=6, width=6, n_classes=3)")
    assert len(train(make_net(), made, config(batch_size=64), seed=0).curve) == 2


def test_one_image_over_is_no_batch_of_its_own(small: Dataset) -> None:
    """Batch normalisation after global pooling refuses a single image."""
    odd = replace(small, train=Split(small.train.images[:33], small.train.labels[:33]))
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(72), nn.Linear(72, 3))
    assert not train(net, odd, config(batch_size=16), seed=0).diverged


def test_a_single_training_image_is_refused(make_net: MakeNet) -> None:
    made = load_dataset("synthetic(n_train=2, n_classes=2)")
    one = replace(made, train=Split(made.train.images[:1], made.train.labels[:1]))
    with pytest.raises(TrainError, match="dataset 'synthetic' has 1 training image: at least 2 are needed"):
        train(make_net(), one, config(), seed=0)


def test_a_negative_seed_is_refused(small: Dataset, make_net: MakeNet) -> None:
    with pytest.raises(TrainError, match="seed must be 0 or more, got -1"):
        train(make_net(), small, config(), seed=-1)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        *(
            (name, f"^unknown device '{name}': use 'cpu', 'cuda' or 'cuda:<number>'$")
            for name in ("gpu", "mps", "xpu", "meta", "vulkan", "cuda:-1", "")
        ),
        ("cuda:99", r"device 'cuda:99' is not there, \d+ CUDA devices are: use 'cpu' or another one"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    small: Dataset, make_net: MakeNet, device: str, message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        train(make_net(), small, config(), seed=0, device=device)


def test_a_model_without_parameters_is_refused(small: Dataset, make_net: MakeNet) -> None:
    with pytest.raises(TrainError, match="Flatten has no trainable parameters"):
        train(nn.Flatten(), small, config(), seed=0)
    with pytest.raises(TrainError, match="Sequential has no trainable parameters"):
        train(make_net().requires_grad_(False), small, config(), seed=0)


def test_a_model_of_too_few_classes_is_refused(small: Dataset, make_net: MakeNet) -> None:
    with pytest.raises(TrainError, match=r"returns shape \(14, 2\) for 14 images of 3 classes"):
        train(make_net(n_classes=2), small, config(), seed=0)


def kernels() -> tuple[object, ...]:
    cudnn, filled = torch.backends.cudnn, torch.utils.deterministic.fill_uninitialized_memory
    return cudnn.deterministic, cudnn.benchmark, filled, torch.get_deterministic_debug_mode()


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_kernels_on_a_gpu_repeat_themselves_while_it_trains(
    mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr("torch.backends.cudnn.benchmark", True)
    torch.set_deterministic_debug_mode(mode)
    before = kernels()
    try:
        with repeatable(torch.device("cpu")):
            assert kernels() == before
        with repeatable(torch.device("cuda")):
            assert kernels() == (True, False, False, max(mode, 1))
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert kernels() == before
        with pytest.raises(KeyError, match="stopped"), repeatable(torch.device("cuda")):
            raise KeyError("stopped")
        assert kernels() == before
    finally:
        torch.set_deterministic_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_a_gpu_gives_the_same_twice(aggregation: str, precision: str) -> None:
    spec = NetworkSpec(
        input={"channels": 1, "height": 8, "width": 8},
        blocks=[{"aggregation": aggregation, "n_layers": 3, "width": 16}] * 2,
    )
    curves = []
    for _ in range(2):
        torch.manual_seed(0)
        result = train(
            Network(spec),
            load_dataset("digits"),
            config(epochs=2, precision=precision),
            seed=0,
            device="cuda",
        )
        curves.append(curve(result))
    assert curves[0] == curves[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_gpu_learns_the_same(make_net: MakeNet, precision: str) -> None:
    digits = load_dataset("digits")
    net = make_net(channels=1, n_classes=10, width=16, depth=2)
    before = torch.cuda.get_rng_state()
    result = train(net, digits, config(epochs=8, batch_size=32, precision=precision), seed=0, device="cuda")
    assert result.val_error < 0.08
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert next(net.parameters()).dtype == torch.float32
