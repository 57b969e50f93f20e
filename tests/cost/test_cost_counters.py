"""Others' ways of counting: written out on small networks; on large ones, published figures tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.cost.counters import (
    COUNTERS,
    conv_traffic,
    params_and_biases,
    params_and_statistics,
    ptflops,
)
from connsearch.nn import Network
from connsearch.nn.chain import SpatialMean
from connsearch.spec import NetworkSpec
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from connsearch.spec.presets.dense_prediction import fc_densenet, hypercolumn

TINY: dict[str, Any] = {"input": InputConfig(height=4, width=8), "n_classes": 3}


def test_a_hypercolumn_written_out() -> None:
    """Scales of 4 x 8 and 2 x 4 pixels with 2 and 3 channels; the head reads both and has a bias."""
    spec = hypercolumn((2, 3), **TINY)
    fine, coarse = 4 * 8, 2 * 4
    macs = 9 * (3 * 2 + 2 * 2) * fine + 9 * (2 * 3 + 3 * 3) * coarse + 5 * 3 * fine
    normed = 2 * 2 * fine + 2 * 3 * coarse  # each followed by a ReLU
    assert ptflops(spec) == macs + 3 * normed + 2 * fine + 3 * fine + 3 * fine  # pooling, upsampling, bias
    read, written = (3 + 2 + 5) * fine + (2 + 3) * coarse, (2 + 2 + 3) * fine + 2 * 3 * coarse
    assert conv_traffic(spec) == 4 * (read + written)
    assert params_and_statistics(spec) == network_cost(spec).params + 2 * (2 + 2 + 3 + 3)
    assert params_and_biases(spec) == network_cost(spec).params + 2 + 2 + 3 + 3


def test_what_a_tool_would_not_see_counts_nothing() -> None:
    """ptflops of that version knows batch norms and the ReLU family only."""
    spec = NetworkSpec(blocks=[{"unit": "conv(norm=layer, activation=gelu)", "n_layers": 1, "width": 4}])
    plain = spec.model_copy(update={"head": "pool(norm=none, activation=none)"})
    assert ptflops(plain) == network_cost(plain).macs + 4 * 32 * 32  # what the mean over all pixels reads
    assert params_and_statistics(plain) == network_cost(plain).params


@pytest.mark.parametrize(
    "spec",
    [
        fc_densenet((1, 2, 1), 4, stem=6, **TINY),
        preset("densenet-40-12"),
        preset("hardnet-68").model_copy(update={"input": InputConfig(height=64, width=64)}),
    ],
    ids=["fc-densenet", "densenet-40-12", "hardnet-68"],
)
def test_hooks_on_modules_see_the_same(spec: NetworkSpec) -> None:
    """Counted while the network runs, as the tool does it."""
    network, seen = Network(spec).eval(), {"ptflops": 0, "cio": 0}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (before,) = inputs
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.groups == 1
            pixels = (output if isinstance(module, nn.Conv2d) else before)[0, 0].numel()
            seen["ptflops"] += module.weight.numel() * pixels
            seen["ptflops"] += output.numel() if module.bias is not None else 0
            seen["cio"] += 4 * (before.numel() + output.numel())
        elif isinstance(module, nn.Linear):
            seen["ptflops"] += module.weight.numel()
        elif isinstance(module, nn.BatchNorm2d):
            seen["ptflops"] += 2 * before.numel()
        elif isinstance(module, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | SpatialMean):
            seen["ptflops"] += before.numel()

    for module in network.modules():
        module.register_forward_hook(hook)
    network(torch.zeros(1, spec.input.channels, spec.input.height, spec.input.width))
    assert seen == {name: COUNTERS[name](spec) for name in seen}
    statistics = sum(t.numel() for name, t in network.named_buffers() if "running" in name)
    assert params_and_statistics(spec) == network_cost(spec).params + statistics
