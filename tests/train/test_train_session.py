"""Seeds trained into a directory: what is there in the end, whatever interrupted it."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from sessions import DATA, SPEC, Told, make_session

from connsearch.config import read_toml
from connsearch.data import joined, load_dataset
from connsearch.errors import TrainError
from connsearch.nn import build
from connsearch.spec import NetworkSpec
from connsearch.train import (
    EpochRecord,
    Summary,
    TrainConfig,
    TrainResult,
    evaluate,
    load_trained,
    read_summary,
    train,
    train_seeds,
)
from connsearch.train.processes import Processes

FILES = {
    "network.toml",
    "train.toml",
    "curve.csv",
    "checkpoint.safetensors",
    "weights.safetensors",
    "result.json",
}


def curve_of(folder: Path) -> list[dict[str, str]]:
    """Return the curve, times left out."""
    with (folder / "curve.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "weights.safetensors")


def assert_same(one: Path, other: Path) -> None:
    assert curve_of(one) == curve_of(other)
    theirs = weights_of(other)
    assert weights_of(one).keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in weights_of(one).items())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with seeds 0 and 4."""
    path = tmp_path_factory.mktemp("session") / "out"
    train_seeds(path, make_session(), (0, 4))
    return path


# ---- what is there in the end --------------------------------------------------------------------------


def test_the_files_say_what_was_trained(done: Path) -> None:
    assert {path.name for path in (done / "seed-4").iterdir()} == FILES
    assert NetworkSpec.from_toml(done / "seed-4" / "network.toml") == SPEC
    config = TrainConfig.from_dict(read_toml(done / "seed-4" / "train.toml"))
    assert config == make_session().config
    assert [row["epoch"] for row in curve_of(done / "seed-4")] == ["1", "2", "3"]


def test_a_seed_is_what_a_notebook_would_do(done: Path) -> None:
    session, data = make_session(), load_dataset(DATA)
    torch.manual_seed(4)
    model = build(SPEC, pipeline="none")
    found = train(model, data, session.config, seed=4)
    weights = weights_of(done / "seed-4")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    result = json.loads((done / "seed-4" / "result.json").read_text())
    assert result["val_error"] == found.val_error
    assert (result["test_loss"], result["test_error"]) == pytest.approx(evaluate(model, data.test))
    assert result["test_confusion"]["error"] == pytest.approx(result["test_error"])
    assert sum(map(sum, result["test_confusion"]["counts"])) == 40
    assert (result["splits"], result["train_images"], result["test_images"]) == (["train"], 64, 40)
    assert result["machine"]["processes"] == 1


def test_the_weights_say_whose_they_are(done: Path) -> None:
    trained = load_trained(done / "seed-0" / "weights.safetensors")
    assert trained.network.spec == SPEC
    assert trained.dataset == make_session().config.dataset


def test_the_summary_is_of_all_seeds(done: Path) -> None:
    summary = read_summary(done)
    assert summary is not None
    assert [result.seed for result in summary.results] == [0, 4]
    assert Summary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    with (done / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test_error"]) for row in rows] == [r.test_error for r in summary.results]
    assert rows[0]["test_mean_iou"] == ""
    error = summary.test_error
    assert error is not None
    assert summary.to_dict()["test_error"]["mean"] == error.mean


def test_the_test_images_change_nothing_but_the_test(done: Path, tmp_path: Path) -> None:
    other = DATA.replace("n_test=40", "n_test=7")
    train_seeds(tmp_path, make_session(dataset=other), (0,))
    assert_same(done / "seed-0", tmp_path / "seed-0")


def test_an_average_is_what_is_kept_and_tested(tmp_path: Path) -> None:
    summary = train_seeds(tmp_path, make_session(ema=0.9), (0,))
    network = load_trained(tmp_path / "seed-0" / "weights.safetensors").network
    assert evaluate(network, load_dataset(DATA).test)[1] == summary.results[0].test_error
    checkpoint = safetensors.torch.load_file(tmp_path / "seed-0" / "checkpoint.safetensors")
    weights = weights_of(tmp_path / "seed-0")
    assert all(torch.equal(value, checkpoint[f"model/{name}"]) for name, value in weights.items())


def test_a_compiled_network_leaves_the_same_names(tmp_path: Path) -> None:
    train_seeds(tmp_path, make_session(pipeline="default", epochs=1), (0,))
    assert load_trained(tmp_path / "seed-0" / "weights.safetensors").network.spec == SPEC


# ---- without validation --------------------------------------------------------------------------------


def test_all_but_the_test_images_train(tmp_path: Path) -> None:
    summary = train_seeds(tmp_path, make_session(join=True), (0,))
    assert (summary.splits, summary.train_images) == (("train", "val"), 96)
    (result,) = summary.results
    assert result.val_error is None
    assert result.test_error is not None
    assert set(curve_of(tmp_path / "seed-0")[0]) == {"epoch", "lr", "train_loss", "train_error"}
    assert str(summary).splitlines()[1].split() == [
        "seed",
        "epochs",
        "train",
        "error",
        "test",
        "error",
        "time",
    ]


def test_a_curve_without_validation_has_no_error_to_choose_by() -> None:
    data, config = joined(load_dataset(DATA)), make_session(epochs=1).config
    model = build(SPEC, pipeline="none")
    found = train(model, data, config, seed=0)
    assert (found.curve[0].val_loss, found.curve[0].val_error) == (None, None)
    assert EpochRecord.from_dict(found.curve[0].to_dict()) == found.curve[0]
    with pytest.raises(
        TrainError, match=r"^there is no validation error: the data set has no validation images$"
    ):
        _ = found.val_error


# ---- going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("join", [False, True], ids=["validated", "joined"])
def test_an_interrupted_session_goes_on_where_it_stopped(tmp_path: Path, join: bool) -> None:
    whole, session = tmp_path / "whole", make_session(join=join, ema=0.9)
    train_seeds(whole, session, (0, 1))
    stopped = Told(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        train_seeds(tmp_path / "cut", session, (0, 1), watcher=stopped)
    assert stopped.ends == [(0, True)]
    assert read_summary(tmp_path / "cut") is not None
    assert not (tmp_path / "cut" / "seed-1" / "result.json").exists()
    again = Told()
    train_seeds(tmp_path / "cut", session, (0, 1), watcher=again)
    assert again.ends == [(0, False), (1, True)]
    assert again.epochs == [(1, True), (2, True), (3, False)]
    for seed in (0, 1):
        assert_same(whole / f"seed-{seed}", tmp_path / "cut" / f"seed-{seed}")


def test_a_finished_seed_is_not_trained_again_and_others_may_follow(done: Path) -> None:
    told = Told()
    summary = train_seeds(done, make_session(), [4], watcher=told)
    assert (told.epochs, told.ends) == ([], [(4, False)])
    assert [result.seed for result in summary.results] == [0, 4]


def test_a_damaged_checkpoint_is_told_and_training_starts_over(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_seeds(tmp_path, make_session(), [0], watcher=Told(stop_after=2))
    file = tmp_path / "seed-0" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    told = Told()
    train_seeds(tmp_path, make_session(), [0], watcher=told)
    assert [epoch for epoch, _ in told.epochs] == [1, 2, 3]
    assert len(told.notes) == 1
    assert "the checkpoint is damaged" in told.notes[0]


def test_a_training_that_diverges_is_in_no_mean(tmp_path: Path) -> None:
    summary = train_seeds(tmp_path, make_session(lr=1e30, epochs=2), (0,))
    (result,) = summary.results
    assert result.diverged
    assert result.test_error is None
    assert summary.test_error is None
    assert not (tmp_path / "seed-0" / "weights.safetensors").exists()
    assert str(summary).endswith(
        "1 of 1 seeds diverged, a loss was not finite: they are in no mean; a lower lr may help"
    )
    told = Told()
    train_seeds(tmp_path, make_session(lr=1e30, epochs=2), (0,), watcher=told)
    assert told.ends == [(0, False)]


def test_each_process_asks_for_the_device_that_all_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for its own one, which training finds by itself."""
    asked = []

    class Several(Processes):
        def device(self, name: str) -> str:
            return {"cuda": "cpu"}[name]

    def trained(*args: Any, device: str, **more: Any) -> TrainResult:
        asked.append(device)
        return train(*args, device="cpu", **more)

    monkeypatch.setattr("connsearch.train.session.joined_processes", lambda name: nullcontext(Several()))
    monkeypatch.setattr("connsearch.train.session.train", trained)
    train_seeds(tmp_path, make_session(epochs=1), (0,), device="cuda")
    assert asked == ["cuda"]


def test_a_network_may_be_renamed_in_between(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_seeds(tmp_path / "out", make_session(), (0,), watcher=Told(stop_after=2))
    told, renamed = Told(), SPEC.model_copy(update={"name": "another"})
    train_seeds(tmp_path / "out", make_session(spec=renamed), (0,), watcher=told)
    assert told.epochs == [(1, True), (2, True), (3, False)]
    assert load_trained(tmp_path / "out" / "seed-0" / "weights.safetensors").network.spec.name == "another"


def test_memory_is_released_when_a_seed_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    released: list[list[tuple[int, bool]]] = []
    monkeypatch.setattr("connsearch.train.session.release", lambda: released.append(list(told.ends)))
    train_seeds(tmp_path / "out", make_session(epochs=1), [0, 1], watcher=told)
    assert released == [[(0, True)], [(0, True), (1, True)]]
