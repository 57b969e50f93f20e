"""Evaluation without gradients, on folded constants, against the definition."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from test_nn_network import images, randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.ir import lower, optimize
from connsearch.ir.liveness import live_reads, peak_elements
from connsearch.nn import Network, inference
from connsearch.nn.compiled import CompiledNetwork, build
from connsearch.nn.peak import peak_bytes
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec
from connsearch.spec.presets import preset
from strategies import FAMILIES, families, specs

PAIRS = list(itertools.product(sorted(TOPOLOGIES), sorted(AGGREGATIONS)))


def network(
    aggregation: str = "depthwise", unit: str = "bottleneck", topology: str = "dense", width: int = 6
) -> Network:
    block = {"topology": topology, "aggregation": aggregation, "unit": unit, "n_layers": 4, "width": width}
    spec = NetworkSpec(input={"channels": 2, "height": 7, "width": 6}, n_classes=3, blocks=[block, block])
    return randomise(Network(spec)).eval()


def pair(definition: Network) -> tuple[Network, CompiledNetwork]:
    return definition, build(copy.deepcopy(definition)).eval()


def assert_equal(definition: Network, compiled: CompiledNetwork, *, tolerance: float = 1e-10) -> None:
    x = images(definition.spec).to(next(definition.parameters()).dtype)
    with torch.no_grad():
        expected, found = definition.logits_by_head(x), compiled.logits_by_head(x)
    assert compiled._inference is not None  # it did not run the definition
    assert list(found) == list(expected)
    for name, logits in expected.items():
        assert found[name].is_contiguous()
        torch.testing.assert_close(found[name], logits, rtol=tolerance, atol=tolerance)


# ---- values --------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(spec=specs(drops=True))
def test_generated_networks(spec: NetworkSpec) -> None:
    assert_equal(*pair(randomise(Network(spec)).eval()))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@settings(max_examples=4)
@given(data=st.data())
def test_families(family: str, data: st.DataObject) -> None:
    assert_equal(*pair(randomise(Network(data.draw(families(family)))).eval()))


@pytest.mark.large
@pytest.mark.parametrize(("topology", "aggregation"), PAIRS)
def test_every_topology_and_aggregation(topology: str, aggregation: str) -> None:
    assert_equal(*pair(network(aggregation, topology=topology)))


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_every_unit(unit: str) -> None:
    assert_equal(*pair(network("concat", unit)))


def test_single_precision_bfloat16_and_channels_last() -> None:
    for name, tolerance in (("depthwise", 1e-4), ("concat", 1e-4)):
        definition, compiled = pair(network(name).float())
        assert_equal(definition, compiled, tolerance=tolerance)
        x = images(definition.spec).float().to(memory_format=torch.channels_last)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), definition(x), rtol=tolerance, atol=tolerance)
            half = compiled.bfloat16()(x.bfloat16())
            exact = definition(x)
        torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.1 * float(exact.abs().max()))


@pytest.mark.parametrize("unit", ["basic", "bottleneck", "dense_bottleneck", "conv"])
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_widths_that_compiled_kernels_take(aggregation: str, unit: str) -> None:
    exact = network(aggregation, unit, width=32)
    compiled = build(copy.deepcopy(exact).float()).eval()
    x = images(exact.spec)
    with torch.no_grad():
        expected, found = exact(x), compiled(x.float()).double()
    spread = float((expected - expected.mean(dim=0)).abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * spread)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_batches_run_in_parts(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "CACHE_BYTES", 0)
    definition, compiled = pair(network())
    x = images(definition.spec, batch)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), definition(x))
        compiled._folded().images_at_once = 3
        torch.testing.assert_close(compiled(x), definition(x))
        assert compiled(x[:0]).shape == (0, 3)


# ---- constants are never stale -------------------------------------------------------------------------


def _load(net: nn.Module) -> None:
    net.load_state_dict({k: v * 1.1 for k, v in net.state_dict().items()})


def _assign(net: nn.Module) -> None:
    net.load_state_dict({k: v * 1.1 for k, v in net.state_dict().items()}, assign=True)


def _edit(net: nn.Module) -> None:
    with torch.no_grad():
        next(net.parameters()).mul_(2)


def _edit_statistics(net: nn.Module) -> None:
    next(b for n, b in net.named_buffers() if "running_mean" in n).add_(1)


def _step(net: nn.Module) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with torch.enable_grad():
        net(images(net.spec)).sum().backward()  # type: ignore[arg-type]
    optimizer.step()


def _replace_parameter(net: nn.Module) -> None:
    net.stem.conv1.weight = nn.Parameter(net.stem.conv1.weight.detach() * 2)  # type: ignore[union-attr]


def _replace_memory(net: nn.Module) -> None:
    net.stem.conv1.weight.data = net.stem.conv1.weight.data * 2  # type: ignore[union-attr]


def _replace_module(net: nn.Module) -> None:
    torch.manual_seed(0)
    old = net.get_submodule("stem.conv1")
    net.stem.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1).double()  # type: ignore


def _train_a_norm(net: nn.Module) -> None:
    net.head.norm1.train()  # type: ignore[union-attr]


def _train(net: nn.Module) -> None:
    torch.manual_seed(0)
    net.train()(images(net.spec))  # type: ignore[arg-type]
    net.eval()


def _edit_data_then_eval(net: nn.Module) -> None:
    next(net.parameters()).data.mul_(2)
    net.eval()


@pytest.mark.parametrize(
    "change",
    [
        _load,
        _assign,
        _edit,
        _edit_statistics,
        _step,
        _replace_parameter,
        _replace_memory,
        _replace_module,
        _train_a_norm,
        _train,
        _edit_data_then_eval,
    ],
)
@pytest.mark.parametrize("aggregation", ["depthwise", "concat"])
def test_changes_are_seen(change: Callable[[nn.Module], None], aggregation: str) -> None:
    definition, compiled = pair(network(aggregation))
    assert_equal(definition, compiled)
    before = compiled._inference
    change(definition)
    change(compiled)
    assert_equal(definition, compiled)
    assert compiled._inference is not before


def test_nothing_is_made_again_without_a_change() -> None:
    definition, compiled = pair(network())
    assert_equal(definition, compiled)
    before = compiled._inference
    assert_equal(definition, compiled)
    assert compiled._inference is before


def test_other_precision_copies_and_pickles() -> None:
    definition, compiled = pair(network().float())
    assert_equal(definition, compiled, tolerance=1e-4)
    state = list(compiled.state_dict())
    assert state == list(definition.state_dict())
    assert_equal(definition.double(), compiled.double())
    copied = copy.deepcopy(compiled)
    _edit(copied)
    assert_equal(definition, compiled)
    _edit(definition)
    assert_equal(definition, copied)
    assert_equal(definition, pickle.loads(pickle.dumps(copied)))


# ---- when the definition runs --------------------------------------------------------------------------


def test_gradients_autocast_compilers_and_mixed_types_run_the_definition() -> None:
    definition, compiled = pair(network().float())
    x = images(definition.spec).float()
    torch.testing.assert_close(compiled(x), definition(x))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(compiled(x), definition(x))
        with FlopCounterMode(display=False) as counted:
            compiled(x)
        assert counted.get_total_flops() > 0
        torch.export.export(compiled, (x,))
        assert compiled._inference is None
        compiled.head.linear1.double()
        with pytest.raises(RuntimeError, match="dtype"):
            compiled(x)
        with pytest.raises(RuntimeError, match="type"):
            compiled.float()(x.double())


def test_step_by_step_stays_so() -> None:
    compiled = build(network(), pipeline="none").eval()
    with torch.no_grad():
        compiled(images(compiled.spec))
    assert compiled._inference is None


def test_inference_is_no_pipeline_to_train_with() -> None:
    with pytest.raises(
        SpecError, match=r"^pipeline 'inference' has no gradients: evaluation runs it by itself$"
    ):
        build(network(), pipeline="inference")


def test_tensors_made_in_inference_mode() -> None:
    with torch.inference_mode():
        definition, compiled = pair(network())
        x = images(definition.spec)
        torch.testing.assert_close(compiled(x), definition(x))
        _edit(definition)
        _edit(compiled)
        torch.testing.assert_close(compiled(x), definition(x))


# ---- what is run ---------------------------------------------------------------------------------------


def test_code_names_values() -> None:
    compiled = pair(network())[1]
    with torch.no_grad():
        assert "depthwise" in compiled.code
    assert "block1" in compiled.code


@pytest.mark.parametrize("aggregation", ["depthwise(form=paper)", "weighted"])
def test_dead_sources_are_not_read_and_not_computed(aggregation: str) -> None:
    definition, compiled = pair(network(aggregation, "basic"))
    readers = [name for name, m in definition.named_modules() if name.endswith("block2.layer4.aggregation")]
    readers += [name for name, _ in definition.named_modules() if name == "head.aggregation"]
    for net in (definition, compiled):
        for name in readers:
            with torch.no_grad():
                net.get_parameter(f"{name}.weight")[:-2] = 0
    with torch.no_grad():
        whole = len(compiled.code.splitlines())
    assert_equal(definition, compiled)
    with torch.no_grad():
        for name in readers:
            definition.get_parameter(f"{name}.weight")[:] = 0
            compiled.get_parameter(f"{name}.weight")[:] = 0
        assert len(compiled.code.splitlines()) < whole
    assert_equal(definition, compiled)


def test_dead_sources_before_a_norm_in_training() -> None:
    definition, compiled = pair(network("depthwise(form=paper)"))
    for net in (definition, compiled):
        with torch.no_grad():
            net.get_parameter("head.aggregation.weight")[:-2] = 0
        net.get_submodule("head.norm1").train()
    assert_equal(definition, compiled)


def test_liveness_of_a_chain() -> None:
    spec = NetworkSpec(
        input={"channels": 1, "height": 4, "width": 4},
        n_classes=2,
        blocks=[{"topology": "chain", "n_layers": 1, "width": 2}],
    )
    program = lower(spec)
    reads = live_reads(program)
    assert list(reads) == list(range(1, len(program.ops) + 1))
    assert peak_elements(program, reads) == 2 * 2 * 16  # input and output of an operation


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
@pytest.mark.parametrize("unit", ["conv", "bottleneck"])
def test_what_is_held_at_once_is_what_the_program_says(unit: str, aggregation: str) -> None:
    spec = NetworkSpec(
        input={"channels": 3, "height": 32, "width": 32},
        n_classes=5,
        blocks=[{"topology": "dense", "aggregation": aggregation, "unit": unit, "n_layers": 5, "width": 16}],
    )
    compiled = build(randomise(Network(spec)).float()).eval()
    program = optimize(lower(spec), "inference")
    held = 4 * (peak_elements(program, live_reads(program)) - program.image.size)  # the image is there before
    most = 1.4 if aggregation == "gated" else 1.2  # it runs as defined, with maps of its own
    x = images(spec, batch=1).float()
    with torch.no_grad():
        compiled(x)  # constants are made
        assert held <= peak_bytes(lambda: compiled(x)) <= most * held


def test_norms_of_whole_presets_fold() -> None:
    for name, n in (("delugenet-146", 97), ("densenet-121", 59)):
        program = optimize(lower(preset(name)), "inference")
        assert sum(op.kinds[-3:] == ("conv", "norm", "act") for op in program.ops) == n
        assert not any(op.kinds[0] == "norm" and "conv" not in op.kinds for op in program.ops)


def test_averages_come_first() -> None:
    program = optimize(lower(preset("densenet-121")), "inference")
    pools = [v for v, op in enumerate(program.ops, start=1) if op.steps[0].at.startswith("transition")]
    kinds = [program.op(v).kinds[0] for v in pools]
    assert kinds == ["aggregate", "pool", "conv"] * 3


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_an_optimizer_is_noticed(fused: bool) -> None:
    torch.manual_seed(0)
    net = build(preset("resnet-20")).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net(images)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    net(images).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = net(images)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, net(images).detach(), rtol=1e-4, atol=1e-4)


def test_norms_in_training_see_the_whole_batch() -> None:
    network = Network(preset("resnet-20")).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    compiled = build(copy.deepcopy(network))
    images = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-4)
    assert compiled.stem.norm1.num_batches_tracked == 1
