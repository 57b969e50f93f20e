"""A training that was stopped goes on as if it had not been: value for value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from stopping import StoppedError, assert_same, config, curve, poisoned, stop_and_go, stop_at
from torch import Tensor, nn

from connsearch.data import Augment, Dataset, load_dataset
from connsearch.data.synthetic import make_synthetic
from connsearch.graph import ConnectivityGraph, Node
from connsearch.nn import Network, build
from connsearch.spec import NetworkSpec
from connsearch.train import EpochRecord, train
from strategies import specs

MakeNet = Callable[..., nn.Sequential]

HOW: dict[str, dict[str, Any]] = {
    "sgd, cosine": {},
    "sgd, no momentum": {"momentum": 0.0},
    "sgd, step between epochs": {"schedule": "step", "milestones": [0.3, 0.6]},
    "sgd, warm-up into the second epoch": {"warmup_epochs": 1.4},
    "sgd, all else": {"decay_norms": False, "grad_clip": 0.1, "label_smoothing": 0.1, "weight_decay": 0.05},
    "adam, constant": {"optimizer": "adam", "lr": 0.01, "schedule": "constant"},
    "adamw, cosine": {"optimizer": "adamw", "lr": 0.01, "decay_norms": False, "weight_decay": 0.1},
    "odd batches": {"batch_size": 9},
    "one batch": {"batch_size": 70},
    "two threads": {"threads": 2},
    "torch's own threads": {"threads": 0},
    "as they are": {"augment": False},
}


@pytest.fixture
def moving(small: Dataset) -> Dataset:
    return replace(small, augment=Augment(flip=True, shift=2))


@pytest.mark.parametrize("how", HOW.values(), ids=HOW.keys())
def test_stopped_after_any_epoch_or_every_one(
    moving: Dataset, make_net: MakeNet, tmp_path: Path, how: dict[str, Any]
) -> None:
    def make() -> nn.Module:
        return make_net(dropout=0.5)

    model = make()
    expected = train(model, moving, config(**how), seed=1), model
    every = [[2]] if "threads" in how else [[1], [2], [3], [1, 2, 3], [2, 1, 1]]  # threads are slow here
    for number, stops in enumerate(every):
        path = tmp_path / f"{number}.checkpoint"
        assert_same(stop_and_go(make, moving, config(**how), path, stops, seed=1), expected)


def column(**values: Any) -> NetworkSpec:
    """Two blocks for images of the data set `small`."""
    block = {"topology": "dense", "aggregation": "sum", "n_layers": 3, "width": 4}
    shape = {"channels": 2, "height": 6, "width": 6}
    return NetworkSpec.from_dict({"input": shape, "n_classes": 3, "blocks": [block] * 2} | values)


def two_heads() -> NetworkSpec:
    nodes = (Node("stem", "stem"), Node("a"), Node("early", "head"), Node("b"), Node("late", "head"))
    graph = ConnectivityGraph(nodes, ((), (0,), (1,), (1,), (3,)))
    shape = {"channels": 2, "height": 6, "width": 6}
    return NetworkSpec.from_graph(graph, width=4, n_classes=3, input=shape)


def two_columns() -> NetworkSpec:
    nodes = (
        Node("stem", "stem"), Node("a", path=0), Node("b", path=1), Node("c", path=1), Node("both", "join"),
        Node("head", "head"),
    )  # fmt: skip
    graph = ConnectivityGraph(nodes, ((), (0,), (0,), (2,), (1, 3), (4,)))
    shape = {"channels": 2, "height": 6, "width": 6}
    return NetworkSpec.from_graph(
        graph, aggregation="mean", width=4, n_classes=3, input=shape, drop="drop_path(rate=0.3)"
    )


NETWORKS = {
    "stochastic depth": column(drop="stochastic_depth(survival=0.5)"),
    "swapout": column(drop="swapout(survival=0.5)"),
    "drop path": two_columns(),
    "two heads": two_heads(),
    "routed": column(blocks=[{"topology": "log_dense", "aggregation": "routed", "n_layers": 4, "width": 4}]),
    "depthwise": column(
        blocks=[{"topology": "dense", "aggregation": "depthwise", "n_layers": 3, "width": 4}] * 2
    ),
    "concat": column(blocks=[{"topology": "dense", "aggregation": "concat", "n_layers": 3, "width": 4}] * 2),
}


def maker(spec: NetworkSpec, pipeline: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Network(spec) if pipeline == "definition" else build(spec, pipeline=pipeline)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["definition", "none", "default", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_what_they_draw_go_on(moving: Dataset, tmp_path: Path, name: str, pipeline: str) -> None:
    make = maker(NETWORKS[name], pipeline)
    how = config(epochs=3, lr=0.02, batch_size=24)
    model = make()
    expected = train(model, moving, how, seed=5), model
    for stops in ([1], [2], [1, 2]):
        path = tmp_path / f"{stops}.checkpoint"
        assert_same(stop_and_go(make, moving, how, path, stops, seed=5), expected)


def test_these_networks_do_draw(moving: Dataset) -> None:
    """One batch an epoch and no changes of images: only drops tell seeds apart from the first step on."""
    still = replace(moving, augment=Augment())
    for name in ("stochastic depth", "swapout", "drop path"):
        make = maker(NETWORKS[name], "none")
        how = config(epochs=2, lr=0.02, batch_size=70)
        losses = {train(make(), still, how, seed=seed).curve[-1].train_loss for seed in range(4)}
        assert max(losses) - min(losses) > 1e-4, name


@settings(max_examples=15)
@given(
    spec=specs(drops=True, own_graph=False, max_layers=3, max_blocks=2),
    optimizer=st.sampled_from(["sgd", "adam"]),
    pipeline=st.sampled_from(["definition", "none", "fused"]),
    stops=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    seed=st.integers(0, 2**70),
)
def test_generated_networks_go_on(
    tmp_path_factory: pytest.TempPathFactory,
    spec: NetworkSpec,
    optimizer: str,
    pipeline: str,
    stops: list[int],
    seed: int,
) -> None:
    spec = spec.model_copy(update={"n_classes": max(2, spec.n_classes)})
    shape = (spec.input.channels, spec.input.height, spec.input.width)
    made = make_synthetic(sizes=(14, 6, 2), shape=shape, n_classes=spec.n_classes, noise=0.5, seed=0)
    how = config(epochs=3, lr=0.01, batch_size=7, optimizer=optimizer)
    make, path = maker(spec, pipeline), tmp_path_factory.mktemp("drawn") / "x.checkpoint"
    model = make()
    expected = train(model, made, how, seed=seed), model
    found = stop_and_go(make, made, how, path, sorted(stops), seed=seed)
    assert_same(found, expected)


def test_a_checkpoint_changes_no_value(moving: Dataset, make_net: MakeNet, tmp_path: Path) -> None:
    plain, kept = make_net(dropout=0.5), make_net(dropout=0.5)
    expected = train(plain, moving, config(), seed=0), plain
    assert_same((train(kept, moving, config(), seed=0, checkpoint=tmp_path / "x"), kept), expected)


def test_the_same_model_may_go_on(small: Dataset, make_net: MakeNet, tmp_path: Path) -> None:
    model, unbroken = make_net(dropout=0.5), make_net(dropout=0.5)
    with pytest.raises(StoppedError):
        train(model, small, config(), seed=0, on_epoch=stop_at(2), checkpoint=tmp_path / "x")
    result = train(model, small, config(), seed=0, checkpoint=str(tmp_path / "x"))
    assert_same((result, model), (train(unbroken, small, config(), seed=0), unbroken))


def test_a_finished_training_gives_its_result_without_training(
    small: Dataset, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_net()
    expected = train(model, small, config(), seed=0, checkpoint=tmp_path / "x")
    before = (tmp_path / "x").stat()
    again = poisoned(make_net())
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, images: pytest.fail("it runs"))
    seen: list[EpochRecord] = []
    result = train(again, small, config(), seed=0, checkpoint=tmp_path / "x", on_epoch=seen.append)
    assert result == expected
    assert_same((result, again), (expected, model))
    assert tuple(seen) == expected.curve
    assert (tmp_path / "x").stat() == before, "nothing was written"


def test_the_callback_sees_the_whole_curve_every_time(
    small: Dataset, make_net: MakeNet, tmp_path: Path
) -> None:
    seen: list[EpochRecord] = []

    def note(record: EpochRecord) -> None:
        seen.append(record)
        if record.epoch == 2 and len(seen) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(make_net(), small, config(), seed=0, on_epoch=note, checkpoint=tmp_path / "x")
    first = seen[:]
    result = train(make_net(), small, config(), seed=0, on_epoch=note, checkpoint=tmp_path / "x")
    assert first == seen[2:4] == list(result.curve[:2]), "seconds included"
    assert tuple(seen[2:]) == result.curve
    with pytest.raises(StoppedError):  # what it raises ends the training then, too
        train(make_net(), small, config(), seed=0, on_epoch=stop_at(1), checkpoint=tmp_path / "x")


def test_what_a_callback_draws_changes_nothing(small: Dataset, make_net: MakeNet, tmp_path: Path) -> None:
    def draw(record: EpochRecord) -> None:
        torch.rand(record.epoch)
        if record.epoch == 2 and not resumed:
            raise StoppedError

    resumed, expected = False, curve(train(make_net(dropout=0.5), small, config(), seed=0))
    with pytest.raises(StoppedError):
        train(make_net(dropout=0.5), small, config(), seed=0, on_epoch=draw, checkpoint=tmp_path / "x")
    resumed = True
    result = train(make_net(dropout=0.5), small, config(), seed=0, on_epoch=draw, checkpoint=tmp_path / "x")
    assert curve(result) == expected


def test_seconds_go_on_and_the_callers_random_state_stays(
    small: Dataset, make_net: MakeNet, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    result, model = stop_and_go(make_net, small, config(), tmp_path / "x", [1, 2])
    assert result.seconds == pytest.approx(sum(record.seconds for record in result.curve))
    assert all(record.seconds > 0 for record in result.curve)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())


class Counting(nn.Module):
    """Counts its training steps in buffers, one of them not in the state dict; nan after `good` of them."""

    def __init__(self, good: int = 1000) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear = nn.Linear(72, 3)
        self.good = good
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("odd", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(0, 2, dtype=torch.bfloat16))
        self.steps: Tensor
        self.odd: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            self.odd.logical_not_()
        logits: Tensor = self.linear(images.flatten(1)) * (1 + self.steps / 100)
        return logits * torch.nan if self.steps > self.good else logits


def test_buffers_that_are_in_no_state_dict_go_on(small: Dataset, tmp_path: Path) -> None:
    model = Counting()
    expected = train(model, small, config(), seed=0), model
    for stop in (1, 2, 3):
        result, again = stop_and_go(Counting, small, config(), tmp_path / str(stop), [stop])
        assert_same((result, again), expected)
        assert (int(again.steps), again.odd.tolist()) == (15, [True] * 3)


@pytest.mark.parametrize(("good", "epochs"), [(0, 0), (3, 0), (5, 1), (7, 1), (13, 2)])
def test_a_diverged_epoch_is_never_kept_and_diverges_again(
    small: Dataset, tmp_path: Path, good: int, epochs: int
) -> None:
    path = tmp_path / "x"
    first = train(Counting(good), small, config(), seed=0, checkpoint=path)
    assert (first.diverged, len(first.curve), path.exists()) == (True, epochs, epochs > 0)
    again = train(Counting(good), small, config(), seed=0, checkpoint=path)
    assert (again.diverged, curve(again)) == (True, curve(first))


class Tied(nn.Module):
    """The same weight under two names, turned in between."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.there, self.back, self.head = nn.Linear(72, 72), nn.Linear(72, 72), nn.Linear(72, 3)
        self.back.weight = self.there.weight

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.back(torch.relu(self.there(images.flatten(1)))))
        return logits


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_tied_parameters_go_on_tied(small: Dataset, tmp_path: Path, optimizer: str) -> None:
    model, how = Tied(), config(optimizer=optimizer, lr=0.01)
    expected = train(model, small, how, seed=0), model
    result, again = stop_and_go(Tied, small, how, tmp_path / "x", [1, 2])
    assert_same((result, again), expected)
    assert again.there.weight is again.back.weight
    assert {"model/there.weight", "model/back.weight"} < load_file(tmp_path / "x").keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["swapout", "depthwise", "concat"])
def test_a_gpu_goes_on(tmp_path: Path, name: str, optimizer: str, precision: str) -> None:
    digits = load_dataset("digits")
    spec = NETWORKS[name].model_copy(
        update={"input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 10}
    )
    make, how = maker(spec, "fused"), config(precision=precision, optimizer=optimizer, lr=0.02)
    model = make()
    expected = train(model, digits, how, seed=0, device="cuda"), model
    for stops in ([1], [1, 2]):
        path = tmp_path / f"{stops}"
        assert_same(stop_and_go(make, digits, how, path, stops, device="cuda"), expected)
