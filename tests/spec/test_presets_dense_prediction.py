"""Networks for dense prediction: published and recounted figures, recounts by hand, plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.graph.patterns import pattern_rule
from connsearch.nn import Network
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from connsearch.spec.presets.dense_prediction import fc_densenet, fc_log_densenet, hypercolumn, unet

SMALL = {"input": InputConfig(height=16, width=24), "n_classes": 3}


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("fc-log-densenet-103", 4_693_595, 87.1),
        ("fc-log-densenet-103-lean", 4_035_755, 70.9),
        ("fc-densenet-103", 9_322_091, 67.6),
        ("fc-densenet-56", 1_376_795, 30.0),
        ("fc-densenet-67", 3_463_243, 70.4),
        ("fc-densenet-103-short-head", 9_319_979, 67.2),
        ("fc-densenet-56-short-head", 1_375_211, 29.8),
        ("fc-densenet-67-short-head", 3_460_955, 70.0),
        ("fc-densenet-ref100", 3_507_323, 71.0),
        ("fc-sparsenet-ref100", 3_213_051, 111.8),
    ],
)
def test_recounted_figures(name: str, params: int, gmacs: float) -> None:
    spec = preset(name)
    cost = network_cost(spec)
    assert (spec.n_classes, tuple(spec.input.to_dict().values())) == (11, (352, 480))
    assert cost.params == params
    assert cost.macs / 1e9 == pytest.approx(gmacs, abs=0.05)


def test_a_way_down_and_up_written_out() -> None:
    graph = fc_log_densenet((1, 1, 1), 4, hubs=()).graph()
    assert str(graph).splitlines()[1:] == [
        "stem                        stem        image",
        "block1.layer1               unit        stem",
        "block2.carry_stem           carry       stem",
        "block2.carry_block1_layer1  carry       block1.layer1",
        "block2.layer1               unit        block2.carry_stem, block2.carry_block1_layer1",
        "block3.carry_block2_layer1  carry       block2.layer1",
        "block3.layer1               unit        block1.layer1, block3.carry_block2_layer1",
        "head                        head        block1.layer1, block3.carry_block2_layer1, block3.layer1",
    ]


def test_loose_ends_are_joined_with_the_newest_feature() -> None:
    graph = fc_log_densenet((2, 2, 2, 2, 2), 4, hubs=()).graph()
    lean = fc_log_densenet((2, 2, 2, 2, 2), 4, hubs=(), lean=True).graph()
    added = [node for node in graph.nodes if node.name not in {n.name for n in lean.nodes}]
    assert {node.name for node in added if node.kind == "join"} == {
        "block3.carried", "block3.newest", "block5.carried", "block5.newest"
    }  # fmt: skip
    joined = graph.sources[graph.index("block5.carried")]
    assert graph.nodes[joined[-1]].name == "block5.carry_block4_layer2"
    assert {graph.nodes[i].name for i in joined[:-1]} <= {node.name for node in added}


# ---- FC-Log-DenseNet -----------------------------------------------------------------------------------


def count_fc_log(depths: Sequence[int], g: int, n_classes: int, *, lean: bool) -> int:
    """Parameters by the rule, without a graph; of blocks counted from 0, scale(b) halves the images."""
    middle = len(depths) // 2
    scale = [min(b, 2 * middle - b) for b in range(len(depths))]
    own = [0, *(b for b, depth in enumerate(depths) for _ in range(depth))]
    width = [3 * g, *[g] * sum(depths)]
    rule = pattern_rule("log_dense", depths, hubs=[depths[0]])
    total = 27 * width[0]
    farthest, nearest = [scale[b] for b in own], [scale[b] for b in own]
    for i, reads in enumerate(rule[:-1], start=1):
        channels = sum(width[j] for j in reads)
        total += 2 * channels + 9 * channels * g
        for j in reads:
            farthest[j] = max(farthest[j], scale[own[i]])
            nearest[j] = min(nearest[j], scale[own[i]])
    for b in range(len(depths) - 1):
        for j in (j for j in range(len(own)) if own[j] <= b):
            if b < middle and not (lean and farthest[j] <= b):
                total += 2 * width[j] + width[j] ** 2
            if b >= middle and own[j] > scale[b + 1] and not (lean and nearest[j] >= scale[b]):
                total += 2 * width[j] + 9 * width[j] ** 2
    last = sum(width[j] for j in rule[-1])
    return total + 2 * last + (last + 1) * n_classes


@pytest.mark.parametrize("depths", [(3,), (2, 3, 2), (1, 2, 3, 2, 1), (4, 5, 7, 9, 7, 5, 4)], ids=str)
@pytest.mark.parametrize("lean", [False, True])
def test_fc_log_densenets_are_as_counted_by_hand(depths: tuple[int, ...], lean: bool) -> None:
    spec = fc_log_densenet(depths, 6, lean=lean, n_classes=5)
    assert network_cost(spec).params == count_fc_log(depths, 6, 5, lean=lean)


@pytest.mark.parametrize("widths", [(4,) * 5, (4, 5, 3, 6, 2)], ids=str)
def test_what_nothing_reads_changes_nothing(widths: tuple[int, ...]) -> None:
    """With the same weights, carrying everything computes what carrying the necessary does."""
    specs = [
        fc_log_densenet((2, 2, 3, 2, 2), lean=lean, **SMALL).with_widths(widths) for lean in (False, True)
    ]
    full, lean = randomised(specs[0]), randomised(specs[1])
    extra = full.load_state_dict(lean.state_dict(), strict=False)
    assert not extra.unexpected_keys
    assert {key.split(".")[1].partition("_")[0] for key in extra.missing_keys} == {"carry"}
    images = torch.randn(2, 3, 16, 24)
    assert torch.equal(full(images), lean(images))
    full(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in full.parameters())
    unread = [full.get_parameter(key) for key in extra.missing_keys if key.endswith(("weight", "bias"))]
    assert not any(parameter.grad.any() for parameter in unread)


def test_a_scale_keeps_one_copy_of_a_feature() -> None:
    graph = preset("fc-log-densenet-103-lean").graph()

    def origin(index: int) -> int:
        return origin(graph.sources[index][0]) if graph.nodes[index].kind == "carry" else index

    copies = [(origin(i), node.scale) for i, node in enumerate(graph.nodes)]
    assert len(set(copies)) == len(copies)
    for source, target in graph.edges():
        steps = abs(graph.nodes[target].scale - graph.nodes[source].scale)
        assert steps == (graph.nodes[target].kind == "carry")


# ---- plain PyTorch -------------------------------------------------------------------------------------


def randomised(spec: NetworkSpec) -> Network:
    """Return a network in evaluation whose parameters and statistics are random."""
    network = Network(spec).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.3)
    return network


def normed(module: nn.Module, h: Tensor) -> Tensor:
    return F.relu(module.norm1(h))


def plain_fc_densenet(
    network: Network, depths: Sequence[int], images: Tensor, *, short_head: bool = False
) -> Tensor:
    """FC-DenseNet as its paper draws it, with the weights of a network."""
    middle = len(depths) // 2
    stack, skips = network.node("stem").conv1(images), []
    for b, depth in enumerate(depths, start=1):
        layers: list[Tensor] = []
        for i in range(1, depth + 1):
            node = network.node(f"block{b}.layer{i}")
            layers.append(node.conv1(normed(node, stack)))
            stack = torch.cat([stack, layers[-1]], dim=1)
        if b <= middle:
            skips.append(stack)
            down = network.node(f"down{b}")
            stack = F.max_pool2d(down.conv1(normed(down, stack)), 2)
        elif b < len(depths):
            up = network.node(f"up{b}").deconv1(torch.cat(layers, dim=1))
            stack = torch.cat([skips.pop(), up], dim=1)
    return network.node("head").conv1(torch.cat(layers, dim=1) if short_head else stack)


@pytest.mark.parametrize("short_head", [False, True])
def test_fc_densenet_is_plain_pytorch(short_head: bool) -> None:
    depths = (2, 3, 2, 1, 2)
    network = randomised(fc_densenet(depths, 4, stem=10, short_head=short_head, **SMALL))
    images = torch.randn(2, 3, 16, 24)
    logits = network(images)
    assert logits.shape == (2, 3, 16, 24)
    torch.testing.assert_close(logits, plain_fc_densenet(network, depths, images, short_head=short_head))
    biases = [name for name, _ in network.named_parameters() if name.endswith("conv1.bias")]
    assert len(biases) == 1 + sum(depths) + 2 + 2 + 1  # stem, layers, down, up, head


def test_a_sparse_block_reads_and_gives_what_its_rule_says() -> None:
    graph = fc_densenet((4, 4, 4), 4, topology="sparse").graph()
    reads = {
        node.name: [graph.nodes[i].name for i in sources]
        for node, sources in zip(graph.nodes, graph.sources, strict=True)
    }
    assert reads["block1.layer4"] == ["stem", "block1.layer2", "block1.layer3"]
    assert reads["block1.out"] == ["block1.layer1", "block1.layer3", "block1.layer4"]
    assert reads["up2"] == ["block2.layer1", "block2.layer3", "block2.layer4"]
    assert reads["block3.layer1"] == ["block1.out", "up2"]


def twice(network: Network, names: Sequence[str], h: Tensor) -> Tensor:
    for name in names:
        node = network.node(name)
        h = F.relu(node.norm1(node.conv1(h)))
    return h


def test_unet_is_plain_pytorch() -> None:
    network = randomised(unet((2, 3, 5), **SMALL))
    images = torch.randn(2, 3, 16, 24)
    e0 = twice(network, ["stem", "block1.layer2"], images)
    e1 = twice(network, ["block2.layer1", "block2.layer2"], F.max_pool2d(e0, 2))
    h = twice(network, ["block3.layer1", "block3.layer2"], F.max_pool2d(e1, 2))
    for block, skip in ((4, e1), (5, e0)):
        up = network.node(f"block{block}.up").deconv1(h)
        h = twice(network, [f"block{block}.layer1", f"block{block}.layer2"], torch.cat([skip, up], dim=1))
    torch.testing.assert_close(network(images), network.node("head").conv1(h))


def test_a_hypercolumn_is_a_sum_of_predictions() -> None:
    """The 1x1 convolution of the concat equals the sum of upsampled 1x1 convolutions of each scale."""
    network = randomised(hypercolumn((2, 3, 5), **SMALL))
    images = torch.randn(2, 3, 16, 24)
    features = [twice(network, ["stem", "block1.layer2"], images)]
    for block in (2, 3):
        names = [f"block{block}.layer1", f"block{block}.layer2"]
        features.append(twice(network, names, F.max_pool2d(features[-1], 2)))
    head = network.node("head").conv1
    assert isinstance(head, nn.Conv2d)
    weights = head.weight.split([2, 3, 5], dim=1)
    predictions = [
        F.interpolate(F.conv2d(h, w), scale_factor=2**scale, mode="bilinear")
        for scale, (h, w) in enumerate(zip(features, weights, strict=True))
    ]
    assert head.bias is not None
    expected = torch.stack(predictions).sum(0) + head.bias[:, None, None]
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("make", [fc_densenet, fc_log_densenet])
def test_a_way_down_and_up_has_an_odd_number_of_blocks(make: object) -> None:
    with pytest.raises(SpecError, match="depths: a way down and up again has an odd number of blocks, got 2"):
        make((3, 3))


def test_an_unknown_pool() -> None:
    with pytest.raises(SpecError, match=r"unknown pool 'mean'\. Known: avg, max\."):
        resolve(NetworkSpec(transition="pool(kind=mean)", blocks=[{"n_layers": 1}] * 2))


def test_blocks_that_are_chains_need_no_join() -> None:
    """What one more layer would read is then one layer: it is the long skip itself."""
    graph = fc_densenet((2, 1, 2), 4, topology="chain").graph()
    assert not [node for node in graph.nodes if node.kind == "join"]
    assert [graph.nodes[i].name for i in graph.sources[graph.index("block3.layer1")]] == [
        "block1.layer2",
        "up2",
    ]
