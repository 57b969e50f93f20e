"""Strengths of connections: weights set by hand with norms that are known, gates against their formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from connsearch.errors import SpecError
from connsearch.nn import Network, implement_aggregation
from connsearch.nn.aggregations import MODULES, Gated
from connsearch.nn.connectivity import COLUMNS, connection_strengths
from connsearch.nn.shares import has_gates, shares_by_class, source_shares
from connsearch.spec import AGGREGATIONS, Aggregation, NetworkSpec, register_aggregation
from connsearch.spec.presets import preset


def build(aggregation: str, topology: str = "dense", depths=(3,), width: int = 4, **settings: Any) -> Network:
    block = {"topology": topology, "aggregation": aggregation, "unit": "conv"}
    spec = NetworkSpec.from_dict({
        "name": "net", "input": {"channels": 2, "height": 6, "width": 6}, "n_classes": 3,
        "blocks": [{**block, "n_layers": n, "width": width * 2**i} for i, n in enumerate(depths)], **settings,
    })  # fmt: skip
    torch.manual_seed(0)
    return Network(spec)


def values(network: Network, images: torch.Tensor | None = None) -> dict[tuple[str, str], float]:
    frame = connection_strengths(network, images)
    return dict(zip(zip(frame["source"], frame["reader"], strict=True), frame["value"], strict=True))


def images(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["normalized", "paper"])
def test_depthwise_is_the_norm_over_the_channels_of_a_source(form: str) -> None:
    network = build(f"depthwise(form={form})")
    weight = network.node("block1.layer3").aggregation.weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[3.0, 0, -4, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))
    found = values(network)
    assert found["stem", "block1.layer3"] == pytest.approx(5)
    assert found["block1.layer1", "block1.layer3"] == 0
    assert found["block1.layer2", "block1.layer3"] == pytest.approx(2)
    frame = connection_strengths(network)
    assert frame[frame["reader"] == "block1.layer3"]["relative"].tolist() == pytest.approx([1, 0, 0.4])


@pytest.mark.parametrize(
    ("activation", "expected"), [("none", [2.0, 3.0]), ("sigmoid", [0.119203, 0.952574])]
)
def test_weighted_is_what_a_source_is_multiplied_by(activation: str, expected: list[float]) -> None:
    network = build(f"weighted(activation={activation})", depths=(2,))
    with torch.no_grad():
        network.node("block1.layer2").aggregation.weight.copy_(torch.tensor([-2.0, 3.0]))
    found = values(network)
    assert [found[s, "block1.layer2"] for s in ("stem", "block1.layer1")] == pytest.approx(expected, abs=1e-6)


def test_concat_is_the_mean_absolute_weight_of_the_convolution_after_it() -> None:
    network = build("concat", depths=(2, 1), head="flat(kernel=1, stride=1, cells=9)")
    with torch.no_grad():
        weight = network.node("block1.layer2").get_submodule("conv1").weight
        weight.zero_()
        weight[:, 4:] = -0.5
        weight[0, 0, 0, 0] = 4 * 4 * 9
        linear = network.node("head").get_submodule("linear1").weight  # 9 pixels of each channel
        linear[:, : 8 * 9] = 0.25
        linear[:, 8 * 9 :] = -1
    found = values(network)
    assert found["stem", "block1.layer2"] == pytest.approx(1)
    assert found["block1.layer1", "block1.layer2"] == pytest.approx(0.5)
    assert found["transition1", "head"] == pytest.approx(0.25)
    assert found["block2.layer1", "head"] == pytest.approx(1)


def test_a_layer_with_one_source_in_a_block_that_concatenates_has_a_strength() -> None:
    network = build("concat", depths=(2,))
    expected = network.node("block1.layer1").get_submodule("conv1").weight.abs().mean().item()
    assert values(network)["stem", "block1.layer1"] == pytest.approx(expected)
    assert ("stem", "block1.layer1") not in values(build("depthwise", depths=(2,)))


def test_gated_shares_are_products_of_gates_and_add_up_to_one() -> None:
    network = build("gated")
    gated = network.node("block1.layer3").aggregation
    assert isinstance(gated, Gated)
    with torch.no_grad():
        for gate, t in zip(gated.gates, (0.25, 0.8), strict=True):  # gates that do not look
            gate.weight.zero_()
            gate.bias.fill_(math.log(t / (1 - t)))
    found = values(network, images())
    shares = [found[s, "block1.layer3"] for s in ("stem", "block1.layer1", "block1.layer2")]
    assert shares == pytest.approx([0.75 * 0.2, 0.25 * 0.2, 0.8])
    frame = connection_strengths(network, images())
    spread = frame[frame["reader"] == "block1.layer3"]["spread"]
    assert spread.to_numpy() == pytest.approx([0, 0, 0], abs=1e-6)
    assert frame.groupby("reader")["value"].sum().to_numpy() == pytest.approx(1)


def test_the_shares_of_a_gated_aggregation_make_its_output() -> None:
    gated = build("gated").node("block1.layer3").aggregation.double()
    sources = [torch.randn(2, 4, 3, 3, dtype=torch.float64) for _ in range(3)]
    made = sum(share * h for share, h in zip(gated.shares(sources), sources, strict=True))
    torch.testing.assert_close(made, gated(sources))


def test_routed_is_the_mean_gate_over_the_images() -> None:
    network = build("routed")
    batch = images(7)
    network.eval()
    network.keep_gates = True
    network(batch)
    gates = network.gate_values()["stem"]
    readers = network.gate_readers()["stem"]
    frame = connection_strengths(network, batch).set_index(["source", "reader"])
    for column, reader in enumerate(readers):
        row = frame.loc["stem", reader]
        assert row["value"] == pytest.approx(gates[:, column].mean().item(), rel=1e-5)
        assert row["spread"] == pytest.approx(np.std(gates[:, column].numpy()), rel=1e-3)
    assert frame.loc["block1.layer3", "head"]["value"] == 1  # its only reader


def test_shares_come_image_by_image_however_they_are_batched() -> None:
    network = build("routed").train()
    batch = images(6)
    whole, parts = source_shares(network, batch), source_shares(network, batch.split(4))
    assert whole.keys() == parts.keys()
    for edge, share in whole.items():
        torch.testing.assert_close(share, parts[edge], rtol=1e-6, atol=1e-6)
    assert all(module.training for module in network.modules())
    assert not network.keep_gates
    assert not any(module._forward_hooks for module in network.modules())


def test_shares_by_class_are_means_over_the_images_of_a_class() -> None:
    network = build("routed")
    batch, labels = images(6), torch.tensor([0, 2, 0, 2, 2, 0])
    shares = source_shares(network, batch)
    frame = shares_by_class(network, batch, labels, ("a", "b", "c"))
    assert set(frame["class"]) == {"a", "c"}  # none is of class b
    row = frame[(frame["source"] == "stem") & (frame["reader"] == "block1.layer2") & (frame["class"] == "c")]
    assert row["value"].item() == pytest.approx(shares["stem", "block1.layer2"][[1, 3, 4]].mean().item())
    assert row["n_images"].item() == 3
    with pytest.raises(SpecError, match="'net' has no gates: images of all classes take the same way"):
        shares_by_class(build("sum"), batch, labels, ("a", "b", "c"))


def test_the_table_says_where_a_connection_is() -> None:
    frame = connection_strengths(build("depthwise", depths=(2, 2)))
    assert tuple(frame.columns) == COLUMNS
    rows = {(r.source, r.reader): r for r in frame.itertuples()}
    assert (rows["stem", "transition1"].block, rows["stem", "transition1"].offset) == (1, 3)
    assert (rows["transition1", "head"].block, rows["transition1", "head"].offset) == (2, 3)
    assert set(frame["aggregation"]) == {"depthwise"}
    assert frame["spread"].isna().all()
    assert len(frame) == 2 * (2 + 3)


def test_one_reader_has_one_kind_where_blocks_differ() -> None:
    network = build("concat", depths=(2, 2))
    blocks = (network.spec.blocks[0], network.spec.blocks[1].model_copy(update={"aggregation": "gated"}))
    mixed = Network(network.spec.model_copy(update={"blocks": blocks}))
    frame = connection_strengths(mixed, images())
    assert set(zip(frame["block"], frame["kind"], strict=True)) == {(1, "mean_abs_weight"), (2, "mean_gate")}


@pytest.mark.parametrize(
    ("aggregation", "topology", "match"),
    [
        ("sum", "chain", "'net' has nothing learned between layers: they read a single source each"),
        ("sum", "dense", "'net' has nothing learned .*: they read by sum, without weights, or a single"),
        ("depthwise", "chain", "'net' has nothing learned between layers: they read a single source each"),
    ],
)
def test_networks_that_learn_nothing_between_layers_are_told(
    aggregation: str, topology: str, match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        connection_strengths(build(aggregation, topology))


def test_gates_need_images() -> None:
    network = build("gated")
    assert has_gates(network)
    assert not has_gates(build("depthwise"))
    with pytest.raises(SpecError, match="'net' has gates, whose values follow from images: give images"):
        connection_strengths(network)


def test_an_aggregation_of_ones_own_has_strengths_if_it_says_its_weights() -> None:
    @register_aggregation("halves")
    class Halves(Aggregation):
        pass

    class Half(nn.Module):
        def forward(self, sources):
            return sum(sources) / 2

        def source_weights(self):
            return torch.full((2, 4), 0.5)

    try:
        implement_aggregation("halves")(lambda rule, channels: Half())
        found = values(build("halves", depths=(2,), topology="nearest(k=2)"))
        assert found["stem", "block1.layer2"] == pytest.approx(1)
    finally:
        AGGREGATIONS.unregister("halves")
        if "halves" in MODULES:
            MODULES.unregister("halves")


@pytest.mark.parametrize(
    "name", ["delugenet-146", "multipath-cnn-2-xpred", "highway-19", "fc-log-densenet-103"]
)
def test_presets_have_a_row_for_each_connection_that_is_learned(name: str) -> None:
    network = Network(preset(name))
    c, h, w = network.spec.input.channels, network.spec.input.height, network.spec.input.width
    frame = connection_strengths(network, torch.randn(2, c, h, w) if has_gates(network) else None)
    assert len(frame) == len(frame.drop_duplicates(["source", "reader"]))
    assert frame["value"].ge(0).all()
    assert frame.groupby("reader")["relative"].max().eq(1).all()
