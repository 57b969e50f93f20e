"""The moving average of weights: its values, who holds it when, and that it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stopping import StoppedError, assert_same, config, curve, stop_and_go, stop_at
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from connsearch.data import Dataset
from connsearch.nn import Network, build
from connsearch.spec import NetworkSpec
from connsearch.train import EpochRecord, TrainConfig, evaluate, load_trained, train
from connsearch.train.averaging import PREFIX, WeightAverage, decay_at

MakeNet = Callable[..., nn.Sequential]
BLOCK = {"topology": "dense", "aggregation": "depthwise", "n_layers": 3, "width": 4}
SPEC = NetworkSpec(input={"channels": 2, "height": 6, "width": 6}, n_classes=3, blocks=[BLOCK] * 2)


def compiled() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(SPEC, pipeline="fused")


def values_of(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {name: x.detach().double().numpy().copy() for name, x in model.state_dict().items()}


def after_each_epoch(
    model: nn.Module, dataset: Dataset, how: TrainConfig
) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Train, and return the values that the model has when each epoch is told."""
    seen = []
    train(model, dataset, how, seed=0, on_epoch=lambda record: seen.append(values_of(model)))
    return seen


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_weights_and_statistics_are_averaged_by_the_formula(
    small: Dataset, make_net: MakeNet, decay: float
) -> None:
    """One batch an epoch, so that the values after every step can be seen; averages move none of them."""
    how = {"epochs": 12, "batch_size": 70, "lr": 0.05}
    initial = values_of(make_net())
    moved = after_each_epoch(make_net(), small, config(**how))
    averaged = after_each_epoch(make_net(), small, config(**how, ema=decay))
    expected = initial
    for step, (values, found) in enumerate(zip(moved, averaged, strict=True)):
        d = min(decay, (1 + step) / (10 + step))
        expected = {name: d * mean + (1 - d) * values[name] for name, mean in expected.items()}
        for name, mean in expected.items():
            if name.endswith("num_batches_tracked"):
                assert found[name] == step + 1, name
            else:
                np.testing.assert_allclose(found[name], mean, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.abs(averaged[-1]["1.running_var"] - moved[-1]["1.running_var"]).max() > 1e-4


def test_it_is_torch_s_average_with_buffers(make_net: MakeNet) -> None:
    model, rng = make_net(), torch.Generator().manual_seed(1)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1), use_buffers=True)
    theirs.update_parameters(model)  # its first one is a copy
    ours = WeightAverage(model, 0.1)  # no step keeps less than a tenth
    for step in range(5):
        with torch.no_grad():
            for x in (*model.parameters(), *model.buffers()):
                if x.is_floating_point():
                    x.add_(torch.randn(x.shape, generator=rng))
        theirs.update_parameters(model)
        ours.update(step)
    expected = dict(theirs.module.state_dict())
    tensors = ours.capture()
    assert {f"{PREFIX}{n}" for n, x in expected.items() if x.is_floating_point()} == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name.removeprefix(PREFIX)])


def test_the_first_steps_keep_less() -> None:
    assert [decay_at(step, 0.999) for step in (0, 1, 90)] == pytest.approx([0.1, 2 / 11, 0.91])
    assert decay_at(8_990, 0.999) == decay_at(10**9, 0.999) == 0.999
    assert decay_at(8_980, 0.999) < 0.999
    assert decay_at(0, 0.05) == 0.05


@pytest.mark.parametrize("make", ["definition", "compiled", "sequential"])
def test_what_is_evaluated_is_what_remains(small: Dataset, make_net: MakeNet, make: str) -> None:
    model = {"definition": lambda: Network(SPEC), "compiled": compiled, "sequential": make_net}[make]()
    seen: list[EpochRecord] = []

    def look(record: EpochRecord) -> None:
        seen.append(record)
        assert evaluate(model, small.val) == (record.val_loss, record.val_error)

    result = train(model, small, config(ema=0.9), seed=0, on_epoch=look)
    assert len(seen) == 3
    assert evaluate(model, small.val) == (result.curve[-1].val_loss, result.curve[-1].val_error)
    again = {"definition": lambda: Network(SPEC), "compiled": compiled, "sequential": make_net}[make]()
    if make != "definition":  # whose weights are others every time
        plain = train(again, small, config(), seed=0)
        assert [r.train_loss for r in plain.curve] == [r.train_loss for r in result.curve], (
            "steps are the same"
        )
        assert plain.curve[0].val_loss != result.curve[0].val_loss


def test_no_average_is_no_difference(small: Dataset, make_net: MakeNet, path: Path) -> None:
    train(make_net(), small, config(), seed=0, checkpoint=path)
    assert not [name for name in load_file(path) if name.startswith(PREFIX)]


HOW: dict[str, dict[str, Any]] = {
    "averaged": {"ema": 0.9},
    "averaged, one cycle, in parts": {
        "ema": 0.99,
        "schedule": "one_cycle",
        "accumulate": 3,
        "grad_clip": 0.5,
    },
    "averaged, adam, mixed": {"ema": 0.5, "optimizer": "adam", "lr": 0.01, "mixup": 0.2, "cutout": 2},
    "bfloat16": {"precision": "bfloat16", "ema": 0.9},
    "channels last": {"layout": "channels_last"},
    "fast": {"recipe": "fast", "batch_size": 16},
    "delugenet": {"recipe": "delugenet", "epochs": 3, "batch_size": 16},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW.keys())
def test_stopped_after_any_epoch_it_goes_on(
    small: Dataset, make_net: MakeNet, tmp_path: Path, how: dict[str, Any]
) -> None:
    def made() -> nn.Module:
        return make_net(dropout=0.5)

    model = made()
    expected = train(model, small, config(**how), seed=1), model
    for number, stops in enumerate([[1], [2], [1, 2, 3]]):
        path = tmp_path / f"{number}.checkpoint"
        assert_same(stop_and_go(made, small, config(**how), path, stops, seed=1), expected)


@pytest.mark.parametrize("name", ["averaged, one cycle, in parts", "bfloat16", "fast"])
def test_a_compiled_network_goes_on(small: Dataset, path: Path, name: str) -> None:
    how, model = config(**HOW[name], epochs=2), compiled()
    expected = train(model, small, how, seed=1), model
    assert_same(stop_and_go(compiled, small, how, path, [1], seed=1), expected)


def test_the_same_model_goes_on(small: Dataset, make_net: MakeNet, path: Path) -> None:
    model, unbroken = make_net(), make_net()
    with pytest.raises(StoppedError):
        train(model, small, config(ema=0.9), seed=0, on_epoch=stop_at(2), checkpoint=path)
    found = train(model, small, config(ema=0.9), seed=0, checkpoint=path), model
    assert_same(found, (train(unbroken, small, config(ema=0.9), seed=0), unbroken))


def test_a_checkpoint_is_of_the_average(small: Dataset, path: Path) -> None:
    result = train(compiled(), small, config(ema=0.9), seed=0, checkpoint=path)
    _, error = evaluate(load_trained(path).network, small.val)
    assert error == result.val_error
    tensors = load_file(path)
    beside = {name.removeprefix(PREFIX): x for name, x in tensors.items() if name.startswith(PREFIX)}
    assert beside.keys() >= dict(compiled().named_parameters()).keys()
    assert any(not torch.equal(x, tensors[f"model/{name}"]) for name, x in beside.items())


def test_an_average_that_is_missing_is_refused(small: Dataset, make_net: MakeNet, path: Path) -> None:
    from stopping import forged

    from connsearch.errors import TrainError

    train(make_net(), small, config(ema=0.9), seed=0, checkpoint=path)
    name = f'"{PREFIX}0.weight":'.encode()
    assert name in path.read_bytes()
    path.write_bytes(forged(path.read_bytes().replace(name, name.replace(b"weight", b"height"))))
    with pytest.raises(TrainError, match=r"does not hold what its header says, KeyError\(.*: name another"):
        train(make_net(), small, config(ema=0.9), seed=0, checkpoint=path)


class Failing(nn.Linear):
    """Fails in its n-th step."""

    def __init__(self, good: int) -> None:
        super().__init__(72, 3)
        self.left = good

    def forward(self, images: Tensor) -> Tensor:
        self.left -= self.training
        if self.left < 0:
            raise KeyError("broken")
        return super().forward(images.flatten(1))


def test_a_failure_leaves_the_average(small: Dataset) -> None:
    """After the first epoch's steps there is one; two steps later the model fails."""
    model, seen = Failing(7), []
    with pytest.raises(KeyError, match="broken"):
        train(model, small, config(ema=0.9), seed=0, on_epoch=lambda record: seen.append(values_of(model)))
    (epoch,) = seen
    found = values_of(model)
    assert any(np.abs(found[name] - epoch[name]).max() > 0 for name in epoch), "of two more steps"
    assert all(np.abs(found[name] - epoch[name]).max() < 0.2 for name in epoch)


def test_it_stays_where_it_is_in_memory(small: Dataset, make_net: MakeNet) -> None:
    """What else holds a parameter goes on holding it, and layouts stay."""
    model = make_net()
    before = [(id(p), p.data_ptr()) for p in model.parameters()]
    curve(train(model, small, config(ema=0.9, layout="channels_last"), seed=0))
    kept = [(id(p), p.data_ptr()) for p in model.parameters()]
    assert [i for i, _ in kept] == [i for i, _ in before]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
