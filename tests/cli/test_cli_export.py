"""`export`: of networks and of trials, whose weights come back by training again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny import Call

from connsearch.nn import Network
from connsearch.search.retrain import Repetition
from connsearch.search.study import Study
from connsearch.spec import NetworkSpec

ORIGIN = "net.toml, initial weights, not trained"


def test_a_network(call: Call, here: Path) -> None:
    result = call("export", "net.toml", "-o", "out", "--format", "python", "--format", "toml")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:3] == ["wrote out/network.toml", "wrote out/model.py", "wrote out/weights.safetensors"]
    assert lines[3].startswith("model.py: verified on 6 batches, largest difference 0.0e+00; ")
    assert lines[4:] == [ORIGIN]
    weights = "out/weights.safetensors"
    again = call("export", "out/network.toml", "-o", "b", "--format", "toml", "--weights", weights)
    assert again.out.splitlines() == [
        "wrote b/network.toml",
        "out/network.toml, weights of out/weights.safetensors",
    ]


@pytest.mark.slow
def test_json(call: Call, here: Path) -> None:
    result = call("export", "net.toml", "-o", "out", "--format", "python", "--fold", "--json")
    record = json.loads(result.out)
    assert record["directory"] == "out"
    assert record["origin"] == ORIGIN
    assert record["files"] == {
        name: Path("out", name).stat().st_size for name in ("model.py", "weights.safetensors")
    }
    assert record["verified"][0]["format"] == "model.py"
    assert record["norms_folded"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.toml", "-o", "out", "--format", "onx"], "Error: unknown format 'onx'. Did you mean 'onnx'?"),
        (["rsnet-20", "-o", "out"], "Error: unknown preset 'rsnet-20', and no .toml file."),
        (
            ["net.toml", "-o", "out", "--weights", "no.x"],
            "Error: no.x: no weights can be read",
        ),
        (["net.toml", "-o", "out", "--weights", "net.toml"], "Error: net.toml: no weights can be read"),
        (["net.toml", "-o", "space.toml"], "Error: space.toml: is a file: give a directory"),
        (["nothing", "0", "-o", "out"], "Error: nothing"),
    ],
)
def test_a_mistake_is_one_line(call: Call, here: Path, arguments: list[str], message: str) -> None:
    before = sorted(here.iterdir())
    result = call("export", *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(message)
    assert result.err.count("\n") == 1
    assert sorted(here.iterdir()) == before


def test_usage(call: Call, here: Path) -> None:
    result = call("export", ".", "-o", "out")
    assert result.code == 2
    assert "which TRIAL of the study?" in result.err
    result = call("export", "net.toml", "-o", "out", "--inexact")
    assert result.code == 2
    assert "are for a TRIAL of a study" in result.err
    for option in (["--inexact"], ["--device", "cpu"]):
        result = call("export", "runs/study", 0, "-o", "out", "--weights", "w.safetensors", *option)
        assert result.code == 2
        assert "--weights names the weights" in result.err


@pytest.mark.slow
def test_a_trial(call: Call, here: Path) -> None:
    assert call("run", "study.toml", "--device", "cpu").code == 0
    result = call("export", "runs/study", 1, "-o", "out", "--format", "python")
    assert result.code == 0
    first, *epochs = result.err.splitlines()
    assert first == "training trial 1 again: a study keeps no weights"
    assert epochs == [line for line in epochs if line.startswith("epoch 1: validation error ")]
    assert len(epochs) == 1
    assert "largest difference 0.0e+00" in result.out
    attrs = Study.load("runs/study").trials()[1].user_attrs
    weights = safetensors.torch.load_file("out/weights.safetensors")
    network = Network(NetworkSpec.from_dict(attrs["network"]))
    network.load_state_dict(weights)
    from connsearch.data import load_dataset
    from connsearch.train.evaluation import evaluate

    data = load_dataset(Study.load("runs/study").config.train.dataset)
    _, error = evaluate(network, data.val, device=torch.device("cpu"))
    assert error == attrs["curve"][-1]["val_error"]
    kept = Path("runs/study/exports/trial1.safetensors")
    before = kept.stat().st_mtime_ns
    again = call("export", "runs/study", 1, "-o", "again", "--format", "python")
    assert again.code == 0
    assert kept.stat().st_mtime_ns == before
    assert Path("again/weights.safetensors").read_bytes() == Path("out/weights.safetensors").read_bytes()


@pytest.mark.slow
def test_weights_that_are_not_the_recorded_ones_are_not_said_to_have_its_error(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("run", "study.toml", "--device", "cpu", "--trials", 1).code == 0
    again = call("export", "runs/study", 0, "-o", "own", "--format", "python")
    recorded = again.out.splitlines()[-1]
    assert re.fullmatch(r"trial 0 of runs/study, validation error 0\.\d{4} after \d epochs?", recorded)
    weights = "own/weights.safetensors"
    given = call("export", "runs/study", 0, "-o", "given", "--format", "python", "--weights", weights)
    assert given.out.splitlines()[-1] == f"trial 0 of runs/study, weights of {weights}"
    other = "differs from epoch 1 on: val_error 0.5 recorded, 0.25 now"

    def retrained(*_: Any, **__: Any) -> Repetition:
        return Repetition(0, 1, other, {})  # the weights are there already

    monkeypatch.setattr("connsearch.export.trained.retrain_exactly", retrained)
    assert call("export", "runs/study", 0, "-o", "other").code == 1
    found = call("export", "runs/study", 0, "-o", "other", "--format", "python", "--inexact")
    origin = f"trial 0 of runs/study, trained again to other weights than it had: it {other}"
    assert found.out.splitlines()[-1] == origin
    assert "validation error" in Path("own/model.py").read_text()
    for name in ("given", "other"):
        assert "validation error" not in Path(name, "model.py").read_text()


def test_a_trial_that_is_not_there(call: Call, here: Path) -> None:
    assert call("run", "study.toml", "--device", "cpu", "--trials", 1).code == 0
    result = call("export", "runs/study", 7, "-o", "out")
    assert (result.code, result.err) == (1, "Error: runs/study: no trial 7: it has 1, counted from 0\n")
