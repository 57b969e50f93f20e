"""Network against an executor that shares no code with it: networkx for the order, functional torch."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES, ConnectivityGraph, Node
from connsearch.nn import Network
from connsearch.nn.chain import build_op
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec
from connsearch.spec.ops import ACTIVATIONS, NORMS, Act, Conv, Linear, Norm, Pool
from strategies import specs

State = dict[str, Tensor]
PAIRS = list(itertools.product(sorted(TOPOLOGIES), sorted(AGGREGATIONS)))


def randomise(network: nn.Module, seed: int = 0) -> Any:
    """Give parameters and running statistics values of their own, gentle enough for deep networks."""
    torch.manual_seed(seed)
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            noise = torch.rand(value.shape) + 0.5 if "var" in name else 0.3 * torch.randn(value.shape)
            value.data.add_(noise) if "conv" in name else value.data.copy_(noise)
    return network.double()


def images(spec: NetworkSpec, batch: int = 3) -> Tensor:
    shape = (batch, spec.input.channels, spec.input.height, spec.input.width)
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


# ---- the executor --------------------------------------------------------------------------------------


class Executor:
    """Runs a network from its specification and a state dict, with the units' default parameters."""

    def __init__(self, spec: NetworkSpec, state: State, *, training: bool) -> None:
        self.spec, self.state, self.training = spec, state, training
        self.graph = spec.graph().to_networkx()
        self.age = {name: i for i, name in enumerate(self.graph)}

    def run(self, x: Tensor) -> Tensor:
        order = [*nx.topological_sort(self.graph)]
        out: dict[str, Tensor] = {}
        for name in order:
            sources = sorted(self.graph.predecessors(name), key=self.age.__getitem__)
            joined = self.join(name, sources, out) if sources else x
            out[name] = self.node(name, joined)
        return out["head"]

    def block(self, name: str) -> Any:
        """Return the block whose aggregation and unit a node uses."""
        kind, number = self.graph.nodes[name]["kind"], self.graph.nodes[name]["block"]
        return self.spec.blocks[number - 1 - (kind in ("transition", "carry"))]

    def routed(self, name: str) -> bool:
        return self.graph.in_degree(name) > 1 and self.block(name).aggregation.name == "routed"

    def join(self, name: str, sources: list[str], out: dict[str, Tensor]) -> Tensor:
        maps = [out[s] for s in sources]
        if len(maps) == 1:
            return maps[0]
        label = self.block(name).aggregation.label
        own = {k.removeprefix(f"{name}.aggregation."): v for k, v in self.state.items() if k.startswith(name)}
        if label == "sum":
            return torch.stack(maps).sum(0)
        if label == "mean":
            return torch.stack(maps).mean(0)
        if label == "concat":
            return torch.cat(maps, 1)
        if label == "depthwise(form=paper)":
            return (
                torch.einsum("lbchw,lc->bchw", torch.stack(maps), own["weight"]) + own["bias"][:, None, None]
            )
        if label == "depthwise":
            keys = ("weight", "bias", "running_mean", "running_var")
            return torch.stack([self.normal(h, *(own[k][i] for k in keys)) for i, h in enumerate(maps)]).sum(
                0
            )
        if label == "weighted":
            return torch.einsum("lbchw,l->bchw", torch.stack(maps), own["weight"])
        if label == "gated":
            carried = maps[0]
            for i, h in enumerate(maps[1:]):
                t = torch.sigmoid(F.conv2d(carried, own[f"gates.{i}.weight"], own[f"gates.{i}.bias"]))
                carried = t * h + (1 - t) * carried
            return carried
        assert label == "routed"
        return torch.stack([self.gate(s, name, out[s]) * out[s] for s in sources]).sum(0)

    def gate(self, source: str, reader: str, h: Tensor) -> Tensor:
        """softmax_j(W2 ReLU(W1 mean(h) + b1) + b2), of the source's routed readers j in order."""
        readers = sorted(filter(self.routed, self.graph.successors(source)), key=self.age.__getitem__)
        if len(readers) == 1:
            return torch.ones(())
        own = {k.removeprefix(f"{source}.gates."): v for k, v in self.state.items() if k.startswith(source)}
        hidden = F.relu(h.mean((2, 3)) @ own["linear1.weight"].T + own["linear1.bias"])
        gates = torch.softmax(hidden @ own["linear2.weight"].T + own["linear2.bias"], 1)
        return gates[:, readers.index(reader)][:, None, None, None]

    def normal(self, h: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        if self.training:
            mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        scale = weight / torch.sqrt(var + 1e-5)
        return (h - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]

    def norm_act(self, name: str, i: int, h: Tensor, *, act: bool = True) -> Tensor:
        own = (self.state[f"{name}.norm{i}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        h = self.normal(h, *own)
        return F.relu(h) if act else h

    def conv(self, name: str, i: int, h: Tensor, **options: Any) -> Tensor:
        weight, bias = self.state[f"{name}.conv{i}.weight"], self.state.get(f"{name}.conv{i}.bias")
        return F.conv2d(h, weight, bias, padding=weight.shape[-1] // 2, **options)

    def channel_norm(self, name: str, h: Tensor) -> Tensor:
        """(h - mean) / deviation over the channels of each pixel."""
        weight, bias = (self.state[f"{name}.norm1.{k}"][:, None, None] for k in ("weight", "bias"))
        mean, var = h.mean(1, keepdim=True), h.var(1, unbiased=False, keepdim=True)
        return (h - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def attention(self, name: str, h: Tensor) -> Tensor:
        """softmax(q^T k / sqrt(C)) over pixels, as weights of v."""
        q, k, v = self.conv(name, 1, self.channel_norm(name, h)).flatten(2).chunk(3, 1)
        weights = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k) / h.shape[1] ** 0.5, -1)
        seen = torch.einsum("bnm,bcm->bcn", weights, v)
        return self.conv(name, 2, seen.unflatten(2, h.shape[2:]))

    def node(self, name: str, h: Tensor) -> Tensor:
        kind = self.graph.nodes[name]["kind"]
        if kind == "stem" and self.spec.stem.name == "imagenet":
            return F.max_pool2d(self.norm_act(name, 1, self.conv(name, 1, h, stride=2)), 3, 2, padding=1)
        if kind == "stem":
            return self.conv(name, 1, h)
        if kind == "transition":
            return self.conv(name, 1, self.norm_act(name, 1, h, act=False), stride=2)
        if kind == "carry":
            return F.avg_pool2d(self.conv(name, 1, self.norm_act(name, 1, h)), 2)
        if kind == "head":
            weight, bias = self.state[f"{name}.linear1.weight"], self.state[f"{name}.linear1.bias"]
            return self.norm_act(name, 1, h).mean((2, 3)) @ weight.T + bias
        unit = self.block(name).unit.name
        n_convs = {"basic": 2, "bottleneck": 3, "dense_bottleneck": 2, "conv": 1}
        if unit == "attention":
            return self.attention(name, h)
        if unit == "mlp":
            return self.conv(name, 2, F.gelu(self.conv(name, 1, self.channel_norm(name, h))))
        if unit == "act_separable":
            h = self.conv(name, 2, self.conv(name, 1, F.relu(h), groups=h.shape[1]))
            return self.norm_act(name, 1, h, act=False)
        if unit == "separable":
            h = self.conv(name, 1, self.norm_act(name, 1, h), groups=h.shape[1])
            return self.conv(name, 2, h)
        if unit.startswith("post_"):
            last = {"post_basic": 2, "post_bottleneck": 3}[unit]
            for i in range(1, last + 1):
                h = self.norm_act(name, i, self.conv(name, i, h), act=i < last)
            return h
        for i in range(1, n_convs[unit] + 1):
            h = self.conv(name, i, self.norm_act(name, i, h))
        return h


def two_blocks(topology: str, aggregation: str, unit: str = "basic", **values: Any) -> NetworkSpec:
    block = {"topology": topology, "aggregation": aggregation, "unit": unit, "n_layers": 3, "width": 4}
    values = {"input": {"height": 9, "width": 7}, "n_classes": 3} | values
    return NetworkSpec(blocks=[block, {**block, "width": 5}], **values)


SPECS = {
    **{f"{a} {t}": two_blocks(t, a) for t, a in PAIRS if t in ("dense", "log_dense")},
    "depthwise(form=paper)": two_blocks("dense", "depthwise(form=paper)"),
    **{f"unit {unit}": two_blocks("half", "mean", unit) for unit in sorted(UNITS)},
    **{f"global {a}": two_blocks("log_dense", a, scope="global") for a in sorted(AGGREGATIONS)},
    "imagenet": two_blocks("dense", "sum", stem="imagenet", input={"height": 21, "width": 17}),
    "compressed": two_blocks("dense", "concat", "dense_bottleneck", compression=0.5, stem_ratio=2),
    "two aggregations": NetworkSpec(
        blocks=[
            {"topology": "dense", "aggregation": a, "n_layers": 3, "width": 4} for a in ("routed", "gated")
        ],
        scope="global",
        input={"height": 8, "width": 8},
    ),
    "own graph": NetworkSpec.from_graph(
        ConnectivityGraph.from_edges(
            [("s", "a"), ("s", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "head"), ("d", "head")]
        ),
        aggregation="routed",
        width=4,
        input={"height": 5, "width": 6},
    ),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_it_computes_what_the_specification_says(name: str, training: bool) -> None:
    spec = SPECS[name]
    network = randomise(Network(spec)).train(training)
    x = images(spec)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state |= dict(network.named_parameters())  # the very parameters, so that both have gradients
    expected = Executor(spec, state, training=training).run(x)
    found = network(x)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    parameters = list(network.parameters())
    for mine, other in zip(
        *(torch.autograd.grad(y.square().sum(), parameters) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)


# ---- routing -------------------------------------------------------------------------------------------


@pytest.fixture
def routed() -> tuple[NetworkSpec, Any]:
    spec = NetworkSpec(
        blocks=[{"topology": "dense", "aggregation": "routed(hidden=5)", "n_layers": 3, "width": 4}],
        input={"height": 4, "width": 6},
    )
    return spec, randomise(Network(spec)).eval()


def watch(network: Any) -> dict[str, Tensor]:
    """Record what every node, its aggregation and its gates give out."""
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out))
    return seen


def test_each_source_distributes_itself_over_its_readers(routed: tuple[NetworkSpec, Any]) -> None:
    spec, network = routed
    seen = watch(network)
    network(images(spec))
    n_readers = {"stem": 3, "block1.layer1": 3, "block1.layer2": 2}  # layer 1 reads the stem alone
    outputs = {"stem": "stem.conv1"} | {f"block1.layer{i}": f"block1.layer{i}.conv2" for i in (1, 2)}
    for source, n in n_readers.items():
        h = seen[outputs[source]].numpy(force=True)
        w = {k: v.numpy(force=True) for k, v in network.node(source).gates.state_dict().items()}
        hidden = np.maximum(h.mean((2, 3)) @ w["linear1.weight"].T + w["linear1.bias"], 0)
        logits = hidden @ w["linear2.weight"].T + w["linear2.bias"]
        gates = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert gates.shape == (3, n)
        np.testing.assert_allclose(seen[f"{source}.gates.softmax1"].numpy(force=True), gates, rtol=1e-9)
    names = [f"{reader}.aggregation" for reader in ("block1.layer2", "block1.layer3", "head")]
    given = sum(seen[outputs[source]] for source in outputs) + seen["block1.layer3.conv2"]
    torch.testing.assert_close(sum(seen[name] for name in names), given)  # nothing is lost, nothing doubled


def test_zero_gate_weights_share_evenly(routed: tuple[NetworkSpec, Any]) -> None:
    spec, network = routed
    for name, value in network.named_parameters():
        if ".gates.linear2." in name:
            value.data.zero_()
    seen = watch(network)
    network(images(spec))
    stem, first = seen["stem.conv1"], seen["block1.layer1.conv2"]
    torch.testing.assert_close(seen["block1.layer2.aggregation"], (stem + first) / 3)
    second = seen["block1.layer2.conv2"]
    torch.testing.assert_close(seen["block1.layer3.aggregation"], (stem + first) / 3 + second / 2)


def test_a_source_with_one_routed_reader_gives_it_everything(routed: tuple[NetworkSpec, Any]) -> None:
    spec, network = routed
    assert network.node("block1.layer3").gates is None
    seen = watch(network)
    network(images(spec))
    gates = {s: seen[f"{s}.gates.softmax1"][:, -1, None, None, None] for s in
             ("stem", "block1.layer1", "block1.layer2")}  # fmt: skip
    expected = seen["block1.layer3.conv2"] + gates["stem"] * seen["stem.conv1"]
    for i in (1, 2):
        expected = expected + gates[f"block1.layer{i}"] * seen[f"block1.layer{i}.conv2"]
    torch.testing.assert_close(seen["head.aggregation"], expected)


def test_a_block_without_gates_in_a_routed_network() -> None:
    """Every source has one reader of several sources at most: nothing is gated, all weights are one."""
    spec = NetworkSpec(
        blocks=[{"topology": "every_other", "aggregation": "routed", "n_layers": 2, "width": 3}]
    )
    network = randomise(Network(spec)).eval()
    assert not any("gates" in key for key in network.state_dict())
    assert network_cost(spec).aggregation_macs == 0


# ---- state dict ----------------------------------------------------------------------------------------

GOLDEN = """\
stem.conv1.weight 4x3x3x3
block1.layer1.norm1.weight 4
block1.layer1.norm1.bias 4
block1.layer1.norm1.running_mean 4
block1.layer1.norm1.running_var 4
block1.layer1.norm1.num_batches_tracked -
block1.layer1.conv1.weight 4x4x3x3
block1.layer2.aggregation.weight 2x4
block1.layer2.aggregation.bias 2x4
block1.layer2.aggregation.running_mean 2x4
block1.layer2.aggregation.running_var 2x4
block1.layer2.aggregation.num_batches_tracked -
block1.layer2.norm1.weight 4
block1.layer2.norm1.bias 4
block1.layer2.norm1.running_mean 4
block1.layer2.norm1.running_var 4
block1.layer2.norm1.num_batches_tracked -
block1.layer2.conv1.weight 4x4x3x3
transition1.aggregation.weight 3x4
transition1.aggregation.bias 3x4
transition1.aggregation.running_mean 3x4
transition1.aggregation.running_var 3x4
transition1.aggregation.num_batches_tracked -
transition1.norm1.weight 4
transition1.norm1.bias 4
transition1.norm1.running_mean 4
transition1.norm1.running_var 4
transition1.norm1.num_batches_tracked -
transition1.conv1.weight 5x4x3x3
transition1.gates.linear1.weight 2x5
transition1.gates.linear1.bias 2
transition1.gates.linear2.weight 2x2
transition1.gates.linear2.bias 2
block2.layer1.norm1.weight 5
block2.layer1.norm1.bias 5
block2.layer1.norm1.running_mean 5
block2.layer1.norm1.running_var 5
block2.layer1.norm1.num_batches_tracked -
block2.layer1.conv1.weight 5x5x3x3
block2.layer1.gates.linear1.weight 2x5
block2.layer1.gates.linear1.bias 2
block2.layer1.gates.linear2.weight 2x2
block2.layer1.gates.linear2.bias 2
block2.layer2.norm1.weight 5
block2.layer2.norm1.bias 5
block2.layer2.norm1.running_mean 5
block2.layer2.norm1.running_var 5
block2.layer2.norm1.num_batches_tracked -
block2.layer2.conv1.weight 5x5x3x3
head.norm1.weight 5
head.norm1.bias 5
head.norm1.running_mean 5
head.norm1.running_var 5
head.norm1.num_batches_tracked -
head.linear1.weight 10x5
head.linear1.bias 10
"""


def test_keys_of_the_state_dict_are_stable() -> None:
    blocks = [
        {"topology": "dense", "aggregation": "depthwise", "unit": "conv", "n_layers": 2, "width": 4},
        {"topology": "dense", "aggregation": "routed(hidden=2)", "unit": "conv", "n_layers": 2, "width": 5},
    ]
    state = Network(NetworkSpec(blocks=blocks)).state_dict()
    assert "".join(f"{k} {'x'.join(map(str, v.shape)) or '-'}\n" for k, v in state.items()) == GOLDEN


@settings(max_examples=15)
@given(specs())
def test_a_state_dict_carries_a_network_over(spec: NetworkSpec) -> None:
    first, second = (Network(spec).double().eval() for _ in range(2))
    randomise(first)
    second.load_state_dict(first.state_dict())
    x = images(spec)
    assert torch.equal(first(x), second(x))
    assert first.spec == spec


def test_the_seed_decides_the_initial_weights() -> None:
    def made(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return Network(two_blocks("dense", "gated")).state_dict()

    same, again, other = made(3), made(3), made(4)
    assert all(torch.equal(value, again[key]) for key, value in same.items())
    assert not all(torch.equal(value, other[key]) for key, value in same.items())


@pytest.mark.parametrize(
    ("op", "std"),
    [
        (Conv(30, 40, 3), (2 / (9 * 40)) ** 0.5),
        (Conv(30, 40, 3, groups=10), (2 * 10 / (9 * 40)) ** 0.5),
        (Conv(64, 64, 1), (2 / 64) ** 0.5),
    ],
)
def test_convolutions_start_normal_with_the_deviation_of_their_fan_out(op: Conv, std: float) -> None:
    torch.manual_seed(0)
    weight = build_op(op).weight
    assert weight.std().item() == pytest.approx(std, rel=0.06)
    assert abs(weight.mean().item()) < 0.1 * std


def test_linear_layers_and_norms_start_as_published() -> None:
    assert torch.equal(build_op(Linear(4, 3)).bias, torch.zeros(3))
    for norm in set(NORMS) - {"none"}:
        module = build_op(Norm(norm, 6))
        assert torch.equal(module.weight, torch.ones(6))
        assert torch.equal(module.bias, torch.zeros(6))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_is_torchs(kind: str) -> None:
    x = torch.linspace(-3, 3, 13)
    assert torch.equal(build_op(Act(kind))(x), getattr(F, kind)(x))


def test_every_norm_is_its_formula() -> None:
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    normalised = {"layer": (1, 2, 3), "instance": (2, 3), "channel": (1,), "batch": (0, 2, 3)}
    assert {*normalised, "none"} == set(NORMS)
    for norm, axes in normalised.items():
        module = build_op(Norm(norm, 6)).double()
        mean, var = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
        torch.testing.assert_close(module(x), (x - mean) / torch.sqrt(var + 1e-5))


def test_what_cannot_be_built_is_named() -> None:
    with pytest.raises(SpecError, match=r"no module builds the norm 'batsch'"):
        build_op(Norm("batsch", 3))
    with pytest.raises(SpecError, match=r"no module builds the operation conv"):
        build_op("conv")
    assert isinstance(build_op(Pool("max", 3, 2, 1)), nn.MaxPool2d)


# ---- every pair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("topology", "aggregation"), PAIRS)
def test_every_pair_trains_a_step_and_costs_what_is_counted(topology: str, aggregation: str) -> None:
    torch.manual_seed(0)
    spec = two_blocks(topology, aggregation, "conv")
    network = Network(spec)
    cost = network_cost(spec)
    assert cost.params == sum(p.numel() for p in network.parameters())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    loss = F.cross_entropy(network(images(spec).float()), torch.tensor([0, 1, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert torch.isfinite(network(images(spec).float())).all()


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "got"),
    [((3, 9, 7), "3 x 9 x 7"), ((2, 3, 9, 8), "2 x 3 x 9 x 8"), ((2, 1, 9, 7), "2 x 1 x 9 x 7"), ((), "")],
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], got: str) -> None:
    network = Network(two_blocks("chain", "sum"))
    with pytest.raises(
        SpecError, match=f"^images must be B x 3 x 9 x 7, got {got}: change the images or the network"
    ):
        network(torch.zeros(shape))


@pytest.mark.parametrize("name", ["forward", "training", "spec.x", "a.training", "_spec", "node"])
def test_names_that_torch_or_the_network_uses_are_refused(name: str) -> None:
    graph = ConnectivityGraph((Node("stem", "stem"), Node(name), Node("head", "head")), ((), (0,), (1,)))
    with pytest.raises(
        SpecError, match=rf"node name '{name}' clashes with an attribute of torch modules: rename it"
    ):
        Network(NetworkSpec.from_graph(graph))


@pytest.mark.parametrize("name", ["conv1", "aggregation", "a.b.c", "stem2", "modules_", "0"])
def test_other_names_are_free(name: str) -> None:
    graph = ConnectivityGraph((Node("stem", "stem"), Node(name), Node("head", "head")), ((), (0,), (1,)))
    network = Network(NetworkSpec.from_graph(graph))
    assert f"{name}.conv1.weight" in network.state_dict()


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"no node 'block1\.layer9'\. Did you mean 'block1\.layer"):
        Network(two_blocks("chain", "sum")).node("block1.layer9")
