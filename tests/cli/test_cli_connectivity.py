"""`connsearch connectivity` and `connsearch prune`, by what they print and write."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import Call

from connsearch.cost import network_cost
from connsearch.data import load_dataset
from connsearch.nn import Network, build
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.train import TrainConfig, train
from connsearch.train.trained import Trained, load_trained, save_trained

DATA = "synthetic(n_train=32, n_val=20, n_test=20, channels=1, height=8, width=8, n_classes=4)"
PARAMS = {"n_train": 32, "n_val": 20, "n_test": 20, "channels": 1, "height": 8, "width": 8, "n_classes": 4}


def network(aggregation: str = "depthwise", topology: str = "dense") -> NetworkSpec:
    block = {"topology": topology, "aggregation": aggregation, "unit": "conv", "n_layers": 3, "width": 4}
    return NetworkSpec.from_dict({
        "name": "small", "input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 4,
        "blocks": [block] * 2,
    })  # fmt: skip


@pytest.fixture
def checkpoint(here: Path) -> Path:
    config = TrainConfig.from_dict({"dataset": DATA, "epochs": 1, "batch_size": 16})
    train(build(network()), load_dataset(DATA), config, seed=0, checkpoint="trial")
    return here / "trial"


def weights(aggregation: str, topology: str = "dense", *, dataset: bool = True, dead: bool = False) -> Path:
    torch.manual_seed(0)
    made = Network(network(aggregation, topology)).eval()
    if dead:
        with torch.no_grad():
            made.node("block1.layer3").aggregation.weight[:2] = 0
    ref = Ref("synthetic", tuple(sorted(PARAMS.items()))) if dataset else None
    return save_trained(Trained(made, ref), "weights.safetensors")


def test_a_checkpoint_is_told_drawn_and_written(call: Call, checkpoint: Path) -> None:
    result = call("connectivity", checkpoint, "-o", "heat.svg", "--csv", "heat.csv")
    assert (result.code, result.err) == (0, "wrote heat.svg\nwrote heat.csv\n")
    lines = result.out.splitlines()
    assert lines[0] == "small"
    header = "block aggregation kind connections mean least largest below 0.1 strongest"
    assert " ".join(lines[1].split()) == header
    assert [line.split()[:4] for line in lines[2:4]] == [[b, "depthwise", "l2_norm", "9"] for b in "12"]
    assert "<svg" in Path("heat.svg").read_text()
    frame = pd.read_csv("heat.csv")
    assert len(frame) == 18
    again = call("connectivity", checkpoint, "--json")
    record = json.loads(again.out)
    assert [row["value"] for row in record["connections"]] == pytest.approx(frame["value"].tolist())
    assert "by_class" not in record


def test_gates_come_from_the_data_set_of_the_training(call: Call, here: Path) -> None:
    path = weights("routed")
    result = call("connectivity", path, "--by-class", "gates.png", "-o", "heat.png", "--json")
    assert result.code == 0
    record = json.loads(result.out)
    assert {row["kind"] for row in record["connections"]} == {"mean_gate"}
    rows = [r for r in record["by_class"] if (r["source"], r["reader"]) == ("stem", "block1.layer2")]
    assert sum(row["n_images"] for row in rows) == 20
    assert Path("gates.png").read_bytes().startswith(b"\x89PNG")
    assert call("connectivity", path, "--by-class", "gates.csv").code == 0
    assert list(pd.read_csv("gates.csv").columns)[:4] == ["source", "reader", "aggregation", "class"]


def test_dead_connections_are_pruned_and_nothing_changes(call: Call, here: Path) -> None:
    path = weights("weighted", dead=True)
    result = call("prune", path, "--below", "0.01", "-o", "left.toml")
    assert (result.code, result.err) == (0, "wrote left.toml\nwrote left.safetensors\n")
    assert "largest difference of a logit: 0, on the 20 images of synthetic's val split" in result.out
    left = NetworkSpec.from_toml("left.toml")
    before, after = network_cost(network("weighted")), network_cost(left)
    rows = [line.split() for line in result.out.splitlines() if line.startswith("small")]
    assert [row[:2] for row in rows] == [["small", str(before.n_edges)], ["small-pruned", str(after.n_edges)]]
    trained = load_trained("left.safetensors")
    assert trained.network.spec == left
    assert trained.dataset is not None
    assert call("show", "left.toml").code == 0
    assert json.loads(call("cost", "left.toml", "--json").out)[0]["params"] == after.params
    assert call("connectivity", "left.safetensors").code == 0
    record = json.loads(call("prune", path, "--below", "0.01", "-o", "left.toml", "--json").out)
    assert record["after"]["params"] == after.params
    assert record["largest_logit_difference"] == 0


def test_weights_without_a_name_take_a_network(call: Call, here: Path) -> None:
    from safetensors.torch import save_file

    made = Network(NetworkSpec.from_toml("net.toml"))
    save_file(made.state_dict(), "bare.safetensors")
    assert call("connectivity", "bare.safetensors", "--net", "net.toml").code == 0
    result = call("connectivity", "bare.safetensors")
    n = len(made.state_dict())
    assert (result.code, result.err) == (
        1,
        f"Error: bare.safetensors: does not say which network its {n} tensors are of: name it, a preset or a "
        "NetworkSpec file (--net)\n",
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("connectivity", "gone"),
         "Error: gone: no such file: name a training's checkpoint or a file of weights\n"),
        (("connectivity", "net.toml"), "Error: net.toml: is no safetensors file: "),
        (("connectivity", "."), "Error: .: is a directory: name a checkpoint or a file of weights in it\n"),
        (("connectivity", "weights.safetensors", "--net", "resnet-20"),
         "Error: weights.safetensors: holds the network 'small', not 'resnet-20': leave out --net\n"),
        (("connectivity", "weights.safetensors", "--net", "resnet-2O"), "Error: unknown preset 'resnet-2O'"),
        (("connectivity", "weights.safetensors", "-o", "heat.gif"),
         "Error: heat.gif: cannot draw to a file ending in '.gif'"),
        (("connectivity", "weights.safetensors", "-o", "no/heat.svg"),
         "Error: no/heat.svg: there is no directory no: make it first\n"),
        (("connectivity", "weights.safetensors", "--by-class", "a.svg"),
         "Error: 'small' has no gates: images of all classes take the same way\n"),
        (("connectivity", "weights.safetensors", "--dataset", "digits"),
         "Error: 'small' has no gates: leave out the data set\n"),
        (("prune", "weights.safetensors", "--below", "2", "-o", "left.toml"),
         "Error: below is a share of the reader's strongest connection, in (0, 1], got 2.0\n"),
        (("prune", "weights.safetensors", "--below", "0.001", "-o", "left.toml"),
         "Error: 'small' has no connection of less than 0.001 of its reader's strongest that can go: "),
        (("prune", "weights.safetensors", "--below", "0.9", "-o", "no/left.toml"),
         "Error: no/left.toml: there is no directory no: make it first\n"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(call: Call, here: Path, arguments: tuple[str, ...], error: str) -> None:
    weights("depthwise")
    result = call(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(error)
    assert result.err.count("\n") == 1
    assert not Path("left.toml").exists()


def test_usage(call: Call, here: Path) -> None:
    weights("depthwise")
    other = call("prune", "weights.safetensors", "--below", "0.9", "-o", "left.json")
    assert other.code == 2
    assert "-o names a TOML file" in other.err
    same = call("prune", "weights.safetensors", "--below", "0.9", "-o", "weights.toml")
    assert same.code == 2
    assert "weights.safetensors is the checkpoint itself: name another file" in same.err
    assert call("prune", "weights.safetensors", "-o", "left.toml").code == 2


@pytest.mark.parametrize(
    ("aggregation", "topology", "error"),
    [
        ("sum", "chain", "'small' has nothing learned between layers: they read a single source each"),
        ("sum", "dense", "'small' has nothing learned between layers: they read by sum, without weights, or "
                         "a single source each"),
    ],
)  # fmt: skip
def test_nothing_learned_between_layers(
    call: Call, here: Path, aggregation: str, topology: str, error: str
) -> None:
    path = weights(aggregation, topology)
    for arguments in (("connectivity", path), ("prune", path, "--below", "0.5", "-o", "left.toml")):
        result = call(*arguments)
        assert (result.code, result.out, result.err) == (1, "", f"Error: {error}\n")


def test_gates_without_a_data_set_ask_for_one(call: Call, here: Path) -> None:
    path = weights("gated", dataset=False)
    result = call("connectivity", path)
    message = "Error: 'small' has gates, whose values follow from images: name a data set (--dataset)\n"
    assert (result.code, result.err) == (1, message)
    assert call("connectivity", path, "--dataset", DATA, "--split", "test").code == 0
    wrong = call("connectivity", path, "--dataset", "digts")
    assert wrong.code == 1
    assert wrong.err.startswith("Error: unknown dataset 'digts'. Did you mean 'digits'?")
    split = call("connectivity", path, "--dataset", DATA, "--split", "validation")
    assert (split.code, split.err) == (1, "Error: unknown split 'validation'. Known: test, train, val.\n")
