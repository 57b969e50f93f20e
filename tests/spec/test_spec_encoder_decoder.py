"""Layout `encoder_decoder`: against the presets of its kind, plain PyTorch, and what it promises."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.cost import Budget, fit_width, network_cost
from connsearch.errors import SpecError
from connsearch.graph import predecessors
from connsearch.graph.patterns import pattern_rule
from connsearch.nn import Network
from connsearch.nn.pruned import pruned_network
from connsearch.nn.verify import Comparison, randomise
from connsearch.spec import AGGREGATIONS, NetworkSpec, resolve
from connsearch.spec.aggregations import aggregation_rule
from connsearch.spec.presets.dense_prediction import fc_densenet, fc_log_densenet
from connsearch.spec.pruned import Pruner
from connsearch.spec.unfolded import unfolded
from strategies import encoder_decoder

SMALL: dict[str, Any] = {"input": {"channels": 3, "height": 16, "width": 24}, "n_classes": 3}
GENERATED = st.composite(encoder_decoder)()


def network(*depths: int, width: int = 3, scope: str = "block", **settings: Any) -> NetworkSpec:
    """A network of the layout, all blocks alike; settings of blocks and of the network."""
    own = {name: settings.pop(name) for name in ("topology", "aggregation", "unit") if name in settings}
    blocks = [{"unit": "conv", **own, "n_layers": depth, "width": width} for depth in depths]
    return NetworkSpec.from_dict(
        {"layout": "encoder_decoder", "scope": scope, "blocks": blocks, **SMALL, **settings}
    )


def reads(spec: NetworkSpec) -> dict[str, list[str]]:
    graph = spec.graph()
    names = [node.name for node in graph.nodes]
    return {name: [names[i] for i in sources] for name, sources in zip(names, graph.sources, strict=True)}


# ---- presets -------------------------------------------------------------------------------------------

FC_DENSENET: dict[str, Any] = {
    "topology": "dense",
    "aggregation": "concat",
    "unit": "conv(bias=true)",
    "transition": "pool(kind=max, bias=true)",
    "up": "deconv(bias=true)",
    "head": "pixels(norm=none, activation=none)",
    "compression": 1.0,
}
FC_LOG_DENSENET: dict[str, Any] = {
    "scope": "global",
    "topology": "log_dense",
    "aggregation": "concat",
    "stem_ratio": 3,
    "hubs": 1,
    "compression": 1.0,
}


@pytest.mark.parametrize("depths", [(2,), (1, 2, 1), (2, 3, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("topology", ["dense", "sparse", "chain", "harmonic"])
def test_fc_densenets_are_networks_of_the_layout(depths: tuple[int, ...], topology: str) -> None:
    same(
        network(*depths, **FC_DENSENET | {"topology": topology, "stem": "conv(channels=7, bias=true)"}),
        fc_densenet(depths, 3, topology=topology, stem=7, **SMALL),
    )


@pytest.mark.parametrize("depths", [(2,), (1, 2, 1), (2, 3, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("pattern", ["log_dense", "nearest", "loglog_dense", "dense"])
def test_fc_log_densenets_are_networks_of_the_layout(depths: tuple[int, ...], pattern: str) -> None:
    spec = network(*depths, **FC_LOG_DENSENET | {"topology": pattern})
    same(spec, fc_log_densenet(depths, 3, pattern=pattern, lean=True, **SMALL))
    plain = fc_log_densenet(depths, 3, pattern=pattern, lean=True, hubs=(), **SMALL)
    same(spec.model_copy(update={"hubs": 0}), plain)


def same(ours: NetworkSpec, preset: NetworkSpec) -> None:
    assert ours.graph() == preset.graph()
    assert resolve(ours).canonical_hash() == resolve(preset).canonical_hash()
    assert network_cost(ours) == network_cost(preset)
    states = [Network(spec).state_dict() for spec in (ours, preset)]
    shapes = [{key: tensor.shape for key, tensor in state.items()} for state in states]
    assert shapes[0] == shapes[1]


def test_every_setting_makes_another_network() -> None:
    spec = network(2, 3, 4, 3, 2, **FC_LOG_DENSENET)
    for other in ({"hubs": 2}, {"stem_ratio": 2}, {"compression": 0.5}, {"up": "deconv(kernel=5)"}):
        assert resolve(spec.model_copy(update=other)).canonical_hash() != resolve(spec).canonical_hash(), (
            other
        )


# ---- wiring --------------------------------------------------------------------------------------------


def test_blocks_that_add() -> None:
    assert reads(network(2, 1, 1, topology="dense")) == {
        "stem": [],
        "block1.layer1": ["stem"],
        "block1.layer2": ["stem", "block1.layer1"],
        "block1.out": ["stem", "block1.layer1", "block1.layer2"],
        "down1": ["block1.out"],
        "block2.layer1": ["down1"],
        "skip2": ["block1.out"],
        "up2": ["down1", "block2.layer1"],  # the input too, for nothing grows by it
        "block3.layer1": ["skip2", "up2"],
        "head": ["skip2", "up2", "block3.layer1"],
    }


def test_a_rule_over_the_whole_depth_that_adds_carries_across() -> None:
    found = reads(network(1, 1, 1, scope="global", topology="dense"))
    assert found["block3.layer1"] == [
        "block3.carry_stem",
        "block3.carry_block1_layer1",
        "block3.carry_block2_layer1",
    ]
    assert found["block3.carry_stem"] == ["stem"]
    assert found["block3.carry_block1_layer1"] == ["block1.layer1"]
    graph = network(1, 1, 1, scope="global", topology="dense").graph()
    parts = {node.name: node.part for node in graph.nodes if node.part}
    assert parts == {
        "block3.carry_stem": "skip",
        "block3.carry_block1_layer1": "skip",
        "block3.carry_block2_layer1": "up",
    }


def test_each_layer_follows_its_own_block() -> None:
    spec = network(2, 2, 2, aggregation="concat", scope="global")
    rules = ["dense", "chain", "log_dense"]
    blocks = [b.model_copy(update={"topology": rule}) for b, rule in zip(spec.blocks, rules, strict=True)]
    graph = spec.model_copy(update={"blocks": tuple(blocks)}).graph()

    def position(index: int) -> int:
        """Return which of stem and layers a node, carried or not, is."""
        if graph.nodes[index].kind == "carry":
            return position(graph.sources[index][0])
        return [i for i, node in enumerate(graph.nodes) if node.kind in ("stem", "unit")].index(index)

    layers = [i for i, node in enumerate(graph.nodes) if node.kind in ("unit", "head")]
    got = [tuple(sorted(position(source) for source in graph.sources[i])) for i in layers]
    dense, chain = predecessors("dense", 6), predecessors("chain", 6)
    log = pattern_rule("log_dense", (2, 2, 2))
    assert got == [*dense[:2], *chain[2:4], *log[4:]]


def plain_residual(network: Network, images: Tensor) -> Tensor:
    """Blocks of two units each, every unit reading the sum of all before it in its block."""

    def line(name: str, h: Tensor) -> Tensor:
        node = network.node(name)
        norm = node.norm1
        h = F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        operation = node.deconv1 if name.startswith("up") else node.conv1
        return operation(F.relu(h) if not name.startswith("down") else h)

    def block(number: int, *entry: Tensor) -> Tensor:
        total = torch.stack(entry).sum(0)
        for i in (1, 2):
            total = total + line(f"block{number}.layer{i}", total)
        return total

    stem = network.node("stem").conv1(images)
    first = block(1, stem)
    second = block(2, line("down1", first))
    third = block(3, line("skip2", first), line("up2", second))
    return line("head", third)


def test_what_adds_is_plain_pytorch() -> None:
    spec = network(2, 2, 2, topology="dense").with_widths((3, 5, 4))
    ours = Network(spec)
    randomise(ours)
    ours.eval()
    images = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(ours(images), plain_residual(ours, images))


# ---- any network ---------------------------------------------------------------------------------------


@given(GENERATED)
@settings(max_examples=60)
def test_each_pixel_is_predicted_and_even_blocks_have_equal_channels(spec: NetworkSpec) -> None:
    plan = resolve(spec)
    assert plan.nodes[-1].out_shape == (spec.n_classes, spec.input.height, spec.input.width)
    even = {n for n, b in enumerate(spec.blocks, 1) if aggregation_rule(b.aggregation).equal_channels}
    assert spec.even_blocks() == even
    for node in plan.nodes:
        if node.aggregation is not None and aggregation_rule(node.aggregation).equal_channels:
            assert len(set(node.source_channels)) == 1
    for node in plan.nodes:
        if node.node.kind in ("transition", "carry") and node.node.block not in even and spec.compression:
            assert node.out_shape.channels == max(1, int(node.in_shape.channels * spec.compression))
    depth = [b.n_layers for b in spec.blocks]
    units = [
        sum(n.node.kind == "unit" and n.node.block == b for n in plan.nodes) for b in range(1, len(depth) + 1)
    ]
    assert units == depth
    assert NetworkSpec.from_json(spec.to_json()) == spec


@given(GENERATED)
@settings(max_examples=60)
def test_the_graph_may_be_given_instead(spec: NetworkSpec) -> None:
    given_graph = unfolded(spec)
    assert given_graph.layout == "encoder"
    assert given_graph.own_graph is not None
    assert NetworkSpec.from_dict(given_graph.to_dict()) == given_graph
    plans = resolve(spec), resolve(given_graph)
    assert plans[0].canonical_hash() == plans[1].canonical_hash()
    assert [n.chain for n in plans[0].nodes] == [n.chain for n in plans[1].nodes]
    assert [n.node.name for n in plans[0].nodes] == [n.node.name for n in plans[1].nodes]


@given(GENERATED)
@settings(max_examples=6)
def test_compiled_is_the_definition(spec: NetworkSpec) -> None:
    comparison = Comparison(spec, batch=4, steps=2)
    errors = comparison.errors("fused")
    allowed = comparison.allowed(errors)
    assert all(error <= most for error, most in zip(errors, allowed, strict=True)), (errors, allowed)


@pytest.mark.parametrize("scope", ["block", "global"])
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_widths_and_depths_are_solved(aggregation: str, scope: str) -> None:
    shape = network(
        3, 3, 4, 2, 3, aggregation=aggregation, scope=scope, topology="log_dense", compression=0.5
    )
    budget = Budget(macs=2_000_000)
    macs = network_cost(fit_width(shape, budget)).macs
    assert 0.98 * 2_000_000 <= macs <= 2_000_000
    trimmed = fit_width(shape, Budget(macs=400_000), min_depths=[1] * 5)
    assert network_cost(trimmed).macs <= 400_000
    assert sum(b.n_layers for b in trimmed.blocks) < sum(b.n_layers for b in shape.blocks)


def test_a_connection_is_pruned_and_all_else_stays() -> None:
    spec = network(2, 2, 2, topology="dense", aggregation="depthwise")
    left = Pruner(spec).without({("skip2", "block3.layer2")})
    expected = reads(spec)
    expected["block3.layer2"].remove("skip2")
    assert reads(left) == expected
    assert [n.chain for n in resolve(left).nodes] == [n.chain for n in resolve(spec).nodes]


@pytest.mark.parametrize("scope", ["block", "global"])
def test_a_pruned_network_computes_the_same_if_nothing_was_carried(scope: str) -> None:
    spec = network(2, 2, 2, topology="dense", aggregation="depthwise(form=paper)", scope=scope)
    old = Network(spec)
    randomise(old)
    name, source = "block3.layer2", reads(spec)["block3.layer2"][0]
    old.node(name).aggregation.weight.data[0] = 0
    new = pruned_network(old.eval(), {(source, name)}).eval()
    assert len(new.state_dict()) <= len(old.state_dict())
    images = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(new(images), old(images))


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (1, 1)}, "blocks: layout 'encoder_decoder' goes down and up again: an odd number, got 2"),
        ({"depths": (1,) * 7, "input": {"height": 20, "width": 24}},
         "input: 20 x 24 pixels cannot be halved 3 times: with 7 blocks height and width must be multiples "
         "of 8: use 24 x 24 pixels or 5 blocks"),
        ({"input": {"height": 17, "width": 24}},
         "input: 17 x 24 pixels cannot be halved once: with 3 blocks height and width must be multiples "
         "of 2: use 18 x 24 pixels or 1 block"),
        ({"head": "pool"}, "head: 'pool' predicts images: layout 'encoder_decoder' needs a head for pixels, "
         "such as 'pixels'"),
        ({"hubs": 1}, "hubs needs layout 'encoder_decoder' and scope 'global': leave it out"),
        ({"hubs": 4, "scope": "global"}, "hubs must be at most the number of blocks, 3, got 4"),
        ({"layout": "encoder", "hubs": 1, "head": "pool"},
         "hubs needs layout 'encoder_decoder' and scope 'global': leave it out"),
        ({"parts": [{"name": "up", "line": "deconv"}]},
         "parts are for nodes of a given graph: give one, or leave out parts"),
        ({"aggregation": "weighted(activation=tanh)"},
         "blocks[0].aggregation: aggregation 'weighted': unknown activation 'tanh'. Known: none, sigmoid."),
        ({"topology": "sparse(base=1)"},
         "blocks[0].topology: topology 'sparse': base must be at least 2, got 1"),
        ({"stem": "imagenet", "input": {"height": 32, "width": 32}},
         "stem: 'imagenet' makes 8x8 pixels of 32x32, and not each is predicted then: use a stem that keeps "
         "the resolution, such as 'conv'"),
        ({"up": "upsample(scale=3)"},
         "block3.layer1: its sources differ in resolution: 16x24, 24x36; carry them to one resolution first"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_is_refused_is_said_in_a_line(changes: dict[str, Any], message: str) -> None:
    depths = changes.pop("depths", (1, 1, 1))
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        resolve(network(*depths, **changes))


def test_a_given_graph_has_no_layout() -> None:
    spec = unfolded(network(1, 1, 1))
    with pytest.raises(
        SpecError, match="layout 'encoder_decoder' makes the graph itself: leave out layout or"
    ):
        spec.model_copy(update={"layout": "encoder_decoder"})
    block = {"n_layers": 2, "entry_unit": True}
    with pytest.raises(SpecError, match=r"^entry_unit needs layout 'encoder'$"):
        NetworkSpec(layout="encoder_decoder", blocks=[block])


def test_a_head_for_pixels_is_the_layout_s() -> None:
    assert network(1).head.label == "pixels"
    assert NetworkSpec(blocks=[{"n_layers": 1}]).head.label == "pool"
    assert 'head = "pixels"' in network(1).to_toml()
