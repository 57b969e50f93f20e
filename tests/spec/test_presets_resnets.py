"""ResNets and their relatives: exact counts, wiring, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.cost import Budget, CostModel, fit_width, network_cost
from connsearch.cost.published import figures_of
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.registry import Ref
from connsearch.spec import UNITS, NetworkSpec, resolve
from connsearch.spec.chains import STEMS
from connsearch.spec.ops import Conv, Norm
from connsearch.spec.presets import preset
from connsearch.spec.presets.residual import post_activation, pre_activation, residual_graph

SMALL = {"input": {"height": 8, "width": 8}, "n_classes": 5}


@pytest.mark.parametrize(
    ("name", "n_classes", "params"),
    [
        ("resnet-20", 10, 269_722),
        ("resnet-32", 10, 464_154),
        ("resnet-44", 10, 658_586),
        ("resnet-56", 10, 853_018),
        ("resnet-110", 10, 1_727_962),
        ("resnet-18", 1000, 11_689_512),
        ("resnet-34", 1000, 21_797_672),
        ("resnet-50", 1000, 25_557_032),
        ("resnet-101", 1000, 44_549_160),
        ("resnet-152", 1000, 60_192_808),
        ("resnet-v2-164", 10, 1_703_258),
        ("resnet-v2-1001", 10, 10_327_706),
        ("resnet-v2-50", 1000, 25_549_352),
        ("resnet-v2-101", 1000, 44_541_480),
        ("resnet-v2-152", 1000, 60_185_128),
        ("resnet-v2-200", 1000, 64_666_152),
        ("wrn-50-2", 1000, 68_883_240),
        ("resnext-29-8x64d", 10, 34_426_698),
        ("resnext-50-32x4d", 1000, 25_028_904),
        ("resnext-101-32x4d", 1000, 44_177_704),
        ("elu-resnet-110", 10, 1_723_898),
    ],
)
def test_parameters(name: str, n_classes: int, params: int) -> None:
    assert network_cost(preset(name, n_classes=n_classes)).params == params


@pytest.mark.parametrize(
    ("name", "mparams", "gflops"),
    [("wrn-40-4", 8.97, 2.60), ("wrn-16-8", 11.01, 3.10), ("wrn-28-10", 36.54, 10.49)],
)
def test_wide_resnets_of_100_classes(name: str, mparams: float, gflops: float) -> None:
    """By 2 x MAC, and by DelugeNets' convention."""
    cost = network_cost(preset(name, n_classes=100))
    assert round(cost.params / 1e6, 2) == mparams
    assert {round(cost.flops(c) / 1e9, 2) for c in ("2mac", "delugenet")} == {gflops}
    printed = [f for f in figures_of([name]) if f.quantity == "2mac"]
    assert [f.printed for f in printed] == [f"{gflops:.2f}G"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [("resnet-101", 44.6), ("resnet-152", 60.3), ("resnet-v2-200", 64.8), ("wrn-50-2", 68.9)],
)
def test_delugenets_table_counts_a_bias_in_every_convolution(name: str, printed: float) -> None:
    """What notes on figures that are not met say: Table 3 of DelugeNets."""
    spec = preset(name)
    biases = sum(op.out_channels for node in resolve(spec).nodes for op in node.chain if isinstance(op, Conv))
    assert round((network_cost(spec).params + biases) / 1e6, 1) == printed


@pytest.mark.parametrize(("name", "printed"), [("resnet-v2-164", 1.7), ("resnet-v2-1001", 10.2)])
def test_wide_resnets_table_counts_no_norms(name: str, printed: float) -> None:
    """What the note on ResNet-1001's 10.2 M says."""
    spec = preset(name)
    norms = sum(2 * op.channels for node in resolve(spec).nodes for op in node.chain if isinstance(op, Norm))
    assert round((network_cost(spec).params - norms) / 1e6, 1) == printed


# ---- wiring --------------------------------------------------------------------------------------------


def test_running_sums_have_few_edges() -> None:
    spec = preset("resnet-v2-1001")
    assert network_cost(spec).n_layers == 333
    assert spec.graph().n_edges == 3 * 333 + 3 * 2 + 1  # a unit has 3, its block's first one 2 more


def test_a_version_1_network_reads_as_it_runs() -> None:
    spec = post_activation((1, 1), (4, 8), Ref("post_basic"), **SMALL)
    assert [line.split(maxsplit=2) for line in str(spec.graph()).splitlines()[1:]] == [
        ["stem", "stem", "image"],
        ["block1.unit1", "unit", "stem"],
        ["block1.unit1_sum", "join", "stem, block1.unit1"],
        ["block2.unit1_shortcut", "carry", "block1.unit1_sum"],
        ["block2.unit1", "unit", "block1.unit1_sum"],
        ["block2.unit1_sum", "join", "block2.unit1_shortcut, block2.unit1"],
        ["head", "head", "block2.unit1_sum"],
    ]


def test_a_large_version_2_network_reads_its_activated_stem() -> None:
    """As preresnet.lua: the first unit has no norm of its own, the first of each later block shares one."""
    graph = preset("resnet-v2-50").graph()
    assert [n.name for n in graph.nodes if n.part == "preact"] == [
        f"block{b}.unit1_preact" for b in (2, 3, 4)
    ]
    assert graph.sources[graph.index("block1.unit1")] == (graph.index("stem"),)


def test_a_wide_resnet_has_a_stem_of_16() -> None:
    for name in ("wrn-40-4", "wrn-16-8", "wrn-28-10"):
        assert resolve(preset(name)).nodes[0].out_shape == (16, 32, 32)


@pytest.mark.parametrize("k", range(1, 13))
def test_a_stem_of_16_is_a_share_of_any_width(k: int) -> None:
    """In floating point 16 k (1 / k) may be a little less than 16."""
    spec = pre_activation((1,), (16 * k,), Ref("basic"), stem_share=1 / k)
    assert resolve(spec).nodes[0].out_shape.channels == 16


def test_where_bottlenecks_stride() -> None:
    """Torchvision's in the 3x3 convolution, resnet-1k-layers' in the first."""

    def strides(name: str) -> list[int]:
        plan = resolve(preset(name))
        return [
            op.stride for op in plan.nodes[plan.graph.index("block2.unit1")].chain if isinstance(op, Conv)
        ]

    assert strides("resnet-50") == strides("resnet-v2-50") == [1, 2, 1]
    assert strides("resnet-v2-164") == [2, 1, 1]


def test_a_bottleneck_strides_in_its_first_or_its_middle_convolution() -> None:
    unit = UNITS.ref("bottleneck", stride_at="last")
    message = r"^blocks\[0\]\.unit: unknown stride_at 'last'\. Known: first, middle\.$"
    with pytest.raises(SpecError, match=message):
        resolve(NetworkSpec(blocks=[{"unit": unit, "n_layers": 1}]))


# ---- what they compute ---------------------------------------------------------------------------------


def random_network(spec: NetworkSpec) -> Network:
    """Return a network in evaluation whose weights and statistics are random."""
    network = Network(spec).double().eval()
    rng = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=rng, dtype=value.dtype) / 3)
        if key.endswith("running_var"):
            value.abs_().add_(0.5)
    return network


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Weights:
    """Operations of a network by the keys of its state dict."""

    def __init__(self, network: Network) -> None:
        self.state = network.state_dict()

    def conv(self, key: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{key}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, key: str, x: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{key}.{name}"] for name in names))

    def head(self, x: Tensor) -> Tensor:
        return F.linear(
            x.mean(dim=(2, 3)), self.state["head.linear1.weight"], self.state["head.linear1.bias"]
        )


def test_version_1_without_weights_in_shortcuts() -> None:
    stem = STEMS.ref("conv", norm="batch", activation="relu")
    spec = post_activation((1, 1), (4, 8), Ref("post_basic"), shortcut="zero_pad", stem=stem, **SMALL)
    network = random_network(spec)
    w = Weights(network)
    h = w.norm("stem.norm1", w.conv("stem.conv1", images())).relu()
    for block, stride in ((1, 1), (2, 2)):
        name = f"block{block}.unit1"
        f = w.norm(f"{name}.norm1", w.conv(f"{name}.conv1", h, stride)).relu()
        f = w.norm(f"{name}.norm2", w.conv(f"{name}.conv2", f))
        skip = h if stride == 1 else F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        h = (f + skip).relu()
    torch.testing.assert_close(network(images()), w.head(h))


def test_version_2_shares_the_first_activation() -> None:
    unit = UNITS.ref("bottleneck", expansion=4, stride_at="first")
    network = random_network(pre_activation((1, 2), (3, 5), unit, **SMALL))
    w = Weights(network)

    def branch(name: str, x: Tensor, first: int, stride: int) -> Tensor:
        x = w.conv(f"{name}.conv1", x, stride)
        x = w.conv(f"{name}.conv2", w.norm(f"{name}.norm{first}", x).relu())
        return w.conv(f"{name}.conv3", w.norm(f"{name}.norm{first + 1}", x).relu())

    r = w.conv("stem.conv1", images())
    for block, stride in ((1, 1), (2, 2)):
        name = f"block{block}.unit1"
        active = w.norm(f"{name}_preact.norm1", r).relu()
        r = w.conv(f"{name}_shortcut.conv1", active, stride) + branch(name, active, 1, stride)
    name = "block2.unit2"
    r = r + branch(name, w.norm(f"{name}.norm1", r).relu(), 2, 1)
    torch.testing.assert_close(network(images()), w.head(w.norm("head.norm1", r).relu()))


def test_running_sums_are_the_dense_sums_of_version_2() -> None:
    """x_l = sum_{j<l} h_j, written with the topology `dense`, gives the same logits."""
    running = NetworkSpec(
        graph=residual_graph((3,), widens=False), blocks=[{"unit": "basic", "width": 4}], **SMALL
    )
    dense = NetworkSpec(blocks=[{"topology": "dense", "unit": "basic", "width": 4, "n_layers": 3}], **SMALL)
    one, other = random_network(running), Network(dense).double().eval()
    other.load_state_dict({k.replace(".unit", ".layer"): v for k, v in one.state_dict().items()})
    torch.testing.assert_close(one(images()), other(images()))


def test_a_unit_of_exponential_linear_units() -> None:
    plan = resolve(preset("elu-resnet-110"))
    node = plan.nodes[plan.graph.index("block1.unit1")]
    assert [op[-1] for op in node.chain] == ["conv", "act", "conv", "norm"]
    join = plan.nodes[plan.graph.index("block1.unit1_sum")]
    assert join.chain == ()


def test_a_highway_join_is_gated_by_what_the_unit_reads() -> None:
    """h_l = T F(h_{l-1}) + (1 - T) h_{l-1}; gates start nearly closed."""
    network = random_network(preset("highway-19"))
    w = Weights(network)
    seen: dict[str, Tensor] = {}
    for name in ("stem", "block1.unit1"):
        network.node(name)._modules["norm1" if "unit" in name else "conv1"].register_forward_hook(
            lambda m, a, out, name=name: seen.__setitem__(name, out.detach())
        )
    network.node("block1.unit1_join").aggregation.register_forward_hook(
        lambda m, a, out: seen.__setitem__("join", out.detach())
    )
    network(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    gate = w.conv("block1.unit1_join.aggregation.gates.0", seen["stem"]).sigmoid()
    expected = gate * seen["block1.unit1"].relu() + (1 - gate) * seen["stem"]
    torch.testing.assert_close(seen["join"], expected)

    fresh = Network(preset("highway-19")).state_dict()
    assert {b.unique().item() for k, b in fresh.items() if k.endswith("gates.0.bias")} == {-2.0}


# ---- widths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet-20", "resnet-v2-164", "wrn-16-8", "resnext-29-8x64d", "highway-19"])
def test_widths_fit_a_budget(name: str) -> None:
    spec = preset(name)
    macs = network_cost(spec).macs // 2
    fitted = fit_width(spec, Budget(macs=macs))
    assert 0.98 * macs <= network_cost(fitted).macs <= macs
    assert fitted.widths[0] < fitted.widths[1] < fitted.widths[2]
    assert CostModel(spec).cost(fitted.widths) == network_cost(fitted)
