"""Folding norms into what they read, for inference: fewer operations, the same outputs.

In evaluation a batch norm is a x + b with constants a and b, which the convolution or the depthwise
aggregation before it can do as well. A normalized depthwise aggregation is then a plain one. Norms after
sums and concatenations, as in front of pre-activation units, stay: nothing before them has weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from connsearch.export.description import Description, Layer, NamedOps
from connsearch.export.operations import as_convolution
from connsearch.nn.folding import affine, folded, weighing
from connsearch.nn.network import Network
from connsearch.registry import Ref
from connsearch.spec.ops import Conv, is_batch_norm

State = dict[str, Tensor]

PAPER = Ref("depthwise", (("form", "paper"),))


class Folded(NamedTuple):
    """A network without the norms that others can do.

    Attributes:
        description: Its layers.
        state: Its state dict.
        norms: How many norms were folded.
        left: How many batch norms are left.
    """

    description: Description
    state: State
    norms: int
    left: int


def fold(description: Description, network: Network) -> Folded:
    """Return a network with its norms folded; constants are worked out in float64.

    Args:
        description: The network's.
        network: The network, whose parameters and running statistics are taken.
    """
    was_training = network.training
    network.eval()
    with torch.no_grad():
        found = [_layer(layer, network) for layer in description.layers]
    network.train(was_training)
    layers = tuple(layer for layer, _ in found)
    state = {key: value for _, values in found for key, value in values.items()}
    before, after = _n_norms(description.layers), _n_norms(layers)
    return Folded(description._replace(layers=layers), state, before - after, after)


def _layer(layer: Layer, network: Network) -> tuple[Layer, State]:
    """Return a layer without the norms that it can do without, and its state."""
    module = network.node(layer.name)
    state = {f"{layer.name}.{key}": value.detach().clone() for key, value in module.state_dict().items()}
    if layer.aggregation is not None and layer.aggregation.name == "depthwise":
        layer, state = _aggregation(layer, module, state)
    ops: list[tuple[str, object]] = []
    for name, op in layer.ops:
        before = ops[-1] if ops else None
        if before is not None and is_batch_norm(op) and isinstance(before[1], Conv):
            conv = _folds(before, module, state, layer.name, name)
            ops[-1] = (before[0], conv)
        else:
            ops.append((name, as_convolution(op)))
    return layer._replace(ops=tuple(ops)), state  # type: ignore[arg-type]  # operations all


def _folds(before: tuple[str, object], module: nn.Module, state: State, layer: str, norm: str) -> Conv:
    """Fold a norm into the convolution before it: change the state, return the convolution."""
    name, op = before
    conv = module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(op, Conv)
    weight, bias = folded(conv, affine(module.get_submodule(norm)))
    assert bias is not None
    state[f"{layer}.{name}.weight"], state[f"{layer}.{name}.bias"] = weight.clone(), bias.clone()
    _forget(state, f"{layer}.{norm}.")
    return op._replace(bias=True)


def _aggregation(layer: Layer, module: nn.Module, state: State) -> tuple[Layer, State]:
    """Return a depthwise aggregation as a plain one, which does the norm after it too."""
    own = module.get_submodule("aggregation")
    sums = weighing(own)
    assert sums is not None
    ops: NamedOps = layer.ops
    if ops and is_batch_norm(ops[0][1]):
        sums = sums.then(affine(module.get_submodule(ops[0][0])))
        _forget(state, f"{layer.name}.{ops[0][0]}.")
        ops = ops[1:]
    assert sums.bias is not None
    dtype = next(own.parameters()).dtype
    _forget(state, f"{layer.name}.aggregation.")
    state[f"{layer.name}.aggregation.weight"] = sums.weight[:, 0].to(dtype).contiguous()
    state[f"{layer.name}.aggregation.bias"] = sums.bias.to(dtype)
    return layer._replace(aggregation=PAPER, ops=ops), state


def _forget(state: State, prefix: str) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def _n_norms(layers: tuple[Layer, ...]) -> int:
    """Return how many batch norms there are, one for each source of a normalized aggregation."""
    inside = sum(
        len(layer.sources)
        for layer in layers
        if layer.aggregation is not None
        and layer.aggregation.name == "depthwise"
        and layer.aggregation != PAPER
    )
    return inside + sum(is_batch_norm(op) for layer in layers for _, op in layer.ops)
