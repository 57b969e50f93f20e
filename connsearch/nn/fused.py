"""What a compiled network calls for operations of several steps, with gradients.

Each function does what the modules it is given would do one after the other, in training, and reads their
parameters and updates their running statistics as they would. Where one of them was put into evaluation on
its own, or something else put in its place, they run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.functions import ConcatNormActConv, NormActConv, NormState, WeightedSum
from connsearch.nn.plain import is_plain, is_plain_conv, is_training_norm
from connsearch.nn.shared import Shared, Weights, share
from connsearch.nn.statistics import count_of, move

Sources = Sequence[Shared | Tensor]


def layer(
    x: Tensor, norm: nn.BatchNorm2d, act: nn.ReLU | None = None, conv: nn.Conv2d | None = None
) -> Tensor:
    """Return conv(act(norm(x))), or as much of it as is given."""
    if not _fuses(norm, act, conv):
        return _one_by_one(norm(x), act, conv)
    return _norm_act_conv(x, _state(norm, act, x), conv)


def weighted_layer(
    sources: Sources,
    weights: Weights,
    norm: nn.BatchNorm2d | None = None,
    act: nn.ReLU | None = None,
    conv: nn.Conv2d | None = None,
) -> Tensor:
    """Return conv(act(norm(x))) of x = sum_i w_i h_i + b, or as much of it as is given."""
    if weights.module is not None and not weights.module.training:
        plain = weights.module([_value(source) for source in sources])
        return plain if norm is None else layer(plain, norm, act, conv)
    shared = _of_one_type([_shared(source, weights) for source in sources], weights)
    fuses = norm is not None and _fuses(norm, act, conv)
    fused = _state(norm, act, shared[0].value) if norm is not None and fuses else None
    if weights.normalized:
        _update_sources(weights.module, shared)
    values = [source.value for source in shared]
    x = _apply(WeightedSum, shared, weights, fused, weights.tensor, weights.bias, *values)
    if norm is None:
        return x
    return _norm_act_conv(x, fused, conv) if fused is not None else _one_by_one(norm(x), act, conv)


def concat_layer(
    sources: Sources,
    norm: nn.BatchNorm2d,
    act: nn.ReLU | None = None,
    conv: nn.Conv2d | None = None,
) -> Tensor:
    """Return conv(act(norm(x))) of the concatenation x of the sources, which is not made."""
    if not _fuses(norm, act, conv):
        return _one_by_one(norm(torch.cat([_value(source) for source in sources], dim=1)), act, conv)
    shared = _of_one_type([_shared(source) for source in sources])
    stats = [source.port.stats for source in shared]
    mean = torch.cat([s.mean for s in stats if s is not None])
    var = torch.cat([s.var for s in stats if s is not None])
    fused = _state(norm, act, shared[0].value)
    fused.update(mean, var)
    values = [source.value for source in shared]
    weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return _apply(
        ConcatNormActConv,
        *(shared, fused, conv, mean, fused.rstd(var), fused.weight, fused.bias, weight, bias),
        *values,
    )


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    found: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]  # torch has no types there
    return found


def _value(source: Shared | Tensor) -> Tensor:
    return source.value if isinstance(source, Shared) else source


def _shared(source: Shared | Tensor, weights: Weights | None = None) -> Shared:
    """Return a source with a port; with statistics, unless it is weighed as it is."""
    if isinstance(source, Shared):
        return source
    stats = weights is None or weights.normalized
    return share(source, [weights] if weights is not None else (), stats=stats)


def _of_one_type(shared: list[Shared], weights: Weights | None = None) -> list[Shared]:
    """Return sources in the widest of their types: under autocast some modules give out float32."""
    types = {source.value.dtype for source in shared}
    if len(types) == 1:
        return shared
    widest = reduce(torch.promote_types, types)
    return [s if s.value.dtype is widest else _shared(s.value.to(widest), weights) for s in shared]


def _fuses(norm: nn.BatchNorm2d, act: nn.ReLU | None, conv: nn.Conv2d | None) -> bool:
    """Return whether modules are what they were built as, and the norm's statistics those of the batch."""
    return (
        is_training_norm(norm)
        and (act is None or is_plain(act, nn.ReLU))
        and (conv is None or is_plain_conv(conv))
    )


def _one_by_one(x: Tensor, act: nn.Module | None, conv: nn.Module | None) -> Tensor:
    x = x if act is None else act(x)
    return x if conv is None else conv(x)


def _state(norm: nn.BatchNorm2d, act: nn.ReLU | None, like: Tensor) -> NormState:
    return NormState(norm, "none" if act is None else "relu", like)


def _update_sources(module: nn.Module | None, sources: Sequence[Shared]) -> None:
    """Move the running statistics that a reader keeps of its sources."""
    assert isinstance(module, NormalizedDepthwise)
    stats = [source.port.stats for source in sources]
    mean = torch.stack([s.mean for s in stats if s is not None])
    var = torch.stack([s.var for s in stats if s is not None])
    move(module, mean, var, count_of(sources[0].value), module.momentum)


def _norm_act_conv(x: Tensor, norm: NormState, conv: nn.Conv2d | None) -> Tensor:
    weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return _apply(NormActConv, norm, conv, x, norm.weight, norm.bias, weight, bias)
