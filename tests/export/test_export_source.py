"""model.py: keys, outputs and gradients of the definition for every network; code that can be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.export.description import describe
from connsearch.export.fold import fold
from connsearch.export.source import model_source
from connsearch.graph import TOPOLOGIES, ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.nn import Network, implement_aggregation
from connsearch.nn.aggregations import MODULES
from connsearch.nn.verify import randomise
from connsearch.registry import Ref
from connsearch.spec import AGGREGATIONS, Aggregation, NetworkSpec, register_aggregation
from connsearch.spec.drops import DROPS
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import PRESETS, preset
from connsearch.spec.resolve import resolve
from shrunken import macs_of
from strategies import FAMILIES, TIED_WIDTHS, families, specs

QUICK = 60_000_000  # multiply-accumulates
SAMPLE = (
    "delugenet-146", "densenet-40-12", "resnet-20", "resnet-v2-164", "highway-19", "multipath-cnn-2",
    "multipath-resnet-20-2-xpred", "transformer-small", "denseformer-small", "supervised-resnet-20",
    "stochastic-depth-resnet-110", "log-densenet-v1-12-24", "mixnet-100", "sparsenet-40-12-sum",
)  # fmt: skip


def loaded(source: str) -> nn.Module:
    """Return the network of a file; nothing of connsearch is in its reach."""
    nodes = [*ast.walk(ast.parse(source))]
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    roots = {name.partition(".")[0] for name in named}
    assert roots <= {"torch", "json", "pathlib", "collections", "__future__"}
    scope: dict[str, Any] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), scope)
    network: nn.Module = scope["Network"]()
    return network


def written(spec: NetworkSpec, **settings: Any) -> str:
    return model_source(describe(spec), [f"{spec.name}."], **settings)


def images(spec: NetworkSpec, batch: int = 3) -> Tensor:
    return torch.randn(
        batch, spec.input.channels, spec.input.height, spec.input.width, generator=torch.manual_seed(batch)
    ).double()


def check(spec: NetworkSpec, *, training: bool = False) -> str:
    """Compare a file with the definition in float64, with random parameters; return the file."""
    network = Network(spec).double()
    randomise(network)
    source = written(spec)
    model = loaded(source).double()
    model.load_state_dict(network.state_dict(), strict=True)
    if training:
        return _check_step(spec, network.train(), model.train(), source)
    with torch.no_grad():
        x = images(spec, 3 if network_cost(spec).macs <= QUICK else 1)
        torch.testing.assert_close(model.eval()(x), network.eval()(x), rtol=1e-9, atol=1e-9)
    return source


def _check_step(spec: NetworkSpec, network: nn.Module, model: nn.Module, source: str) -> str:
    outputs = []
    for module in (network, model):
        torch.manual_seed(0)  # of what training drops
        logits = module(images(spec, 4))
        logits.square().sum().backward()
        outputs.append((logits.detach(), [p.grad for p in module.parameters()], dict(module.named_buffers())))
    (logits, _, statistics), (ours, _, own) = outputs
    torch.testing.assert_close(ours, logits, rtol=1e-6, atol=1e-6)
    for name, value in statistics.items():
        torch.testing.assert_close(own[name], value, rtol=1e-6, atol=1e-6)
    gradients = dict(model.named_parameters())
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-5, atol=1e-5)
    return source


def small(topology: object, aggregation: object, scope: str = "block") -> NetworkSpec:
    block = {"topology": topology, "aggregation": aggregation, "unit": "conv", "n_layers": 6, "width": 3}
    return NetworkSpec.from_dict(
        {
            "input": {"channels": 2, "height": 6, "width": 5},
            "n_classes": 3,
            "scope": scope,
            "blocks": [block, {**block, "unit": "basic" if scope == "block" else "conv"}],
        }
    )


@pytest.mark.parametrize("scope", ["block", pytest.param("global", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("topology", "aggregation"), [*product(sorted(TOPOLOGIES), sorted(AGGREGATIONS))])
def test_every_pair(topology: str, aggregation: str, scope: str) -> None:
    check(small(topology, aggregation, scope))


@pytest.mark.parametrize("aggregation", ["depthwise(form=paper)", "weighted(activation=sigmoid)", "routed"])
def test_a_step_of_training(aggregation: str) -> None:
    check(small("log_dense", aggregation), training=True)


@settings(max_examples=30)
@given(spec=specs(max_layers=9))
def test_any_network(spec: NetworkSpec) -> None:
    check(spec)


@pytest.mark.slow
@settings(max_examples=4)
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - TIED_WIDTHS))
@given(data=st.data())
def test_any_network_of_a_family(family: str, data: Any) -> None:
    check(data.draw(families(family)))


@pytest.mark.parametrize("drop", ["stochastic_depth", "drop_path"])
def test_what_training_drops(drop: str) -> None:
    assert drop in DROPS
    spec = small("dense", "mean").replaced(drop=Ref(drop))
    check(spec)
    check(spec, training=True)
    inference = written(spec, inference=True)
    assert "self.training" not in inference.partition("class Network")[2]


def test_swapout_draws_as_many_elements_as_it_says() -> None:
    model = loaded(written(small("dense", "sum").replaced(drop=Ref("swapout")))).train()
    x = images(small("dense", "sum")).float()
    assert not torch.equal(model(x), model(x))
    check(small("dense", "sum").replaced(drop=Ref("swapout")))


def with_tiny_images(spec: NetworkSpec) -> NetworkSpec:
    """Return the same layers for the smallest images of which several pixels are left in the end."""
    if spec.head.name == "flat":
        return spec
    scales = max(node.scale for node in spec.graph().nodes)
    tiny = {224: 64, 352: 64, 480: 96, 32: 16 if scales <= 2 else 32}
    height, width = (tiny.get(size, size) for size in (spec.input.height, spec.input.width))
    return spec.replaced(input=InputConfig(channels=spec.input.channels, height=height, width=width))


def cases() -> list[Any]:
    quick = {name for name in SAMPLE if macs_of(name) <= QUICK}
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in PRESETS]


@pytest.mark.parametrize("name", cases())
def test_a_preset(name: str) -> None:
    spec = preset(name) if macs_of(name) <= QUICK else with_tiny_images(preset(name))
    source = check(spec)
    heads = [node.name for node in resolve(spec).graph.nodes if node.kind == "head"]
    assert ("logits_by_head" in source) is (len(heads) > 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_keys_of_every_preset(name: str) -> None:
    spec = preset(name)
    with torch.device("meta"):
        expected, found = Network(spec).state_dict(), loaded(written(spec)).state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


def test_all_heads() -> None:
    spec = preset("supervised-resnet-20")
    network, model = Network(spec).eval(), loaded(written(spec)).eval()
    model.load_state_dict(network.state_dict())
    x = images(spec).float()
    with torch.no_grad():
        ours: dict[str, Tensor] = model.logits_by_head(x)  # type: ignore[operator]  # a method
        expected = network.logits_by_head(x)
    assert list(ours) == list(expected)
    assert all(torch.equal(ours[name], logits) for name, logits in expected.items())


# ---- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "3", "4"],
        ["class", "a b", 'say "x"', "F"],
        ["torch", "nn", "images", "i"],
        ["a.keys", "a.values", "a.pop", "b.items"],
        ["p.1.x", "p.2.x", "p.3.x", "p.4.x"],
        ["n9", "n10", "n11", "n012"],
        ["größe1", "größe2", "größe3", "größe4"],
        ["sources", "route", "Network", "h"],
        ['q"1', 'q"2', 'q"3', 'q"4'],
        ["p{.1", "p{.2", "p{.3", "p{.4"],
        ["a{1}x1", "a{1}x2", "a{1}x3", "a{1}x4"],
        ["a{i}.1.b", "a{i}.2.b", "a{i}.3.b", "a{i}.4.b"],
        ["c(1", "c(2", "c(3", "c(4"],
        ["d\\1", "d\\2", "d\\3", "d\\4"],
        [f"{'long ] name, ' * 9}{n}" for n in range(4)],
    ],
)
def test_names_of_ones_own(names: list[str]) -> None:
    _check_names(names)


ODD = st.text(st.sampled_from("\"'\\{}[](), .\n\r\t\0i1"), max_size=6)


@settings(max_examples=30)
@given(head=ODD, tail=ODD)
def test_any_names_that_count(head: str, tail: str) -> None:
    names = [f"x{head}{number}{tail}x" for number in range(1, 6)]
    assume(all(word for word in names[0].split(".")))
    _check_names(names, head=f"head{tail}".replace(".", ""))


def _check_names(names: list[str], *, head: str = "head") -> None:
    builder = GraphBuilder()
    last = builder.add("stem", "stem")
    for name in names:
        last = builder.add(name, reads=[last])
    builder.add(f"{head}2", "head", reads=[last])
    builder.add(head, "head", reads=["stem", last])
    check(_own(builder.graph()))


def _own(graph: ConnectivityGraph, **settings: Any) -> NetworkSpec:
    size = InputConfig(channels=1, height=4, width=4)
    return NetworkSpec.from_graph(graph, unit="conv", width=2, input=size, n_classes=2, **settings)


@pytest.mark.usefixtures("_own_aggregation")
def test_an_aggregation_of_ones_own_is_refused() -> None:
    spec = small("dense", "own_median")
    with pytest.raises(SpecError, match=r"block1\.layer2: aggregation 'own_median' is one of your own"):
        written(spec)


@pytest.fixture
def _own_aggregation() -> Iterator[None]:
    register_aggregation("own_median")(type("Median", (Aggregation,), {"__doc__": "The median."}))
    implement_aggregation("own_median")(lambda rule, channels: nn.Identity())
    yield
    AGGREGATIONS.unregister("own_median")
    MODULES.unregister("own_median")


# ---- folding -------------------------------------------------------------------------------------------

FOLDED = ("resnet-20", "delugenet-146", "fractalnet-20", "densenet-40-12", "transformer-small")


def check_folded(spec: NetworkSpec) -> tuple[int, int]:
    """Compare a file without norms with the definition; return how many were folded and are left."""
    network = Network(spec).double().eval()
    randomise(network)
    found = fold(describe(spec), network)
    model = loaded(model_source(found.description, ["folded."], inference=True)).double().eval()
    model.load_state_dict(found.state, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(model(images(spec)), network(images(spec)), rtol=1e-9, atol=1e-9)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert norms == found.left
    return found.norms, found.left


@pytest.mark.parametrize(("topology", "aggregation"), [*product(["dense", "chain"], sorted(AGGREGATIONS))])
def test_every_aggregation_folded(topology: str, aggregation: str) -> None:
    check_folded(small(topology, aggregation))


@settings(max_examples=15)
@given(spec=specs())
def test_any_network_folded(spec: NetworkSpec) -> None:
    check_folded(spec)


def test_what_is_folded() -> None:
    assert check_folded(preset("resnet-20")) == (19, 0)
    assert check_folded(small("dense", "concat")) == (6, 14)  # the norms inside basic units
    n_sources = sum(j for j in range(2, 8)) * 2  # of depthwise aggregations, each with a norm of its own
    folded, left = check_folded(small("dense", "depthwise"))
    assert (
        folded == n_sources + 12 + 6
    )  # after aggregations: 5 layers and what comes after, twice; inside units
    assert left == 2  # of the layers that read one source


# ---- how it reads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense_concat", "log_dense_depthwise", "residual"])
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"export_{name}", written(GOLDEN[name]()).rstrip("\n"))


GOLDEN: dict[str, Callable[[], NetworkSpec]] = {
    "dense_concat": lambda: small("dense", "concat").replaced(name="dense_concat"),
    "log_dense_depthwise": lambda: small("log_dense", "depthwise").replaced(name="log_dense_depthwise"),
    "residual": lambda: preset("resnet-20"),
}


def test_it_is_written_the_same_every_time() -> None:
    spec = preset("multipath-resnet-20-2")
    assert written(spec) == written(preset("multipath-resnet-20-2"))


def test_blocks_are_loops() -> None:
    forward = written(preset("densenet-bc-250-24")).partition("def forward(self, images")[2]
    assert len(forward.partition("\ndef read")[0].splitlines()) < 20
    forward = written(preset("resnet-v2-1001")).partition("def forward(self, images")[2]
    assert len(forward.partition("\ndef read")[0].splitlines()) < 40


@pytest.mark.parametrize(
    "name", ["resnet-20", "multipath-cnn-2", "transformer-small", "unet", "fractalnet-20"]
)
def test_ruff_finds_nothing(name: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=110"]
    command += ["--select=E,F,W,I,B,UP,C4,SIM,RUF,PT", "--ignore=RUF002,RUF003", "-"]
    found = subprocess.run(command, input=written(preset(name)), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
