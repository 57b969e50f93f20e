"""Published and recounted figures: a second opinion on architectures and on counting."""

from __future__ import annotations

from typing import Any

import pytest

from connsearch.cost import network_cost
from connsearch.cost.published import Figure, figure_record, published_figures
from connsearch.spec import NetworkSpec

LARGE = {"height": 224, "width": 224}


def deluge(aggregation: str, depths: tuple[int, ...], widths: tuple[int, ...], n_classes: int) -> NetworkSpec:
    """DelugeNets: bottlenecks of expansion 2, block 1's first unit is its node 0."""
    blocks = [
        {"topology": "dense", "aggregation": aggregation, "unit": "bottleneck(expansion=2)", "n_layers": n,
         "width": width, "entry_unit": number == 0}
        for number, (n, width) in enumerate(zip(depths, widths, strict=True))
    ]  # fmt: skip
    return NetworkSpec(stem_ratio=1, n_classes=n_classes, blocks=blocks)


def concat(topology: str, unit: str, depths: tuple[int, ...], growth: int, **values: Any) -> NetworkSpec:
    """DenseNets and SparseNets: concatenated growth, a stem of twice the growth."""
    blocks = [
        {"topology": topology, "aggregation": "concat", "unit": unit, "n_layers": n, "width": growth}
        for n in depths
    ]
    compression = 0.5 if unit == "dense_bottleneck" else 1.0
    return NetworkSpec(
        **{
            "stem_ratio": 2,
            "n_classes": 100,
            "compression": compression,
            "transition": "pool",
            "blocks": blocks,
        }
        | values
    )


SMALL, DEEP = (8, 16, 24), (12, 24, 36)
NARROW, WIDE = (32, 64, 128), (56, 112, 224)


@pytest.mark.parametrize(
    ("aggregation", "depths", "widths", "n_classes", "params", "gflops"),
    [
        pytest.param("depthwise", SMALL, NARROW, 100, 6_709_380, 1.4275, id="DelugeNet-146"),
        pytest.param("depthwise", SMALL, NARROW, 10, 6_686_250, 1.4275, id="DelugeNet-146 of 10 classes"),
        pytest.param(
            "depthwise(form=paper)", SMALL, NARROW, 100, 6_613_380, None, id="DelugeNet-146 by Eq. 1"
        ),
        pytest.param("depthwise", DEEP, NARROW, 100, 10_004_868, 2.1285, id="DelugeNet-218"),
        pytest.param(
            "depthwise(form=paper)", DEEP, NARROW, 100, 9_791_748, None, id="DelugeNet-218 by Eq. 1"
        ),
        pytest.param("sum", SMALL, NARROW, 100, 6_500_100, 1.3925, id="3x3 base of DelugeNet-146"),
        pytest.param("sum", DEEP, NARROW, 100, 9_552_644, 2.0512, id="3x3 base of DelugeNet-218"),
    ],
)
def test_delugenets(
    aggregation: str,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    n_classes: int,
    params: int,
    gflops: float | None,
) -> None:
    """Parameters to the last digit, FLOPs in the convention that reproduces the paper's tables."""
    cost = network_cost(deluge(aggregation, depths, widths, n_classes))
    assert cost.params == params
    assert cost.n_layers == sum(depths)
    if gflops is not None:
        assert cost.flops("delugenet") / 1e9 == pytest.approx(gflops, abs=6e-5)


def test_all_of_a_delugenet_s_multiply_accumulates() -> None:
    cost = network_cost(deluge("depthwise", SMALL, NARROW, 100))
    assert cost.flops("2mac") / 1e9 == pytest.approx(1.384, abs=5e-4)
    assert network_cost(deluge("depthwise", DEEP, NARROW, 100)).flops("2mac") / 1e9 == pytest.approx(
        2.038, abs=5e-4
    )


@pytest.mark.parametrize(
    ("topology", "unit", "n_layers", "growth", "params"),
    [
        pytest.param("dense", "conv", 12, 12, 1_100_428, id="DenseNet-40-12"),
        pytest.param("dense", "conv", 32, 12, 7_189_468, id="DenseNet-100-12"),
        pytest.param("dense", "conv", 32, 24, 28_283_476, id="DenseNet-100-24"),
        pytest.param("dense", "dense_bottleneck", 16, 12, 800_032, id="DenseNet-BC-100-12"),
        pytest.param("dense", "dense_bottleneck", 41, 24, 15_480_556, id="DenseNet-BC-250-24"),
        pytest.param("dense", "dense_bottleneck", 31, 40, 25_821_620, id="DenseNet-BC-190-40"),
        pytest.param("sparse", "conv", 12, 24, 757_252, id="SparseNet-40-24"),
        pytest.param("sparse", "conv", 32, 24, 2_522_404, id="SparseNet-100-24"),
        pytest.param("sparse", "conv", 32, 36, 5_645_908, id="SparseNet-100-36"),
    ],
)
def test_densenets_and_sparsenets(topology: str, unit: str, n_layers: int, growth: int, params: int) -> None:
    assert network_cost(concat(topology, unit, (n_layers,) * 3, growth)).params == params


def test_a_sparsenet_whose_growth_doubles() -> None:
    """SparseNet-BC-100-{16,32,64}: 4,365,428 by the rules; the paper prints 4.38 M."""
    spec = concat("sparse", "dense_bottleneck", (16, 16, 16), 16)
    assert network_cost(spec.with_widths([16, 32, 64])).params == 4_365_428


@pytest.mark.parametrize(
    ("depths", "params", "gflops"),
    [
        pytest.param((6, 12, 24, 16), 7_978_856, 5.700, id="DenseNet-121"),
        pytest.param((6, 12, 32, 32), 14_149_480, 6.758, id="DenseNet-169"),
        pytest.param((6, 12, 48, 32), 20_013_928, 8.632, id="DenseNet-201"),
    ],
)
def test_densenets_for_large_images(depths: tuple[int, ...], params: int, gflops: float) -> None:
    spec = concat("dense", "dense_bottleneck", depths, 32, stem="imagenet", input=LARGE, n_classes=1000)
    cost = network_cost(spec)
    assert cost.params == params
    assert cost.flops("sparsenet") / 1e9 == pytest.approx(gflops, abs=5e-4)


def test_a_sparsenet_with_global_pooling() -> None:
    """SparseNet-121 with a stem of 64 and global pooling: 3,250,824 as in the pytorchcv collection."""
    spec = concat(
        "sparse", "dense_bottleneck", (6, 12, 24, 16), 32, stem="imagenet", input=LARGE, n_classes=1000
    )
    assert network_cost(spec).params == 3_250_824


def test_log_dense_in_one_block_is_sparse_of_base_two() -> None:
    """SparseNet's and Log-DenseNet's offsets agree inside a block."""
    log, sparse = (concat(t, "conv", (20, 9), 12) for t in ("log_dense", "sparse(base=2)"))
    assert network_cost(log) == network_cost(sparse)


@pytest.mark.parametrize(
    "figure", published_figures(), ids=lambda f: f"{f.preset}-{f.n_classes}-{f.quantity}-{f.printed}"
)
def test_every_published_figure_is_met_or_says_why_not(figure: Figure) -> None:
    if figure.status == "met":
        assert figure.met(), figure_record(figure)
    elif figure.status != "unverified":
        assert not figure.met(), f"{figure.status}, and yet met: {figure}"
