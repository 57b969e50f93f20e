"""Training compiled networks: the curves of the definition, within rounding."""

from __future__ import annotations

import copy

import pytest
import torch

from connsearch.data import load_dataset
from connsearch.nn import Network, build
from connsearch.spec import NetworkSpec
from connsearch.train import TrainConfig, train

BLOCK = {"topology": "dense", "n_layers": 3, "width": 4}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["none", "default", "fused"])
@pytest.mark.parametrize("aggregation", ["depthwise", "concat", "sum"])
def test_a_compiled_network_learns_as_the_definition_does(aggregation: str, pipeline: str) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(
        input={"channels": 3, "height": 16, "width": 16}, blocks=[{**BLOCK, "aggregation": aggregation}]
    )
    network = Network(spec)
    compiled = build(copy.deepcopy(network), pipeline=pipeline)
    config = TrainConfig.from_dict({"dataset": "synthetic", "epochs": 2, "batch_size": 128, "lr": 0.02})
    data = load_dataset(config.dataset)
    expected, found = (train(module, data, config, seed=0, device="cpu") for module in (network, compiled))
    for a, b in zip(expected.curve, found.curve, strict=True):
        assert b.train_loss == pytest.approx(a.train_loss, rel=1e-3)
        assert b.val_loss == pytest.approx(a.val_loss, rel=1e-3)
