"""HarDNets: exact recounts, the widths of layers, and rounding to multiples, which they need."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from connsearch.cost import Budget, CostModel, fit_width, network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.network import InputConfig, PartConfig
from connsearch.spec.presets import preset
from connsearch.spec.presets.hardnets import hardnet


def width(k: int, growth: int) -> int:
    """Return g m^v in an even number as the authors' code rounds it, v the greatest with 2^v | k."""
    channels = float(growth)
    while k % 2 == 0:
        k, channels = k // 2, channels * 1.7
    return int(int(channels + 1) / 2) * 2


def links(k: int) -> list[int]:
    """Return the layers that layer k reads, oldest first."""
    return sorted(k - 2**n for n in range(5) if k % 2**n == 0 and k >= 2**n)


def recount(stem: tuple[int, int], blocks: list[tuple[int, int, int, bool]]) -> tuple[int, int]:
    """Return parameters and multiply-accumulates; a block is depth, growth, output and whether it halves."""
    first, before = stem
    weights, pixels, params = 27 * first + 9 * first * before, 112 * 112, 2 * (first + before)
    macs, params, pixels = weights * pixels, params + weights, 56 * 56
    for depth, growth, output, halves in blocks:
        channels = [before, *(width(k, growth) for k in range(1, depth + 1))]
        merged = sum(channels[k] for k in range(1, depth + 1) if k % 2 or k == depth)
        weights = merged * output
        for k in range(1, depth + 1):
            weights += 9 * channels[k] * sum(channels[j] for j in links(k))
        params += weights + 2 * (sum(channels[1:]) + output)
        macs += weights * pixels
        before = output
        pixels //= 4 if halves else 1
    return params + before * 1000 + 1000, macs + before * 1000


@pytest.mark.parametrize(
    ("name", "stem", "blocks", "params"),
    [
        (
            "hardnet-68",
            (32, 64),
            [(8, 14, 128, True), (16, 16, 256, False), (16, 20, 320, True), (16, 40, 640, True),
             (4, 160, 1024, False)],
            17_565_348,
        ),
        (
            "hardnet-85",
            (48, 96),
            [(8, 24, 192, True), (16, 24, 256, False), (16, 28, 320, True), (16, 36, 480, False),
             (16, 48, 720, True), (4, 256, 1280, False)],
            36_670_212,
        ),
    ],
)  # fmt: skip
def test_counts(
    name: str, stem: tuple[int, int], blocks: list[tuple[int, int, int, bool]], params: int
) -> None:
    cost = network_cost(preset(name))
    assert (cost.params, cost.macs) == recount(stem, blocks)
    assert cost.params == params
    assert cost.n_layers + 2 == int(name.removeprefix("hardnet-"))


def test_widths_of_layers() -> None:
    spec = preset("hardnet-68")
    plans = {plan.node.name: plan for plan in resolve(spec).nodes}
    assert [plans[name].out_shape for name in ("stem", "stem_pool")] == [(32, 112, 112), (64, 56, 56)]
    for block, config in enumerate(spec.blocks, start=1):
        layers = [name for name in plans if name.startswith(f"block{block}.layer")]
        for k, name in enumerate(layers, start=1):
            assert plans[name].out_shape.channels == width(k, config.width)
    assert [plans[f"block{b}.merge"].out_shape for b in range(1, 6)] == [
        (128, 56, 56), (256, 28, 28), (320, 28, 28), (640, 14, 14), (1024, 7, 7)
    ]  # fmt: skip


def test_a_block_by_its_rule() -> None:
    """Layer k reads k - 2^n for every 2^n that divides k; the 1x1 reads the last and all odd layers."""
    spec = hardnet((4, 6), (8,), (4,), (10,), (False,)).replaced(
        input=InputConfig(height=16, width=16), n_classes=5
    )
    network = Network(spec).double().eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)

    def run(name: str, *sources: torch.Tensor) -> torch.Tensor:
        h = torch.cat(sources, dim=1)
        node = network.node(name)
        for operation in node.line:
            h = node.get_submodule(operation)(h)
        return h

    layers = [run("stem_pool", run("stem_conv", run("stem", images)))]
    for k in range(1, 9):
        layers.append(run(f"block1.layer{k}", *(layers[j] for j in links(k))))
    merged = run("block1.merge", *(layers[k] for k in (1, 3, 5, 7, 8)))
    torch.testing.assert_close(network(images), run("head", merged))


def test_widths_that_meet_a_budget() -> None:
    spec = preset("hardnet-68")
    budget = Budget(params=5_000_000)
    assert 4_850_000 < network_cost(fit_width(spec, budget)).params <= 5_000_000


# ---- rounding to multiples ------------------------------------------------------------------------------


def one_unit(ratio: float, multiple: int, channels: int) -> NetworkSpec:
    """Return a network of one unit that is asked for a share of the block's width."""
    graph = {
        "nodes": [
            {"name": "stem", "kind": "stem"},
            {"name": "unit", "part": "share"},
            {"name": "head", "kind": "head"},
        ],
        "edges": [["stem", "unit"], ["unit", "head"]],
    }
    part = PartConfig(name="share", ratio=ratio, multiple=multiple)
    return NetworkSpec.from_dict(
        {"blocks": ({"unit": "conv", "width": channels},), "parts": (part,), "graph": graph}
    )


@pytest.mark.parametrize(
    ("ratio", "multiple", "channels", "expected"),
    [
        pytest.param(0.7, 0, 15, 10, id="10.5 down"),
        pytest.param(0.7, 1, 15, 11, id="10.5 up"),
        pytest.param(1.7, 2, 14, 24, id="23.8"),
        pytest.param(1.7, 2, 20, 34, id="34"),
        pytest.param(1.5, 2, 14, 22, id="21 up"),
        pytest.param(1.4999, 2, 14, 20, id="just below 21"),
        pytest.param(0.1, 8, 10, 8, id="one multiple at least"),
        pytest.param(2.25, 4, 8, 20, id="18 up"),
    ],
)
def test_a_share_is_rounded_to_a_multiple(ratio: float, multiple: int, channels: int, expected: int) -> None:
    assert resolve(one_unit(ratio, multiple, channels)).nodes[1].out_shape.channels == expected


@given(
    ratio=st.integers(1, 900).map(lambda n: n / 100),
    multiple=st.integers(0, 9),
    channels=st.integers(1, 99),
)
def test_rounding_is_counted_at_any_width(ratio: float, multiple: int, channels: int) -> None:
    spec = one_unit(ratio, multiple, channels)
    assert CostModel(one_unit(ratio, multiple, 1)).cost([channels]) == network_cost(spec)
    found = resolve(spec).nodes[1].out_shape.channels
    if multiple:
        assert found % multiple == 0
        assert found == multiple or abs(found - ratio * channels) <= multiple / 2 + 1e-9


def test_a_multiple_needs_a_ratio() -> None:
    message = r"part 'wide': multiple rounds what ratio says: give a ratio$"
    with pytest.raises(SpecError, match=message):
        PartConfig(name="wide", multiple=2)


def test_the_last_block_may_be_halved() -> None:
    spec = hardnet((4, 8), (2,), (4,), (8,), halved=(True,))
    assert resolve(spec).nodes[-2].out_shape == (8, 28, 28)
