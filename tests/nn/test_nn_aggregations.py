"""Each aggregation against its formula in numpy: random parameters, odd sizes, both directions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network, implement_aggregation
from connsearch.nn.aggregations import MODULES, build_aggregation
from connsearch.registry import Ref
from connsearch.spec import AGGREGATIONS, Aggregation, NetworkSpec, register_aggregation
from connsearch.spec.aggregations import Owned

Array = npt.NDArray[np.float64]
Formula = Callable[[dict[str, Array], list[Array], bool], Array]

SIZES = [pytest.param(*s, id="L{}-B{}-C{}-{}x{}".format(*s)) for s in
         [(2, 2, 1, 1, 1), (2, 3, 5, 7, 9), (3, 2, 4, 3, 1), (5, 1, 3, 5, 5), (9, 2, 2, 4, 7)]]  # fmt: skip


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value of its own; double precision."""
    rng = np.random.default_rng(seed)
    module.double()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point():
            drawn = (
                rng.normal(size=tuple(value.shape)) if "var" not in name else rng.uniform(0.3, 3, value.shape)
            )
            value.data.copy_(torch.from_numpy(np.asarray(drawn)))
    return module


def build(label: str, channels: Sequence[int]) -> nn.Module:
    return randomise(build_aggregation(AGGREGATIONS.parse(label), channels))


def arrays(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def draw_sources(n: int, shape: Sequence[int], seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(loc=i, scale=1 + i, size=shape) for i in range(n)]


# ---- the formulas --------------------------------------------------------------------------------------


def depthwise_paper(state: dict[str, Array], sources: list[Array], training: bool) -> Array:
    """x[c] = sum_i w[i, c] h_i[c] + b[c]."""
    weighted = np.einsum("lc,lbchw->bchw", state["weight"], np.stack(sources))
    return weighted + state["bias"][None, :, None, None]


def depthwise_normalized(state: dict[str, Array], sources: list[Array], training: bool) -> Array:
    """x[c] = sum_i (g[i, c] (h_i[c] - mean) / sqrt(var + 1e-5) + b[i, c])."""
    total = np.zeros_like(sources[0])
    for i, h in enumerate(sources):
        mean, var = (h.mean((0, 2, 3)), h.var((0, 2, 3))) if training else (
            state["running_mean"][i], state["running_var"][i])  # fmt: skip
        for c in range(h.shape[1]):
            normal = (h[:, c] - mean[c]) / np.sqrt(var[c] + 1e-5)
            total[:, c] += state["weight"][i, c] * normal + state["bias"][i, c]
    return total


def gated(state: dict[str, Array], sources: list[Array], training: bool) -> Array:
    """x_1 = h_1; x_i = T h_i + (1 - T) x_{i-1}, T = sigmoid(W x_{i-1} + b)."""
    x = sources[0]
    for i, h in enumerate(sources[1:]):
        weight, bias = state[f"gates.{i}.weight"][:, :, 0, 0], state[f"gates.{i}.bias"]
        logits = np.einsum("oc,bchw->bohw", weight, x) + bias[None, :, None, None]
        t = 1 / (1 + np.exp(-logits))
        x = t * h + (1 - t) * x
    return x


def weighted(state: dict[str, Array], sources: list[Array], training: bool) -> Array:
    """x = sum_i w_i h_i."""
    return np.einsum("l,lbchw->bchw", state["weight"], np.stack(sources))


def weighted_by_sigmoids(state: dict[str, Array], sources: list[Array], training: bool) -> Array:
    """x = sum_i h_i / (1 + exp(-w_i))."""
    return sum((h / (1 + np.exp(-w)) for w, h in zip(state["weight"], sources, strict=True)), np.zeros(()))


FORMULAS: dict[str, Formula] = {
    "sum": lambda state, sources, training: np.sum(sources, axis=0),
    "mean": lambda state, sources, training: np.mean(sources, axis=0),
    "concat": lambda state, sources, training: np.concatenate(sources, axis=1),
    "depthwise": depthwise_normalized,
    "depthwise(form=normalized)": depthwise_normalized,
    "depthwise(form=paper)": depthwise_paper,
    "gated": gated,
    "gated(bias=0.5)": gated,
    "weighted": weighted,
    "weighted(newest=0.0)": weighted,
    "weighted(activation=sigmoid)": weighted_by_sigmoids,
}


def test_every_aggregation_has_a_formula() -> None:
    """Routed takes gates from its sources: its formula is in the tests of routing."""
    assert {label.split("(")[0] for label in FORMULAS} | {"routed"} == set(AGGREGATIONS) == set(MODULES)


@pytest.mark.parametrize("label", sorted(FORMULAS))
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("L", "B", "C", "H", "W"), SIZES)
def test_value_is_the_formula(label: str, training: bool, L: int, B: int, C: int, H: int, W: int) -> None:
    module = build(label, [C] * L).train(training)
    sources = draw_sources(L, (B, C, H, W))
    expected = FORMULAS[label](arrays(module), sources, training)
    found = module([torch.from_numpy(h) for h in sources])
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("label", sorted(FORMULAS))
def test_gradients_are_those_of_the_formula(label: str) -> None:
    """Central differences of the formula, in the direction of a random change of sources and parameters."""
    module = build(label, [3] * 3).eval()
    state, sources = arrays(module), draw_sources(3, (2, 3, 2, 3))
    tensors = [torch.from_numpy(h).requires_grad_() for h in sources]
    out = module(tensors)
    rng = np.random.default_rng(5)
    seen = rng.normal(size=tuple(out.shape))
    (out * torch.from_numpy(seen)).sum().backward()
    d_sources = [rng.normal(size=h.shape) for h in sources]
    d_state = {name: rng.normal(size=value.shape) for name, value in module.named_parameters()}

    def at(step: float) -> float:
        moved = state | {name: state[name] + step * d for name, d in d_state.items()}
        moved_sources = [h + step * d for h, d in zip(sources, d_sources, strict=True)]
        return float((FORMULAS[label](moved, moved_sources, False) * seen).sum())

    expected = (at(1e-5) - at(-1e-5)) / 2e-5
    pairs = [(t.grad, d) for t, d in zip(tensors, d_sources, strict=True)]
    pairs += [(value.grad, d_state[name]) for name, value in module.named_parameters()]
    found = sum(float((g.numpy() * d).sum()) for g, d in pairs if g is not None)
    assert all(g is not None for g, _ in pairs)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", sorted(FORMULAS))
def test_sources_are_left_as_they_were(label: str) -> None:
    """Modules add in place; what they add to must be their own."""
    module = build(label, [3] * 4)
    sources = [torch.from_numpy(h) for h in draw_sources(4, (2, 3, 2, 3))]
    before = [h.clone() for h in sources]
    module(sources)
    for h, kept in zip(sources, before, strict=True):
        assert torch.equal(h, kept)


def test_concat_takes_unequal_channels() -> None:
    shapes = [(2, c, 3, 5) for c in (4, 1, 7)]
    sources = [torch.randn(shape) for shape in shapes]
    joined = build("concat", [4, 1, 7])(sources)
    assert torch.equal(joined, torch.cat(sources, 1))


# ---- depthwise, normalised -------------------------------------------------------------------------------


class LoopOfBatchNorms(nn.Module):
    """One BatchNorm2d for each source, added up: the same operator from torch's own parts."""

    def __init__(self, n: int, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(n))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        return torch.stack([norm(h) for norm, h in zip(self.norms, sources, strict=True)]).sum(0)


def test_normalized_depthwise_is_a_loop_of_batch_norms_over_training_steps() -> None:
    n, channels = 4, 3
    module = build("depthwise", [channels] * n).train()
    loop = LoopOfBatchNorms(n, channels).double().train()
    for i, norm in enumerate(loop.norms):
        norm.load_state_dict(
            {name: value[i] for name, value in module.state_dict().items() if value.dim()}
            | {"num_batches_tracked": torch.tensor(0)}
        )
    both = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (module, loop)]
    for step in range(3):
        sources = [torch.from_numpy(h) for h in draw_sources(n, (3, channels, 5, 2), seed=step)]
        inputs = [[h.clone().requires_grad_() for h in sources] for _ in both]
        target = torch.randn(3, channels, 5, 2, dtype=torch.float64)
        for m, optimizer, given in zip((module, loop), both, inputs, strict=True):
            optimizer.zero_grad()
            ((m(given) - target) ** 2).mean().backward()
            optimizer.step()
        for mine, other in zip(*inputs, strict=True):
            torch.testing.assert_close(mine.grad, other.grad)
        for name in ("weight", "bias", "running_mean", "running_var"):
            stacked = torch.stack([getattr(norm, name) for norm in loop.norms])
            torch.testing.assert_close(getattr(module, name), stacked)
    assert module.num_batches_tracked == 3
    module.eval(), loop.eval()
    torch.testing.assert_close(module(sources), loop(sources))


def test_normalized_depthwise_keeps_its_statistics_in_evaluation() -> None:
    module = build("depthwise", [3] * 2).eval()
    before = copy.deepcopy(module.state_dict())
    module([torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(2)])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# ---- initial values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("form", ["paper", "normalized"])
def test_depthwise_starts_as_the_mean(form: str, n: int) -> None:
    module = build_aggregation(AGGREGATIONS.ref("depthwise", form=form), [3] * n)
    assert torch.equal(module.weight, torch.full((n, 3), 1 / n))
    assert torch.equal(module.bias, torch.zeros((3,) if form == "paper" else (n, 3)))
    if form == "normalized":
        assert torch.equal(module.running_mean, torch.zeros(n, 3))
        assert torch.equal(module.running_var, torch.ones(n, 3))


@pytest.mark.parametrize(
    ("label", "start"),
    [
        ("weighted", [0.0, 0.0, 1.0]),
        ("weighted(activation=sigmoid, newest=0.0)", [0.0, 0.0, 0.0]),
        ("weighted(newest=0.5, older=0.25)", [0.25, 0.25, 0.5]),
    ],
)
def test_weighted_starts_as_it_is_asked_to(label: str, start: list[float]) -> None:
    """By default the newest source passes as it is: a network that starts as one without the averages."""
    module = build_aggregation(AGGREGATIONS.parse(label), [3] * 3)
    assert module.weight.tolist() == start
    if label == "weighted":
        sources = [torch.randn(2, 3, 4, 5) for _ in range(3)]
        assert torch.equal(module(sources), sources[-1])


@pytest.mark.parametrize(("label", "bias"), [("gated", -1.0), ("gated(bias=-2.5)", -2.5)])
def test_gates_start_by_carrying_the_older_sources(label: str, bias: float) -> None:
    module = build_aggregation(AGGREGATIONS.parse(label), [64] * 3)
    assert len(module.gates) == 2
    for gate in module.gates:
        assert torch.equal(gate.bias, torch.full((64,), bias))
        assert gate.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.1)


# ---- registering -------------------------------------------------------------------------------------------


@pytest.fixture
def forget() -> Iterator[None]:
    """Unregister what a test registers."""
    before = {registry: set(registry) for registry in (AGGREGATIONS, MODULES)}
    yield
    for registry, names in before.items():
        for name in set(registry) - names:
            registry.unregister(name)


def test_a_module_needs_a_rule() -> None:
    with pytest.raises(SpecError, match=r"unknown aggregation 'summ'\. Did you mean 'sum'\? Known: concat, "):
        implement_aggregation("summ")


def test_a_rule_has_one_module() -> None:
    with pytest.raises(
        SpecError, match=r"aggregation module 'sum' is registered already: choose another name"
    ):
        implement_aggregation("sum")(lambda rule, channels: nn.Identity())


@pytest.mark.usefixtures("forget")
def test_a_rule_without_a_module_can_be_counted_but_not_built() -> None:
    register_aggregation("bare")(dataclass(frozen=True, kw_only=True)(type("Bare", (Aggregation,), {})))
    spec = NetworkSpec(blocks=[{"topology": "dense", "aggregation": "bare", "n_layers": 2}])
    assert network_cost(spec).aggregation_macs == 0
    with pytest.raises(
        SpecError, match=r"aggregation 'bare' has no module: register one with implement_aggregation"
    ):
        Network(spec)


@pytest.mark.usefixtures("forget")
def test_an_aggregation_of_ones_own_from_rule_to_network() -> None:
    @register_aggregation("scaled")
    @dataclass(frozen=True, kw_only=True)
    class Scaled(Aggregation):
        """x = sum_i w_i h_i, one weight for each source."""

        start: float = 0.5

        def edge(self, channels: int, pixels: int) -> Owned:
            return Owned(params=1, source_macs=channels * pixels)

    @implement_aggregation("scaled")
    class ScaledModule(nn.Module):
        def __init__(self, rule: Any, source_channels: Sequence[int]) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((len(source_channels),), rule.start))

        def forward(self, sources: Sequence[Tensor]) -> Tensor:
            return sum((w * h for w, h in zip(self.weight, sources, strict=True)), torch.zeros(()))

    spec = NetworkSpec(
        blocks=[{"topology": "dense", "aggregation": "scaled(start=2.0)", "n_layers": 3, "width": 4}],
        input={"height": 5, "width": 6},
    )
    assert NetworkSpec.from_json(spec.to_json()) == spec
    network = Network(spec)
    cost = network_cost(spec)
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert cost.aggregation_macs == (2 + 3 + 4) * 4 * 5 * 6
    assert network.node("head").aggregation.weight.tolist() == [2.0] * 4
    network(torch.randn(2, 3, 5, 6)).sum().backward()
    assert network.node("block1.layer2").aggregation.weight.grad is not None


def test_a_reference_of_wrong_parameters_builds_nothing() -> None:
    with pytest.raises(
        SpecError, match=r"aggregation 'depthwise': unknown form 'papers'\. Did you mean 'paper'\?"
    ):
        build_aggregation(Ref("depthwise", (("form", "papers"),)), [3, 3])
