"""Several processes train as one does, and end together. Here they are on one machine, by gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from torch import nn

from connsearch.errors import TrainError
from connsearch.train.parallel import uses_all_parameters
from connsearch.train.processes import own_device
from connsearch.train.synced_norms import SYNCED, synced_norms
from connsearch.train.torchrun import Launch, launched, refuse_several, tells

pytestmark = pytest.mark.slow  # processes that import torch

Found = dict[str, Any]
NORMALIZED = {"aggregation": "depthwise"}  # which normalises each source

AS_ONE: dict[str, Found] = {
    "no norms": {},
    "odd batches": {"config": {"batch_size": 9}, "n_train": 71},
    "two or three images a batch": {"config": {"batch_size": 3}, "n_train": 23},
    "mixed, cut": {"config": {"mixup": 0.4, "cutout": 2, "batch_size": 9}},
    "accumulated, clipped": {"config": {"accumulate": 3, "grad_clip": 0.1, "batch_size": 14}},
    "weighted classes": {"config": {"class_weights": "median_frequency", "batch_size": 9}},
    "unused, frozen": {"model": ["odd"]},
    "norms": {"model": ["normed"], "config": {"sync_norms": True, "batch_size": 9}},
    "adamw, average": {"model": ["normed"], "config": {"sync_norms": True, "optimizer": "adamw", "ema": 0.9}},
    "network": {"model": ["column"], "config": {"sync_norms": True}},
    "fused": {"model": ["column", {"pipeline": "fused"}], "config": {"sync_norms": True}},
    "norms of sources": {"model": ["column", NORMALIZED], "config": {"sync_norms": True}},
    "two heads": {"model": ["heads"], "config": {"sync_norms": True}},
    "pixels, void ones": {"model": ["pixels"], "config": {"batch_size": 5}, "n_train": 23},
}
"""What gives the curve of a single process."""

APART: dict[str, Found] = {
    "norms apart": {"model": ["normed"], "config": {"ema": 0.9}},
    "fused, norms apart": {"model": ["column", {"pipeline": "fused"} | NORMALIZED]},
    "routed": {"model": ["column", {"aggregation": "routed"}]},
    "drops": {"model": ["column", {"drop": "stochastic_depth(survival=0.5)"}]},
    "bfloat16": {"model": ["normed"], "config": {"sync_norms": True, "precision": "bfloat16"}},
    "used by one": {"model": ["odd", {"by_first": True}]},
    "diverging in one": {"model": ["diverging"]},
    "stopped": {"stop": 2},
}
"""What gives a curve of its own, the same in all processes."""


def together_in(folder: Path, trainings: list[Found], size: int = 2, seconds: float = 120) -> list[Any]:
    """Return what each of several processes found in each training."""
    program = [sys.executable, together.__file__, str(size), json.dumps(trainings), str(folder)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=seconds)
    assert ran.returncode == 0, ran.stderr
    found: list[Any] = json.loads(ran.stdout)
    return found


def curve(found: Found) -> list[list[float]]:
    """Return a curve without its times."""
    return [[value for key, value in epoch.items() if key != "seconds"] for epoch in found["curve"]]


def same(found: list[Found]) -> Found:
    """Return what all processes found alike; only the first one calls back."""
    for other in found[1:]:
        assert "error" not in other, other["message"]
        assert {**other, "told": found[0]["told"]} == found[0]
        assert other["told"] == []
    return found[0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Found]]:
    """What two processes found in all trainings of this file but the slow ones; starting them takes long."""
    folder = tmp_path_factory.mktemp("together")
    dropping: Found = {"model": ["plain", {"dropout": 0.5}], "config": {"batch_size": 9, "ema": 0.5}}
    kept = {**dropping, "checkpoint": str(folder / "x.checkpoint")}
    trainings: dict[str, Found] = {
        **AS_ONE,
        **APART,
        "unbroken": dropping,
        "broken off": {**kept, "fails": "callback"},
        "resumed": kept,
        "other": {**kept, "config": {"batch_size": 9, "ema": 0.5, "lr": 0.01}},
        "nowhere": {"checkpoint": str(folder / "nowhere" / "x")},
        "few images": {"model": ["normed"], "config": {"batch_size": 3}},
        "nothing to train": {"model": ["odd", {"trains": False}]},
        "another seed": {"fails": "seed", "fail": 1},
        "raising": {"fails": "raise", "fail": 1},
    }
    processes = together_in(folder, list(trainings.values()))
    found: dict[str, Any] = dict(zip(trainings, zip(*processes, strict=True), strict=True))
    found["kept"] = ({"checkpoint": kept["checkpoint"]},)
    return lambda name: list(found[name])


@pytest.mark.parametrize("name", AS_ONE)
def test_the_curve_of_a_single_process(ran: Callable[[str], list[Found]], name: str) -> None:
    found, alone = same(ran(name)), together.training(**AS_ONE[name])
    for epoch, expected in zip(curve(found), curve(alone), strict=True):
        assert epoch == pytest.approx(expected, abs=1e-6)
    assert found["kinds"] == alone["kinds"], "norms are what they were"


@pytest.mark.parametrize("name", APART)
def test_processes_stay_alike(ran: Callable[[str], list[Found]], name: str) -> None:
    found = same(ran(name))
    assert found["told"] == [epoch["epoch"] for epoch in found["curve"]]
    assert len(found["curve"]) == {"stopped": 2, "diverging in one": 1}.get(name, 3)
    assert found["diverged"] == (name == "diverging in one")


def test_each_process_draws_for_itself(ran: Callable[[str], list[Found]]) -> None:
    alone = together.training(["plain", {"dropout": 0.5}], {"batch_size": 9, "ema": 0.5})
    assert curve(same(ran("unbroken")))[0][2] != pytest.approx(curve(alone)[0][2], rel=1e-5)


def test_going_on_equals_never_stopped_drawn_numbers_included(ran: Callable[[str], list[Found]]) -> None:
    for found in ran("broken off"):
        assert found["message"] == "no more of this", "what the first one's callback raises ends all"
    unbroken, resumed = same(ran("unbroken")), same(ran("resumed"))
    assert curve(resumed) == curve(unbroken)
    assert resumed["weights"] == unbroken["weights"]


def test_errors_are_of_all_processes_and_told_by_one(ran: Callable[[str], list[Found]]) -> None:
    expected = {
        "other": ("CheckpointError", "is of another training: config.lr is 0.1 there, 0.01 here"),
        "nowhere": ("TrainError", "a checkpoint cannot be written there: No such file or directory"),
        "few images": ("TrainError", "batch_size = 3 leaves 1 of a batch's images to some of 2 processes"),
        "nothing to train": ("TrainError", "Odd has no trainable parameters: there is nothing to train"),
        "another seed": ("TrainError", "process 1 trains something else: seed is 1 there, 0 in process 0"),
    }
    for name, (kind, text) in expected.items():
        found = ran(name)
        assert [each["error"] for each in found] == [kind] * 2, name
        assert all(text in each["message"] for each in found), name
        assert sorted(each["told"] for each in found) == [False, True], name


def test_an_error_in_one_process_ends_the_others_with_its_reason(ran: Callable[[str], list[Found]]) -> None:
    first, second = ran("raising")
    assert (second["error"], second["message"]) == ("ValueError", "it is broken")
    assert first["message"] == "process 1 of this training ended: ValueError: it is broken"
    assert first["told"], "by the one that it happened to"
    assert first["seconds"] < 20


def test_a_checkpoint_knows_how_many_processes_it_is_of(ran: Callable[[str], list[Found]]) -> None:
    (kept,) = ran("kept")
    with pytest.raises(TrainError, match=r"machine.processes is 2 there, 1 here: name another file"):
        together.training(["plain", {"dropout": 0.5}], {"batch_size": 9, "ema": 0.5}, **kept)


# ---- what needs no second process ----------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    def start(rank: int, size: int, local_rank: int) -> None:
        for name, value in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), (rank, size, local_rank), strict=True):
            monkeypatch.setenv(name, str(value))

    return start


def test_the_environment_says_which_process_this_is(
    started: Callable[[int, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launched() is None
    started(3, 4, 1)
    assert launched() == Launch(3, 4, 1)
    started(0, 1, 0)
    assert launched() is None, "the only one is alone"
    started(4, 4, 0)
    with pytest.raises(TrainError, match="the environment has RANK=4, WORLD_SIZE=4, LOCAL_RANK=0"):
        launched()
    monkeypatch.delenv("LOCAL_RANK")
    assert launched() is None, "set by somebody for something else"


def test_what_one_process_does_alone_refuses_several(started: Callable[[int, int, int], None]) -> None:
    refuse_several("a study", "do not")
    started(1, 2, 1)
    with pytest.raises(TrainError, match=r"a study was started by torchrun in 2 processes.*: do not"):
        refuse_several("a study", "do not")


@pytest.mark.parametrize(("told", "tellers"), [(None, [0, 2]), (False, [0, 1, 2, 3]), (True, [])])
def test_who_tells_an_error(
    started: Callable[[int, int, int], None], told: bool | None, tellers: list[int]
) -> None:
    error = TrainError("x")
    error.told = told
    found = []
    for rank in range(4):
        started(rank, 4, rank % 2)
        found += [rank] if tells(error) else []
    assert found == tellers


def test_devices_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device("cpu", 5), own_device("cuda", 1), own_device("cuda:1", 1)] == [
        "cpu",
        "cuda:1",
        "cuda:1",
    ]
    with pytest.raises(TrainError, match="device 'cuda:0' is for one process: several take 'cuda'"):
        own_device("cuda:0", 1)
    with pytest.raises(TrainError, match=r"process 2 .* has no GPU, 2 are there: .*--nproc-per-node 2"):
        own_device("cuda", 2)


class OwnNorm(nn.BatchNorm2d):
    pass


def test_norms_of_a_class_of_its_own_are_refused_and_all_come_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), OwnNorm(2))
    with (
        pytest.raises(TrainError, match=r"sync_norms knows BatchNorm1d, .*, not OwnNorm"),
        synced_norms(model),
    ):
        pytest.fail("it goes on")
    with synced_norms(model[:1]):
        assert type(model[0]) is SYNCED[nn.BatchNorm2d]
    assert [type(norm) for norm in model] == [nn.BatchNorm2d, OwnNorm]


def test_what_is_known_to_use_all_parameters() -> None:
    assert uses_all_parameters(together.made("column"))
    assert not uses_all_parameters(together.made("odd"))


# ---- slow ----------------------------------------------------------------------------------------------


def test_three_processes_and_an_odd_split(tmp_path: Path) -> None:
    how: Found = {"model": ["normed"], "config": {"sync_norms": True, "batch_size": 8}, "n_train": 71}
    found = same([each[0] for each in together_in(tmp_path, [how], size=3)])
    for epoch, expected in zip(curve(found), curve(together.training(**how)), strict=True):
        assert epoch == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_killed_and_started_again_equals_never_killed(tmp_path: Path, which: int) -> None:
    how: Found = {"model": ["plain", {"dropout": 0.5}]}
    kept = {**how, "checkpoint": str(tmp_path / "x.checkpoint")}
    found = together_in(tmp_path, [{**kept, "fails": "kill", "fail": which}])
    assert found[which] is None
    assert "a process of this training was lost" in found[1 - which][0]["message"]
    assert found[1 - which][0]["seconds"] < 20
    resumed, unbroken = (list(each) for each in zip(*together_in(tmp_path, [kept, how]), strict=True))
    assert curve(same(resumed)) == curve(same(unbroken))
    assert resumed[0]["weights"] == unbroken[0]["weights"]
