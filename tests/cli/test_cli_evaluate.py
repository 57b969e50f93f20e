"""`connsearch evaluate`, by what it prints and writes."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Call

from connsearch.data import Dataset, Split, load_dataset, register_dataset
from connsearch.data.registry import DATASETS
from connsearch.nn import Network
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.train.confusion import Confusion
from connsearch.train.evaluation import evaluate
from connsearch.train.trained import Trained, save_trained

SIZE = {"channels": 1, "height": 8, "width": 8}
IMAGES = {**SIZE, "n_train": 16, "n_val": 12, "n_test": 20, "n_classes": 4}
SYNTHETIC = Ref("synthetic", tuple(sorted(IMAGES.items())))


def small(layout: str = "encoder", n_classes: int = 4) -> Network:
    block = {"topology": "dense", "aggregation": "concat", "unit": "conv", "n_layers": 2, "width": 4}
    table = {"name": "small", "input": SIZE, "n_classes": n_classes, "layout": layout, "blocks": [block] * 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(NetworkSpec.from_dict(table)).eval()


@pytest.fixture
def weights(here: Path) -> Path:
    return save_trained(Trained(small(), SYNTHETIC), here / "weights.safetensors")


@pytest.fixture
def maps() -> Dataset:
    """Label maps of three classes and void, as the data set `maps`."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        labels = torch.randint(4, (n, 8, 8), generator=generator, dtype=torch.uint8)
        return Split(torch.randn(n, 1, 8, 8, generator=generator), torch.where(labels == 3, 9, labels).byte())

    dataset = Dataset("maps", ("sky", "road", "tree"), split(4), split(4), split(6), void=9)
    register_dataset("maps")(lambda: dataset)
    yield dataset
    DATASETS.unregister("maps")


def test_a_table_of_classes_and_what_guessing_reaches(call: Call, weights: Path) -> None:
    result = call("evaluate", weights, "--csv", "x.csv", "--plot", "x.png")
    assert result.code == 0
    assert result.err == "wrote x.png\nwrote x.csv\n"
    lines = result.out.splitlines()
    assert lines[:2] == ["small on synthetic, test: 20 images", ""]
    assert lines[2].split() == [
        *("class", "images", "accuracy", "%", "precision", "%", "most", "often", "taken", "for")
    ]
    assert [line[:9] for line in lines[3:7]] == list(load_dataset(SYNTHETIC).class_names)
    _, error = evaluate(small(), load_dataset(SYNTHETIC).test)
    assert lines[8].startswith(f"error           {100 * error:.1f} %, baseline ")
    assert lines[-1].endswith("', the most frequent class, everywhere.")
    with open("x.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["support"]) for row in rows) == 20
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_plain_data_are_a_confusion(call: Call, weights: Path) -> None:
    result = call("evaluate", weights, "--split", "val", "--json")
    record = json.loads(result.out)
    assert (record["network"], record["dataset"], record["split"], record["images"]) == (
        "small", "synthetic", "val", 12,
    )  # fmt: skip
    assert record["error"] == evaluate(small(), load_dataset(SYNTHETIC).val)[1]
    assert Confusion.from_dict(record).counts.sum() == 12


def test_label_maps_are_scored_and_drawn(call: Call, here: Path, maps: Dataset) -> None:
    net = small("encoder_decoder", 3)
    save_trained(Trained(net), "maps.safetensors")
    result = call("evaluate", "maps.safetensors", "--dataset", "maps", "--examples", "x.png", "--count", 2)
    assert (result.code, result.err) == (0, "wrote x.png\n")
    with torch.no_grad():
        predicted = net(maps.test.images).argmax(1)
    known = maps.test.labels != 9
    accuracy = (predicted == maps.test.labels)[known].double().mean().item()
    assert "class  pixels  accuracy %  precision %  iou %  most often taken for" in result.out
    assert f"accuracy        {100 * accuracy:.1f} %, baseline " in result.out
    assert "mean IoU        " in result.out
    width, height = struct.unpack(">II", Path("x.png").read_bytes()[16:24])
    assert width > height > 500
    record = json.loads(call("evaluate", "maps.safetensors", "--dataset", "maps", "--json").out)
    assert record["counted"] == "pixels"
    assert np.array(record["counts"]).sum() == int(known.sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tests"], "Error: unknown split 'tests'. Did you mean 'test'? Known: test, train"),
        (["--dataset", "digts"], "Error: unknown dataset 'digts'. Did you mean 'digits'? Known: "),
        (["--dataset", "digits"], "Error: dataset 'digits' holds 1 x 8 x 8 images of 10 classes, the "),
        (["--dataset", "maps"], "Error: dataset 'maps' has a label for each pixel, the network "),
        (["--examples", "x.png"], "Error: dataset 'synthetic' has a label for each image, there "),
        (["--plot", "x.gif"], "Error: x.gif: cannot draw to a file ending in '.gif'."),
        (["--csv", "no/x.csv"], "Error: no/x.csv: there is no directory no: make it first\n"),
        (["--device", "tpu"], "Error: unknown device 'tpu'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    call: Call, weights: Path, maps: Dataset, arguments: list[str], message: str
) -> None:
    result = call("evaluate", weights, *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(message)
    assert result.err.count("\n") == 1


def test_weights_that_say_little_need_words(call: Call, here: Path, maps: Dataset) -> None:
    save_trained(Trained(small()), "bare.safetensors")
    result = call("evaluate", "bare.safetensors")
    assert (result.code, result.err) == (
        1, "Error: the weights do not say what they were trained on: name a data set (--dataset)\n",
    )  # fmt: skip
    assert call("evaluate", "nope.safetensors").err.startswith("Error: nope.safetensors: no such file: ")
    save_trained(Trained(small("encoder_decoder")), "dense.safetensors")
    result = call("evaluate", "dense.safetensors", "--dataset", SYNTHETIC.label)
    assert result.err.startswith(
        "Error: dataset 'synthetic' has a label for each image, the network answers for"
    )
