"""Dual path and mixed link networks: exact recounts, and both rules written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import Budget, CostModel, fit_width, network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.network import InputConfig
from connsearch.spec.ops import Slice
from connsearch.spec.presets import preset
from connsearch.spec.presets.mixed import dual_path, mixed_link

# ---- counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dpn-92", 37_668_392),
        ("dpn-98", 61_570_728),
        ("dpn-131", 79_254_504),
        ("mixnet-100", 1_464_202),
        ("mixnet-250", 28_964_122),
        ("mixnet-190", 48_537_770),
        ("mixnet-105", 11_156_776),
        ("mixnet-121", 21_859_480),
        ("mixnet-141", 41_074_600),
    ],
)
def test_parameters(name: str, params: int) -> None:
    assert network_cost(preset(name)).params == params


def conv(before: int, after: int, kernel: int, groups: int = 1) -> int:
    """Return the parameters of a norm, an activation and a convolution."""
    return 2 * before + before * after * kernel * kernel // groups


def dual_path_params(depths: tuple[int, ...], increments: tuple[int, ...], k: int, groups: int) -> int:
    """Return the parameters of a dual path network whose units are k wide inside in block 1."""
    state = 64
    total = 3 * 49 * state + 2 * state
    for block, (depth, inc) in enumerate(zip(depths, increments, strict=True)):
        residual, inner = 256 << block, k << block
        total += conv(state, residual + 2 * inc, 1)
        for index in range(1, depth + 1):
            total += conv(state, inner, 1) + conv(inner, inner, 3, groups) + conv(inner, residual + inc, 1)
            state = residual + (2 + index) * inc
    return total + 2 * state + state * 1000 + 1000


def mixed_link_params(depths: tuple[int, ...], k1: int, k2: int) -> int:
    """Return the parameters of a mixed link network of 10 classes."""
    state = 2 * k2
    total = 27 * state
    for block, depth in enumerate(depths):
        if block:
            total += conv(state, state // 2, 1)
            state //= 2
        for _ in range(depth):
            total += sum(conv(state, 4 * k, 1) + conv(4 * k, k, 3) for k in (k1, k2))
            state += k2
    return total + 2 * state + state * 10 + 10


def test_parameters_of_dual_paths() -> None:
    depths, increments = (3, 4, 20, 3), (16, 32, 24, 128)
    assert network_cost(preset("dpn-92")).params == dual_path_params(depths, increments, 96, 32)


@pytest.mark.parametrize(("k1", "k2"), [(12, 12), (4, 12), (7, 9), (13, 12)])
def test_parameters_of_unequal_links(k1: int, k2: int) -> None:
    assert network_cost(mixed_link((3, 2), k1, k2)).params == mixed_link_params((3, 2), k1, k2)


# ---- the rules ------------------------------------------------------------------------------------------


def runner(network: Network) -> Callable[[str, Tensor], Tensor]:
    """Return what applies a node's operations."""

    def run(name: str, h: Tensor) -> Tensor:
        node = network.node(name)
        for operation in node.line:
            h = node.get_submodule(operation)(h)
        return h

    return run


def randomised(spec: NetworkSpec) -> Network:
    """Return a network with norms that differ, for evaluation in float64."""
    network = Network(spec).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def images(spec: NetworkSpec) -> Tensor:
    return torch.randn(2, 3, spec.input.height, spec.input.width, dtype=torch.float64)


def test_a_dual_path_network_by_its_rule() -> None:
    """a = F([r, d]), r <- r + a[:R], d <- [d, a[R:]]; a 1x1 convolution makes both at first."""
    depths, increments = (2, 3), (3, 5)
    spec = dual_path(depths, increments, inner=2, groups=2, stem_ratio=2).replaced(
        input=InputConfig(height=32, width=32), n_classes=7
    )
    spec = spec.with_widths([2, 4])
    network = randomised(spec)
    run, x = runner(network), images(spec)
    state = run("stem", x)
    for block, (depth, increment, width) in enumerate(zip(depths, increments, (2, 4), strict=True), 1):
        both = run(f"block{block}.shortcut", state)
        r, d = both[:, : 8 * width], both[:, 8 * width :]
        assert d.shape[1] == 2 * increment
        for index in range(1, depth + 1):
            a = run(f"block{block}.unit{index}", state)
            r, d = r + a[:, : 8 * width], torch.cat([d, a[:, 8 * width :]], dim=1)
            state = torch.cat([r, d], dim=1)
    assert state.shape[1] == 8 * 4 + 2 * 5 + 3 * 5
    torch.testing.assert_close(network(x), run("head", state))


@pytest.mark.parametrize(("inner", "outer"), [(4, 4), (3, 5), (5, 3)])
def test_a_mixed_link_network_by_its_rule(inner: int, outer: int) -> None:
    """x <- [x[:-k1], x[-k1:] + inner(x), outer(x)]."""
    depths = (2, 3)
    spec = mixed_link(depths, inner, outer).replaced(input=InputConfig(height=8, width=8))
    network = randomised(spec)
    run, x = runner(network), images(spec)
    state = run("stem", x)
    for block, depth in enumerate(depths, start=1):
        if block > 1:
            state = run(f"transition{block - 1}", state)
        for index in range(1, depth + 1):
            added = run(f"block{block}.layer{index}_inner", state)
            appended = run(f"block{block}.layer{index}_outer", state)
            assert (added.shape[1], appended.shape[1]) == (inner, outer)
            state = torch.cat([state[:, :-inner], state[:, -inner:] + added, appended], dim=1)
    torch.testing.assert_close(network(x), run("head", state))


# ---- widths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "widths"),
    [("dpn-92", (32, 64, 96, 160)), ("mixnet-100", (8, 13, 12)), ("mixnet-121", (24, 20, 16, 12))],
)
def test_cost_at_other_widths(name: str, widths: tuple[int, ...]) -> None:
    """Slices follow the widths, so that one polynomial counts them all."""
    spec = preset(name)
    assert CostModel(spec).cost(widths) == network_cost(spec.with_widths(widths))


@pytest.mark.parametrize(("name", "groups"), [("dpn-92", 32), ("mixnet-100", 1)])
def test_widths_that_meet_a_budget(name: str, groups: int) -> None:
    spec = preset(name)
    budget = Budget(params=network_cost(spec).params // 2)
    fitted = fit_width(spec, budget)
    assert not any(width % groups for width in fitted.widths)
    assert 0.95 < network_cost(fitted).params / budget.params <= 1


def test_groups_that_do_not_divide() -> None:
    message = r"^blocks\[0\]\.unit: 300 channels do not divide into 32 groups: change width or groups$"
    with pytest.raises(SpecError, match=message):
        resolve(preset("dpn-92").with_widths([100, 32, 32, 32]))


def link(line: str, **settings: Any) -> NetworkSpec:
    """Return a stem of 8 channels and a node that takes some of them."""
    graph = {
        "nodes": [
            {"name": "stem", "kind": "stem"},
            {"name": "taken", "kind": "join", "part": "take"},
            {"name": "head", "kind": "head"},
        ],
        "edges": [["stem", "taken"], ["taken", "head"]],
    }
    part = {"name": "take", "line": line, **settings}
    return NetworkSpec.from_dict({"blocks": ({"width": 8},), "parts": (part,), "graph": graph})


@pytest.mark.parametrize(
    ("line", "channels"),
    [
        ("slice(start=-1, stop=0, in_widths=true)", slice(6, 8)),
        ("slice(stop=-1, in_widths=true)", slice(0, 6)),
        ("slice(start=1, stop=3, in_widths=true)", slice(2, 6)),
        ("slice(start=1, stop=3)", slice(1, 3)),
        ("slice(start=-3, stop=0)", slice(5, 8)),
    ],
)
def test_slices_count_channels_or_widths(line: str, channels: slice) -> None:
    spec = link(line, ratio=0.25)
    assert resolve(spec).nodes[1].chain == (Slice(channels.start, channels.stop),)
    assert CostModel(spec).cost([8]) == network_cost(spec)


@pytest.mark.parametrize(
    ("line", "channels"),
    [("slice(stop=-1, in_widths=true)", "0 .. 0"), ("slice(start=-9, stop=0)", "-1 .. 8")],
)
def test_slices_that_leave_nothing(line: str, channels: str) -> None:
    with pytest.raises(SpecError, match=rf"^taken: no channels {channels} of 8$"):
        resolve(link(line))


@pytest.mark.parametrize("place", ["projection", "bottleneck"])
def test_extra_channels_are_not_negative(place: str) -> None:
    part = {"line": "projection(extra=-1)"} if place == "projection" else {"unit": "bottleneck(extra=-1)"}
    spec = link("slice", ratio=0.5)
    spec = NetworkSpec.from_dict({**spec.to_dict(), "parts": ({"name": "take", **part},)})
    with pytest.raises(SpecError, match=r"^taken: extra must be at least 0, got -1$"):
        resolve(spec)
