"""DelugeNets and their baselines: exact counts, and what the published figures decide between."""

from __future__ import annotations

import pytest

from connsearch.cost import network_cost
from connsearch.spec import UNITS, resolve
from connsearch.spec.presets import preset
from connsearch.spec.presets.residual import pre_activation


@pytest.mark.parametrize(
    ("name", "n_classes", "params", "gflops"),
    [
        ("delugenet-146", 10, 6_686_250, 1.4275),
        ("delugenet-146", 100, 6_709_380, 1.4275),
        ("delugenet-146-paper", 100, 6_613_380, None),
        ("delugenet-146-base-3x3", 100, 6_500_100, 1.3925),
        ("delugenet-146-base-1x1", 100, 6_153_220, 1.3255),
        ("delugenet-218", 100, 10_004_868, 2.1285),
        ("delugenet-218-paper", 100, 9_791_748, None),
        ("delugenet-218-base-3x3", 100, 9_552_644, 2.0512),
        ("delugenet-218-base-1x1", 100, 9_205_764, 1.9841),
        ("wide-delugenet-146", 100, 20_191_068, 4.3121),
        ("wide-delugenet-146-base-1x1", 100, 18_763_516, 4.0454),
        ("delugenet-92", 1000, 43_404_072, 11.804),
        ("delugenet-92-paper", 1000, 43_338_024, None),
        ("delugenet-104", 1000, 51_353_896, 13.153),
        ("delugenet-122", 1000, 63_620_392, 15.178),
        ("delugenet-122-paper", 1000, 63_478_312, None),
    ],
)
def test_counts(name: str, n_classes: int, params: int, gflops: float | None) -> None:
    cost = network_cost(preset(name, n_classes=n_classes))
    assert cost.params == params
    if gflops is not None:
        assert cost.flops("delugenet") / 1e9 == pytest.approx(gflops, abs=5.1e-5 if gflops < 10 else 5.1e-4)


@pytest.mark.parametrize(("depth", "n_layers"), [(92, 30), (104, 34), (122, 40), (146, 48), (218, 72)])
def test_the_name_is_the_number_of_weighted_layers(depth: int, n_layers: int) -> None:
    """Three convolutions a unit, and two layers more."""
    assert depth == 3 * n_layers + 2
    assert network_cost(preset(f"delugenet-{depth}")).n_layers == n_layers


def test_the_stem_for_large_images_ends_with_a_bare_convolution() -> None:
    plan = resolve(preset("delugenet-92"))
    assert [op[-1] for op in plan.nodes[0].chain] == ["conv", "norm", "act", "pool", "conv"]
    assert plan.nodes[0].out_shape == (128, 56, 56)
    assert [*plan.sizes().values()] == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_the_baseline_with_projections_strides_in_its_first_convolution() -> None:
    """With the stride in the 3x3 convolution the parameters are the same, the FLOPs are not."""
    name, published = "delugenet-146-base-1x1", 1.33e9
    spec = preset(name, n_classes=100)
    other = pre_activation((8, 16, 24), (32, 64, 128), UNITS.ref("bottleneck", expansion=2), n_classes=100)
    ours, theirs = network_cost(spec), network_cost(other)
    assert ours.params == theirs.params
    assert round(ours.flops("delugenet") / 1e9, 2) * 1e9 == published
    assert round(theirs.flops("delugenet") / 1e9, 2) * 1e9 != published
