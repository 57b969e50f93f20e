"""Pruning a trained network: what is told of it is what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from connsearch.cost import network_cost
from connsearch.data import load_dataset
from connsearch.errors import DataError, SpecError
from connsearch.nn import Network
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.train import evaluate
from connsearch.train.learned import (
    learned_shares_by_class,
    learned_strengths,
    strengths_record,
    strengths_text,
)
from connsearch.train.pruning import prune
from connsearch.train.trained import Trained

DATA = "synthetic(n_train=40, n_val=30, n_test=20, channels=2, height=6, width=6, n_classes=3)"


def trained(aggregation: str = "depthwise", dataset: bool = True, **settings: Any) -> Trained:
    block = {"topology": "dense", "aggregation": aggregation, "unit": "conv", "n_layers": 3, "width": 4}
    spec = NetworkSpec.from_dict({
        "name": "net", "input": {"channels": 2, "height": 6, "width": 6}, "n_classes": 3,
        "blocks": [block], **settings,
    })  # fmt: skip
    torch.manual_seed(0)
    network = Network(spec)
    if aggregation == "depthwise":
        with torch.no_grad():
            network.node("block1.layer2").aggregation.weight[0] = 0
            network.node("block1.layer3").aggregation.weight[1] *= 0.05
    params = {
        "n_train": 40,
        "n_val": 30,
        "n_test": 20,
        "channels": 2,
        "height": 6,
        "width": 6,
        "n_classes": 3,
    }
    return Trained(network.eval(), Ref("synthetic", tuple(sorted(params.items()))) if dataset else None)


def test_what_weighs_exactly_nothing_goes_without_a_trace() -> None:
    found = prune(trained(), 0.01)
    assert found.removed == 1
    assert found.difference < 1e-6
    before, after = found.costs
    assert (before.n_edges, after.n_edges) == (
        network_cost(trained().network.spec).n_edges,
        before.n_edges - 1,
    )
    assert found.errors is not None
    assert found.errors[0] == found.errors[1]
    assert found.kept == {}
    assert "the 30 images of synthetic's val split" in str(found)


def test_errors_and_difference_are_those_of_the_two_networks() -> None:
    found = prune(trained(), 0.5, split="train")
    split = load_dataset(DATA).train
    assert found.errors == tuple(evaluate(t.network, split)[1] for t in (found.before, found.after))
    with torch.no_grad():
        expected = (found.before.network(split.images) - found.after.network(split.images)).abs().max().item()
    assert found.difference == pytest.approx(expected, rel=1e-5)
    record = found.to_dict()
    assert record["removed_connections"] == 2
    assert record["after"]["params"] == sum(p.numel() for p in found.after.network.parameters())
    assert record["error_after"] == found.errors[1]


def test_without_a_data_set_networks_are_compared_with_noise() -> None:
    found = prune(trained(dataset=False), 0.5)
    assert found.errors is None
    assert "64 images of noise" in str(found)
    assert found.to_dict()["error_before"] is None


def test_a_training_data_set_that_is_not_here_is_told_and_gates_need_it() -> None:
    elsewhere = Trained(trained().network, Ref("my_images"))
    assert "64 images of noise, as unknown dataset 'my_images'" in str(prune(elsewhere, 0.5))
    with pytest.raises(SpecError, match="unknown dataset 'my_images'"):
        prune(Trained(trained("gated").network, Ref("my_images")), 0.5)
    with pytest.raises(SpecError, match="unknown dataset 'nowhere'"):
        prune(elsewhere, 0.5, "nowhere")


@pytest.mark.parametrize("below", [0, -0.1, 1.01, float("nan")])
def test_a_threshold_is_a_share(below: float) -> None:
    with pytest.raises(
        SpecError, match=r"below is a share of the reader's strongest connection, in \(0, 1\]"
    ):
        prune(trained(), below)


def test_nothing_that_weak_is_an_error_that_names_the_weakest() -> None:
    network = trained().network
    with torch.no_grad():
        network.node("block1.layer2").aggregation.weight[0] = 0.2
    weakest = (
        r"no connection of less than 0.01 of .*: the weakest is block1.layer1 -> block1.layer3 with 0.05"
    )
    with pytest.raises(SpecError, match=weakest):
        prune(Trained(network), 0.01)


def test_connections_that_are_read_in_groups_have_no_strength_and_stay() -> None:
    network = trained("concat", dataset=False).network
    blocks = tuple(b.model_copy(update={"unit": "conv(groups=2)"}) for b in network.spec.blocks)
    torch.manual_seed(0)
    mixed = Network(network.spec.model_copy(update={"blocks": blocks})).eval()
    with torch.no_grad():
        mixed.node("head").get_submodule("linear1").weight[:, :4] = 0
    found = prune(Trained(mixed), 0.2)
    assert found.removed == 1
    frame = learned_strengths(Trained(mixed))
    assert set(frame["reader"]) == {"head"}  # the others are read in groups


def test_gates_need_a_data_set_that_fits() -> None:
    gated = trained("gated", dataset=False)
    for ask in (learned_strengths, learned_shares_by_class, lambda t: prune(t, 0.5)):
        with pytest.raises(
            SpecError, match="'net' has gates, whose values follow from images: name a data set"
        ):
            ask(gated)
    assert set(learned_strengths(gated, DATA)["kind"]) == {"mean_gate"}
    with pytest.raises(
        DataError, match="dataset 'synthetic' holds 3 x 16 x 16 images of 10 classes, the network"
    ):
        learned_strengths(gated, "synthetic")
    with pytest.raises(SpecError, match=r"unknown split 'vall'. Did you mean 'val'"):
        learned_strengths(gated, DATA, "vall")
    with pytest.raises(SpecError, match="'net' has no gates: leave out the data set"):
        learned_strengths(trained(), DATA)
    with pytest.raises(SpecError, match="has no gates: images of all classes take the same way"):
        learned_shares_by_class(trained())


def test_gates_by_class_are_of_the_split() -> None:
    frame = learned_shares_by_class(trained("routed"), split="test")
    one = frame[(frame["source"] == "stem") & (frame["reader"] == "block1.layer2")]
    assert one["n_images"].sum() == 20


def test_text_and_record_hold_what_the_table_does() -> None:
    network = trained()
    frame = learned_strengths(network)
    text = strengths_text("net", frame)
    assert text.splitlines()[2].split()[:4] == ["1", "depthwise", "l2_norm", str(len(frame))]
    record = strengths_record(network, frame)
    assert record["name"] == "net"
    assert [row["value"] for row in record["connections"]] == pytest.approx(
        frame["value"].tolist(), rel=1e-12
    )
    assert record["connections"][0]["spread"] is None
