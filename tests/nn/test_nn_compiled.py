"""The compiled network against the definition, on generated networks, in all that a module is asked for."""

from __future__ import annotations

import copy
import gc
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from connsearch.errors import KernelError, SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.ir.pipelines import INFERENCE, PIPELINES
from connsearch.kernels import use_backend
from connsearch.nn import Network, build
from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.shared import Port, Weights
from connsearch.nn.verify import Comparison, randomise, verify_network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from strategies import FAMILIES, families, specs

PAIRS = list(itertools.product(sorted(TOPOLOGIES), sorted(AGGREGATIONS)))


def blocks(
    topology: str, aggregation: str, unit: str = "bottleneck", *, n_layers: int = 3, width: int = 3
) -> NetworkSpec:
    """Two blocks of a pair, of odd size."""
    block = {"topology": topology, "aggregation": aggregation, "unit": unit}
    return NetworkSpec(
        name=f"{topology} {aggregation}",
        input={"channels": 3, "height": 9, "width": 7},
        n_classes=5,
        blocks=[{**block, "n_layers": n_layers, "width": width}] * 2,
    )


def assert_equal(spec: NetworkSpec, pipeline: str = "fused") -> None:
    comparison = Comparison(spec, batch=6, steps=2)
    errors = comparison.errors(pipeline)
    allowed = comparison.allowed(errors)
    assert all(error <= most for error, most in zip(errors, allowed, strict=True)), (errors, allowed)


@pytest.mark.parametrize("pipeline", sorted({*PIPELINES} - {INFERENCE}))
@pytest.mark.parametrize("aggregation", [*sorted(AGGREGATIONS), "depthwise(form=paper)"])
def test_every_pipeline_equals_the_definition(aggregation: str, pipeline: str) -> None:
    assert_equal(blocks("dense", aggregation), pipeline)


@pytest.mark.large
@pytest.mark.parametrize(("topology", "aggregation"), PAIRS)
def test_every_pair_equals_the_definition(topology: str, aggregation: str) -> None:
    assert_equal(blocks(topology, aggregation))


@given(specs(drops=True))
@settings(max_examples=20)
def test_generated_networks_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


@given(st.sampled_from(sorted(FAMILIES)).flatmap(families))
@settings(max_examples=8)
def test_families_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


@pytest.mark.large
@given(st.one_of(specs(drops=True), st.sampled_from(sorted(FAMILIES)).flatmap(families)))
@settings(max_examples=500)
def test_five_hundred_generated_networks_equal_the_definition(spec: NetworkSpec) -> None:
    assert_equal(spec)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["densenet-bc-100-12", "sparsenet-40-12"])
def test_working_precision_is_as_good_as_the_definition(name: str, backend: str) -> None:
    spec = preset(name).replaced(input=InputConfig(height=8, width=8), n_classes=4)
    with use_backend(backend):
        verify_network(spec, batch=4, steps=2).raise_if_wrong()


@given(specs())
@settings(max_examples=20)
def test_state_dicts_are_interchangeable(spec: NetworkSpec) -> None:
    network, compiled = Network(spec), build(spec)
    assert list(network.state_dict()) == list(compiled.state_dict())
    compiled.load_state_dict(network.state_dict())
    network.load_state_dict(compiled.state_dict())


def test_build_of_a_network_shares_its_weights() -> None:
    network = Network(blocks("dense", "depthwise"))
    compiled = build(network)
    assert all(a is b for a, b in zip(network.parameters(), compiled.parameters(), strict=True))


def test_an_unknown_pipeline_is_told() -> None:
    with pytest.raises(SpecError, match=r"unknown pipeline 'fusd'\. Did you mean 'fused'\?"):
        build(blocks("dense", "sum"), pipeline="fusd")


def test_images_of_another_shape_are_told() -> None:
    with pytest.raises(SpecError, match=r"images must be B x 3 x 9 x 7, got 2 x 3 x 9 x 9"):
        build(blocks("dense", "sum"))(torch.zeros(2, 3, 9, 9))


@pytest.fixture(params=["depthwise", "depthwise(form=paper)", "concat", "routed", "sum"])
def pair(request: pytest.FixtureRequest) -> tuple[Network, nn.Module, torch.Tensor]:
    """A network, the compiled network with weights of its own, and images, in float64."""
    torch.manual_seed(0)
    network = Network(blocks("dense", request.param)).double()
    randomise(network)
    return network, build(copy.deepcopy(network)), torch.randn(3, 3, 9, 7, dtype=torch.float64)


def gradients(module: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [*module.parameters()]))


def assert_close(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)


def test_a_second_backward_pass_gives_the_same(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    loss = compiled(images).square().sum()
    parameters = [*compiled.parameters()]
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    assert_close([*first], [*torch.autograd.grad(loss, parameters)])


def test_gradients_of_some_parameters_only(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for last in (2, 9):
        found = []
        for module in (network, compiled):
            loss = module(images).square().sum()
            some = [*module.parameters()][-last:]
            partly = torch.autograd.grad(loss, some, retain_graph=True)
            found.append([*partly, *gradients(module, loss)])  # what was left before does not count twice
        assert_close(*found)


def test_frozen_parameters_get_no_gradient(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        for parameter in [*module.parameters()][::2]:
            parameter.requires_grad_(False)
        module(images).square().sum().backward()
    for a, b in zip(network.parameters(), compiled.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-8, atol=1e-8)


def test_a_norm_in_evaluation_on_its_own(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    found = []
    for module in (network, compiled):
        for child in [m for m in module.modules() if hasattr(m, "running_mean")][::2]:
            child.eval()
        found.append(gradients(module, module(images).square().sum()))
    assert_close(*found)
    assert_close([*network.buffers()], [*compiled.buffers()])


def test_copies_and_saved_states(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    copied = copy.deepcopy(compiled)
    file = io.BytesIO()
    torch.save(compiled.state_dict(), file)
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.zero_()
    file.seek(0)
    fresh = build(copied.spec).double()  # type: ignore[union-attr]
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(images), copied(images))
    assert compiled(images).abs().max() == 0


def test_gradient_checkpointing(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    plain = gradients(compiled, compiled(images).square().sum())
    again = checkpoint(compiled, images, use_reentrant=False)
    assert_close(gradients(compiled, again.square().sum()), plain)


def test_autocast(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = (part.float() for part in pair)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = network(images), compiled(images)
    assert expected.dtype == found.dtype
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * float(expected.detach().std()))
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in compiled.parameters())


COMPILED = [
    pytest.param("aot_eager", True, "depthwise"),
    *(
        pytest.param("aot_eager", training, pair, marks=pytest.mark.large)
        for pair in ("depthwise(form=paper)", "concat", "routed", "sum")
        for training in (True, False)
    ),
    *(pytest.param("inductor", True, pair, marks=pytest.mark.large) for pair in ("depthwise", "concat")),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what Inductor imports warns of itself
@pytest.mark.parametrize(("backend", "training", "pair"), COMPILED, indirect=["pair"])
def test_torch_compile_sees_one_graph(
    pair: tuple[Network, nn.Module, torch.Tensor], backend: str, *, training: bool
) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        module.train(training)
    torch._dynamo.reset()  # it keeps a few graphs for each function, not for each network
    again = torch.compile(compiled, fullgraph=True, backend=backend)
    for _ in range(2):
        expected, found = network(images), again(images)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert_close(gradients(compiled, found.square().sum()), gradients(network, expected.square().sum()))
    assert_close([*compiled.buffers()], [*network.buffers()])


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_in_training_torch_compile_sees_the_kernels(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    from torch._dynamo.backends.common import aot_autograd  # takes seconds to import
    from torch._functorch.aot_autograd import make_boxed_func

    _, compiled, images = pair
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph.code)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    again = torch.compile(compiled, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    again(images).square().sum().backward()
    assert len(graphs) == 2  # forward and backward
    assert "connsearch.weighted_sum_norm_act" in graphs[0]
    assert "connsearch.pull_normalized" in graphs[1]


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("norm1", "training", False),
        ("aggregation", "training", False),
        ("norm1", "eps", 0.3),
        ("norm2", "momentum", 0.9),
    ],
)
@pytest.mark.large
@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_torch_compile_sees_what_is_set_later(
    pair: tuple[Network, nn.Module, torch.Tensor], part: str, setting: str, value: object
) -> None:
    network, compiled, images = pair
    torch._dynamo.reset()
    again = torch.compile(compiled, backend="aot_eager")
    for module, call in ((network, network), (compiled, again)):
        call(images)
        setattr(module.get_submodule(f"block1.layer2.{part}"), setting, value)
    torch.testing.assert_close(again(images), network(images), rtol=1e-9, atol=1e-9)
    assert_close([*compiled.buffers()], [*network.buffers()])


@pytest.mark.large
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo's, where a graph breaks
@pytest.mark.parametrize("drop", ["stochastic_depth(survival=0.5)", "drop_path(rate=0.3)"])
def test_torch_compile_of_networks_that_drop_sources(drop: str) -> None:
    spec = NetworkSpec.from_dict(blocks("dense", "sum", "basic", n_layers=2).to_dict() | {"drop": drop})
    network = Network(spec).double()
    compiled, images = build(copy.deepcopy(network)), torch.randn(2, 3, 9, 7, dtype=torch.float64)
    torch._dynamo.reset()
    again = torch.compile(compiled, backend="aot_eager")
    for seed in range(3):
        torch.manual_seed(seed)
        expected = network(images)
        torch.manual_seed(seed)
        torch.testing.assert_close(again(images), expected, rtol=1e-9, atol=1e-9)


def test_torch_export(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    compiled.eval()
    with torch.no_grad():
        exported = torch.export.export(compiled, (images,))
        torch.testing.assert_close(exported.module()(images), compiled(images), rtol=1e-9, atol=1e-9)


def test_distributed_data_parallel(pair: tuple[Network, nn.Module, torch.Tensor], tmp_path: Path) -> None:
    network, compiled, images = pair
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(compiled)
        parallel(images).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    expected = gradients(network, network(images).square().sum())
    assert_close([p.grad for p in compiled.parameters() if p.grad is not None], expected)


@pytest.mark.parametrize(("pipeline", "last"), [("none", False), ("default", True), ("fused", True)])
def test_training_on_a_cpu_lays_maps_out_with_channels_last(pipeline: str, *, last: bool) -> None:
    compiled = build(blocks("dense", "sum"), pipeline=pipeline)
    seen: list[torch.Tensor] = []

    def see(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(images)
        return (images.flatten(1),)

    compiled.emitted[True] = compiled.emitted[True]._replace(forward=see)
    compiled(torch.randn(2, 3, 9, 7))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == last


def test_channels_last(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    expected = gradients(network, network(images).square().sum())
    images = images.to(memory_format=torch.channels_last)
    compiled = compiled.to(memory_format=torch.channels_last)
    assert_close(gradients(compiled, compiled(images).square().sum()), expected)


def test_double_backward_is_refused(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair
    images.requires_grad_(True)
    with pytest.raises(KernelError, match=r"no second derivatives: build the network with pipeline='none'"):
        torch.autograd.grad(compiled(images).square().sum(), images, create_graph=True)


def test_training_a_compiled_network_gives_the_same_losses() -> None:
    spec = blocks("dense", "depthwise")
    network = Network(spec).double()
    compiled = build(copy.deepcopy(network))
    losses = []
    for module in (network, compiled):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        seen = []
        for _ in range(5):
            images, labels = torch.randn(8, 3, 9, 7, dtype=torch.float64), torch.randint(5, (8,))
            loss = nn.functional.cross_entropy(module(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(float(loss.detach()))
        losses.append(seen)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
def test_a_step_leaves_nothing_behind(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    _, compiled, images = pair

    def step() -> int:
        compiled(images).square().sum().backward()
        compiled.zero_grad()
        gc.collect()
        return sum(type(thing) in (Weights, Port) for thing in gc.get_objects())

    for _ in range(3):  # what earlier tests left may take as many collections to go
        first = step()
    assert [step() for _ in range(3)] == [first] * 3


def test_build_keeps_the_mode_of_a_network() -> None:
    network = Network(blocks("dense", "sum")).eval()
    assert not build(network).training
    assert build(network.train()).training


def test_another_eps_of_the_normalised_cross_layer_convolution() -> None:
    network = Network(blocks("dense", "depthwise")).double()
    randomise(network)
    for module in network.modules():
        if isinstance(module, NormalizedDepthwise):
            module.eps = 0.1
    images = torch.randn(3, 3, 9, 7, dtype=torch.float64)
    compiled = build(copy.deepcopy(network))
    found = [gradients(module, module(images).square().sum()) for module in (network, compiled)]
    assert_close(*found)


class Doubled(nn.Conv2d):
    """A convolution of one's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("training", [True, False])
def test_modules_put_in_place_of_others_run(
    pair: tuple[Network, nn.Module, torch.Tensor], *, training: bool
) -> None:
    network, _, images = pair
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name == "conv1":
                child.__class__ = Doubled
            if name == "norm2":
                setattr(module, name, nn.GroupNorm(1, child.num_features).double())
            if name == "act1":
                setattr(module, name, nn.ELU())
    compiled = build(copy.deepcopy(network)).train(training)
    network.train(training)
    found = [gradients(module, module(images).square().sum()) for module in (network, compiled)]
    assert_close(*found)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-8, atol=1e-8)


def test_pruned_convolutions_train(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in [*network.modules(), *compiled.modules()]:
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.3)
    for _ in range(2):
        found = [gradients(module, module(images).square().sum()) for module in (network, compiled)]
        assert_close(*found)
    for module in (network.eval(), compiled.eval()):
        with torch.no_grad():
            module(images)
            for child in module.modules():
                if hasattr(child, "weight_orig"):
                    child.weight_orig.mul_(2)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-8, atol=1e-8)


def test_the_code_is_readable_python() -> None:
    code = build(blocks("dense", "concat", n_layers=2)).code
    assert code.startswith("def forward(self, images):")
    assert "concat_layer([" in code
    assert "self.block1.layer1.conv1" in code


def doubled(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return 3 * self.inner(*inputs)


def hook(network: nn.Module) -> None:
    network.get_submodule("block1.layer2.aggregation").register_forward_hook(doubled)


def wrap(network: nn.Module) -> None:
    layer = network.get_submodule("block1.layer2")
    layer.aggregation = Wrapped(layer.aggregation)


@pytest.mark.parametrize("change", [hook, wrap])
def test_an_aggregation_that_was_changed_runs_as_it_is(
    pair: tuple[Network, nn.Module, torch.Tensor], change: Callable[[nn.Module], None]
) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        change(module)
    for training in (True, False):
        expected, found = network.train(training)(images), compiled.train(training)(images)
        torch.testing.assert_close(found, expected)
        assert_close(gradients(compiled, found.square().sum()), gradients(network, expected.square().sum()))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.parametrize("pair", ["depthwise"], indirect=True)
def test_pruned_aggregations(pair: tuple[Network, nn.Module, torch.Tensor]) -> None:
    network, compiled, images = pair
    for module in (network, compiled):
        prune.l1_unstructured(module.get_submodule("block1.layer2.aggregation"), "weight", amount=2)
    for _ in range(2):
        expected, found = network(images), compiled(images)
        torch.testing.assert_close(found, expected)
        found.sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # an aggregation's input is a list
@pytest.mark.parametrize("part", ["norm1", "act1", "conv1", "aggregation"])
@pytest.mark.parametrize("pair", ["depthwise", "sum"], indirect=True)
def test_backward_hooks_run(pair: tuple[Network, nn.Module, torch.Tensor], part: str) -> None:
    _, compiled, images = pair
    seen: list[nn.Module] = []
    module = compiled.get_submodule(f"block1.layer2.{part}")
    module.register_full_backward_hook(lambda found, *_: seen.append(found))
    compiled(images).sum().backward()
    assert seen == [module]
