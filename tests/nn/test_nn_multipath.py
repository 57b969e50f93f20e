"""Data-dependent routing against its equations, and against the identities that follow from them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.spec import NetworkSpec
from connsearch.spec.presets.multipath import multipath

WIDTHS, DEPTHS = (4, 6), (2, 3)
each_base = pytest.mark.parametrize("base", ["plain", "residual"])
each_routing = pytest.mark.parametrize("routing", ["connection", "prediction"])


def spec_of(n: int, **values: Any) -> NetworkSpec:
    size = {"height": 10, "width": 7}
    return multipath(n, depths=DEPTHS, widths=WIDTHS, hidden=5, n_classes=3, input=size, **values)


def network_of(spec: NetworkSpec, *, training: bool = False) -> Any:
    """Return the network with random parameters and statistics, in double precision."""
    torch.manual_seed(0)
    network = Network(spec).double()
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            noise = torch.rand_like(value) + 0.5 if "var" in name else 0.3 * torch.randn_like(value)
            value.data.add_(noise) if "conv" in name else value.data.copy_(noise)
    return network.train(training)


def images(spec: NetworkSpec) -> Tensor:
    shape = (3, spec.input.channels, spec.input.height, spec.input.width)
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


class Reference:
    """The equations, path by path, from a state dict; it knows neither graphs nor plans."""

    def __init__(self, state: dict[str, Tensor], n: int, base: str, routing: str, *, training: bool) -> None:
        self.state, self.n, self.base, self.routing, self.training = state, n, base, routing, training
        self.gates: dict[str, Tensor] = {}

    def conv(self, key: str, h: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(h, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"), stride, 1)

    def norm(self, key: str, h: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{key}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        if self.training:
            mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        scale = weight / torch.sqrt(var + 1e-5)
        return (h - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]

    def gate(self, name: str, x: Tensor) -> Tensor:
        """softmax(W2 ReLU(W1 mean(x) + b1) + b2)."""
        w1, b1, w2, b2 = (
            self.state[f"{name}.gates.linear{i}.{k}"] for i in (1, 2) for k in ("weight", "bias")
        )
        self.gates[name] = torch.softmax(F.relu(x.mean((2, 3)) @ w1.T + b1) @ w2.T + b2, 1)
        return self.gates[name]

    def route(self, block: int, inputs: dict[str, Tensor]) -> list[Tensor]:
        gates = {name: self.gate(name, x) for name, x in inputs.items()}
        outputs = []
        for j in range(self.n):
            total = torch.zeros(())
            for i, (name, x) in enumerate(inputs.items()):
                if self.routing == "prediction":
                    x = self.conv(f"block{block}.path{j}.from{i}.conv1", x)
                total = total + gates[name][:, j, None, None, None] * x
            outputs.append(F.relu(total) if self.routing == "prediction" else total)
        return outputs

    def path(self, block: int, j: int, h: Tensor) -> tuple[str, Tensor]:
        name = ""
        first = 2 if (self.base, self.routing) == ("plain", "prediction") else 1
        for i in range(first, DEPTHS[block - 1] + 1):
            name = f"block{block}.path{j}.unit{i}"
            stride = 2 if block > 1 and i == 1 and self.base == "residual" else 1
            f = F.relu(self.norm(f"{name}.norm1", self.conv(f"{name}.conv1", h, stride)))
            if self.base == "plain":
                h = f
                continue
            f = self.norm(f"{name}.norm2", self.conv(f"{name}.conv2", f))
            missing = f.shape[1] - h.shape[1]
            skip = F.pad(h[:, :, ::stride, ::stride], (0, 0, 0, 0, missing // 2, missing - missing // 2))
            h, name = F.relu(f + skip), f"{name}_sum"
        return name, h

    def run(self, x: Tensor) -> Tensor:
        inputs = {"stem": F.relu(self.norm("stem.norm1", self.conv("stem.conv1", x)))}
        for block in (1, 2):
            if self.base == "plain" and block == 2:
                inputs = {f"block2.path{j}.pool": F.max_pool2d(h, 2) for j, h in enumerate(inputs.values())}
            inputs = dict(self.path(block, j, h) for j, h in enumerate(self.route(block, inputs)))
        mean = torch.stack([*inputs.values()]).mean(0).mean((2, 3))
        return mean @ self.state["head.linear1.weight"].T + self.state["head.linear1.bias"]


@pytest.mark.parametrize("n", [2, 3])
@each_base
@each_routing
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_it_computes_the_equations(n: int, base: str, routing: str, training: bool) -> None:
    spec = spec_of(n, base=base, routing=routing)
    network = network_of(spec, training=training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state |= dict(network.named_parameters())
    reference = Reference(state, n, base, routing, training=training)
    expected = reference.run(images(spec))
    network.keep_gates = True
    found = network(images(spec))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    parameters = list(network.parameters())
    both = (torch.autograd.grad(y.square().sum(), parameters) for y in (found, expected))
    for mine, other in zip(*both, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)
    values = network.gate_values()
    assert set(values) == set(reference.gates)
    for name, gates in reference.gates.items():
        torch.testing.assert_close(values[name], gates)


# ---- identities ------------------------------------------------------------------------------------------


def watch(network: Any) -> dict[str, Tensor]:
    """Record what every aggregation gives out, and what every node's last operation does."""
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out))
    return seen


def set_gates(network: Any, bias: Any) -> None:
    """Give all gates' last layer no weights and biases of one's choice, by the name of the node."""
    for name, value in network.named_parameters():
        if ".gates.linear2." in name:
            value.data.zero_()
            if name.endswith("bias"):
                value.data.copy_(bias(name.split(".gates")[0], value))


@pytest.mark.parametrize("n", [2, 3])
@each_base
def test_gates_of_no_weight_average(n: int, base: str) -> None:
    """Y_j = 1/n sum_i X_i for every j: each gate is 1/n."""
    spec = spec_of(n, base=base)
    network = network_of(spec)
    set_gates(network, lambda name, value: torch.zeros_like(value))
    network.keep_gates = True
    seen = watch(network)
    network(images(spec))
    values = network.gate_values()
    assert all(torch.equal(gates, torch.full_like(gates, 1 / n)) for gates in values.values())
    stem = seen["stem.act1"]
    last = "pool.pool1" if base == "plain" else f"unit{DEPTHS[0]}_sum.act1"
    before = [seen[f"block{2 if base == 'plain' else 1}.path{j}.{last}"] for j in range(n)]
    for j in range(n):
        torch.testing.assert_close(seen[f"block1.path{j}.routed.aggregation"], stem / n)
        torch.testing.assert_close(seen[f"block2.path{j}.routed.aggregation"], torch.stack(before).sum(0) / n)


@pytest.mark.parametrize("n", [2, 3])
@each_base
def test_nothing_is_lost_and_nothing_doubled(n: int, base: str) -> None:
    """sum_j Y_j = sum_i X_i, as the gates of each X_i add up to 1."""
    spec = spec_of(n, base=base)
    network = network_of(spec)
    network.keep_gates = True
    seen = watch(network)
    network(images(spec))
    for gates in network.gate_values().values():
        torch.testing.assert_close(gates.sum(1), torch.ones(3, dtype=torch.float64))
    last = "pool.pool1" if base == "plain" else f"unit{DEPTHS[0]}_sum.act1"
    before = [seen[f"block{2 if base == 'plain' else 1}.path{j}.{last}"] for j in range(n)]
    for block, given in ((1, seen["stem.act1"]), (2, torch.stack(before).sum(0))):
        routed = torch.stack([seen[f"block{block}.path{j}.routed.aggregation"] for j in range(n)])
        torch.testing.assert_close(routed.sum(0), given)


def diagonal(name: str, value: Tensor) -> Tensor:
    """A softmax of these is one on the node's own path, exactly, and zero on all others."""
    if name == "stem":
        return torch.zeros_like(value)
    own = int(name.split("path")[1].split(".")[0])
    return torch.where(torch.arange(len(value)) == own, 1e4, 0.0)


@pytest.mark.parametrize("n", [2, 3])
@each_base
@each_routing
def test_saturated_gates_make_independent_paths(n: int, base: str, routing: str) -> None:
    """The logits are the mean over paths that never meet, to the last bit of what each path gives out."""
    spec = spec_of(n, base=base, routing=routing)
    network = network_of(spec)
    set_gates(network, diagonal)
    x, whole = images(spec), copy.deepcopy(network)
    seen = watch(whole)
    whole(x)
    for j in range(n):
        alone = copy.deepcopy(network)
        for name, value in alone.named_parameters():  # whatever the other paths give out
            crossing = ".from" in name and "block2" in name and f".from{j}." not in name
            if ".path" in name and ".gates" not in name and (f".path{j}." not in name or crossing):
                value.data.normal_()
        other = watch(alone)
        alone(x)
        own = [name for name in seen if f".path{j}." in name and ".from" not in name and ".gates" not in name]
        assert f"block2.path{j}.routed.aggregation" in own
        assert all(torch.equal(seen[name], other[name]) for name in own)
    if routing == "connection":
        last = "pool.pool1" if base == "plain" else f"unit{DEPTHS[0]}_sum.act1"
        block = 2 if base == "plain" else 1
        for j in range(n):
            routed = seen[f"block2.path{j}.routed.aggregation"]
            assert torch.equal(routed, seen[f"block{block}.path{j}.{last}"])


# ---- reading the gates -----------------------------------------------------------------------------------


def test_gate_values_are_kept_only_where_asked_for() -> None:
    spec = spec_of(3)
    network = network_of(spec, training=True)
    network(images(spec))
    with pytest.raises(SpecError, match=r"no gates are kept: set keep_gates = True, then run the network"):
        network.gate_values()
    network.keep_gates = True
    network(images(spec))
    values, readers = network.gate_values(), network.gate_readers()
    assert list(values) == list(readers)
    lasts = [f"block1.path{j}.unit2_sum" for j in range(3)]
    assert readers == {
        "stem": tuple(f"block1.path{j}.routed" for j in range(3)),
        **{name: tuple(f"block2.path{j}.routed" for j in range(3)) for name in lasts},
    }
    for gates in values.values():
        assert gates.shape == (3, 3)
        assert not gates.requires_grad
    before = values["stem"].clone()
    network.keep_gates = False
    network(images(spec) + 1)
    assert torch.equal(network.gate_values()["stem"], before)


def test_a_network_without_gates_has_none_to_read() -> None:
    network = Network(NetworkSpec(blocks=[{"n_layers": 1, "width": 3}]))
    assert network.gate_readers() == {}
    assert network.gate_values() == {}


def test_gates_of_parents_are_the_parents() -> None:
    network = Network(spec_of(2, routing="prediction", base="plain"))
    assert network.gate_readers() == {
        "stem": ("block1.path0.routed", "block1.path1.routed"),
        "block2.path0.pool": ("block2.path0.routed", "block2.path1.routed"),
        "block2.path1.pool": ("block2.path0.routed", "block2.path1.routed"),
    }
    assert "block2.path0.from1.gates.linear1.weight" not in network.state_dict()
