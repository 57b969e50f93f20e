"""What a network really allocates and what autograd really keeps, measured."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from connsearch.nn import Network
from connsearch.spec import NetworkSpec

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
