"""Networks of blocks, and comparisons of compiled ones with their definitions."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from connsearch.nn.verify import Comparison
from connsearch.spec import NetworkSpec
from strategies import FAMILIES, JOINING, adding, families, specs

AGGREGATIONS = ["depthwise", "depthwise(form=paper)", "concat", "routed", "sum"]  # of pairs


def joining() -> st.SearchStrategy[NetworkSpec]:
    """Draw any network: one that drops sources, one of a family, one whose deep blocks join their sources."""
    drawn = (
        specs(drops=True),
        st.sampled_from(sorted(FAMILIES)).flatmap(families),
        adding(),
        adding(aggregations=JOINING, max_layers=6),
    )
    return st.one_of(*drawn)


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


def small(aggregation: str = "depthwise", **more: object) -> NetworkSpec:
    """One block of two layers."""
    return NetworkSpec(
        name="small",
        input={"channels": 3, "height": 8, "width": 8},
        n_classes=5,
        blocks=[{"topology": "dense", "aggregation": aggregation, "n_layers": 2, "width": 4}],
        **more,
    )


def gradients(module: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [*module.parameters()]))


def assert_close(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)


def assert_same(comparison: Comparison, way: str) -> None:
    """Values, gradients, statistics and evaluation in float64, up to rounding."""
    errors = comparison.errors(way)
    allowed = comparison.allowed(errors)
    assert all(error <= most for error, most in zip(errors, allowed, strict=True)), (errors, allowed)
