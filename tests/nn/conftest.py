"""What tests of compiled networks begin with."""

from __future__ import annotations

import copy

import pytest
import torch
from pairs import AGGREGATIONS, blocks
from torch import nn

from connsearch.nn import Network, build
from connsearch.nn.verify import randomise


@pytest.fixture(params=AGGREGATIONS)
def pair(request: pytest.FixtureRequest) -> tuple[Network, nn.Module, torch.Tensor]:
    """A network, the compiled network with weights of its own, and images, in float64."""
    torch.manual_seed(0)
    network = Network(blocks("dense", request.param)).double()
    randomise(network)
    return network, build(copy.deepcopy(network)), torch.randn(3, 3, 9, 7, dtype=torch.float64)
