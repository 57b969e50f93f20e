"""Activation memory against what torch allocates and what autograd keeps."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from connsearch.cost import network_cost
from connsearch.nn import Network
from connsearch.spec import AGGREGATIONS, NetworkSpec
from strategies import specs

BATCH = 13  # no unit gives out as many channels, so that it tells activations from weights


def is_activation(tensor: Any) -> bool:
    """Tell what has a row for each image from statistics of the batch."""
    return isinstance(tensor, Tensor) and tensor.dim() > 1 and tensor.shape[0] == BATCH and tensor.numel() > 0


def storages(network: Network) -> set[int]:
    """Return the storages of parameters and statistics."""
    values = itertools.chain(network.parameters(), network.buffers())
    return {value.untyped_storage()._cdata for value in values}


class PeakMemory(TorchDispatchMode):
    """Bytes of all activations alive at once, at the most; a storage dies with its last tensor."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0
        self.add(image)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        weakref.finalize(storage, self.alive.pop, key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if is_activation(tensor):
                self.add(tensor)
        return out


def images(spec: NetworkSpec) -> Tensor:
    return torch.randn(BATCH, spec.input.channels, spec.input.height, spec.input.width)


def inference_bytes(network: Network, x: Tensor) -> int:
    """Return the greatest sum of activations alive at once in evaluation, for one image."""
    with torch.no_grad(), PeakMemory(x) as memory:
        network.eval()(x)
    return memory.peak // BATCH


def training_bytes(network: Network, x: Tensor) -> int:
    """Return what autograd keeps after a forward pass, parameters and statistics apart, for one image."""
    own, kept, alive = storages(network), {}, []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and is_activation(tensor):
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # else its address could be given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.train()(x)
    return sum(kept.values()) // BATCH


@given(specs())
def test_the_peak_in_evaluation_is_what_torch_allocates(spec: NetworkSpec) -> None:
    assert network_cost(spec).inference_bytes == inference_bytes(Network(spec), images(spec))


@given(specs())
def test_what_training_keeps_is_what_autograd_saves(spec: NetworkSpec) -> None:
    assert network_cost(spec).training_bytes == training_bytes(Network(spec), images(spec))


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_every_aggregation_is_measured(aggregation: str) -> None:
    @settings(max_examples=8)
    @given(specs(aggregation=aggregation, own_graph=False, max_layers=6, max_blocks=2))
    def check(spec: NetworkSpec) -> None:
        cost, network, x = network_cost(spec), Network(spec), images(spec)
        assert cost.inference_bytes == inference_bytes(network, x)
        assert cost.training_bytes == training_bytes(network, x)

    check()
