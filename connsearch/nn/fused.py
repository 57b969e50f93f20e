"""What a compiled network calls for operations of several steps, with gradients.

Each function does what the modules it is given would do one after the other, in training, and reads their
parameters and updates their running statistics as they would. A norm that was put into evaluation on its
own is left to torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.functions import ConcatNormActConv, NormActConv, NormState, WeightedSum
from connsearch.nn.shared import Shared, Weights, share
from connsearch.nn.statistics import count_of, move

Sources = Sequence[Shared | Tensor]


def add_up(sources: Sequence[Tensor]) -> Tensor:
    """Return the sum of several maps."""
    total = sources[0] + sources[1]
    for h_BCHW in sources[2:]:
        total += h_BCHW
    return total


def layer(x: Tensor, norm: nn.BatchNorm2d, act: str, conv: nn.Conv2d | None = None) -> Tensor:
    """Return conv(act(norm(x))), or without a convolution act(norm(x))."""
    if conv is not None and not _fuses(conv):
        return conv(layer(x, norm, act))  # type: ignore[no-any-return]
    if not _computes_stats(norm):
        return _plain(norm(x), act, conv)
    return _norm_act_conv(x, NormState(norm, act, x), conv)


def weighted_layer(
    sources: Sources,
    weights: Weights,
    norm: nn.BatchNorm2d | None = None,
    act: str = "none",
    conv: nn.Conv2d | None = None,
) -> Tensor:
    """Return conv(act(norm(x))) of x = sum_i w_i h_i + b, or as much of it as is given."""
    if conv is not None and not _fuses(conv):
        return conv(weighted_layer(sources, weights, norm, act))  # type: ignore[no-any-return]
    if weights.module is not None and not weights.module.training:
        plain = weights.module([_value(source) for source in sources])
        return plain if norm is None else layer(plain, norm, act, conv)
    shared = [_shared(source, weights) for source in sources]
    fused = NormState(norm, act, shared[0].value) if norm is not None and _computes_stats(norm) else None
    if weights.normalized:
        _update_sources(weights.module, shared)
    values = [source.value for source in shared]
    x = _apply(WeightedSum, shared, weights, fused, weights.tensor, weights.bias, *values)
    if norm is None:
        return x
    return _norm_act_conv(x, fused, conv) if fused is not None else _plain(norm(x), act, conv)


def concat_layer(sources: Sources, norm: nn.BatchNorm2d, act: str, conv: nn.Conv2d | None = None) -> Tensor:
    """Return conv(act(norm(x))) of the concatenation x of the sources, which is not made."""
    if conv is not None and not _fuses(conv):
        return conv(concat_layer(sources, norm, act))  # type: ignore[no-any-return]
    if not _computes_stats(norm):
        return _plain(norm(torch.cat([_value(source) for source in sources], dim=1)), act, conv)
    shared = [_shared(source) for source in sources]
    stats = [source.port.stats for source in shared]
    mean = torch.cat([s.mean for s in stats if s is not None])
    var = torch.cat([s.var for s in stats if s is not None])
    fused = NormState(norm, act, shared[0].value)
    fused.update(mean, var)
    values = [source.value for source in shared]
    weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return _apply(
        ConcatNormActConv,
        *(shared, fused, conv, mean, fused.rstd(var), fused.weight, fused.bias, weight, bias),
        *values,
    )


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    found: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return found


def _value(source: Shared | Tensor) -> Tensor:
    return source.value if isinstance(source, Shared) else source


def _shared(source: Shared | Tensor, weights: Weights | None = None) -> Shared:
    """Return a source with a port; with statistics, unless it is weighed as it is."""
    if isinstance(source, Shared):
        return source
    stats = weights is None or weights.normalized
    return share(source, [weights] if weights is not None else (), stats=stats)


def _computes_stats(norm: nn.BatchNorm2d) -> bool:
    """Return whether a norm is one whose statistics are those of the batch, kept as running averages."""
    return (
        _is_plain(norm, nn.BatchNorm2d)
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def _is_plain(module: nn.Module, sort: type[nn.Module]) -> bool:
    """Return whether a module is what it was built as: no subclass, nothing else in its place, no hooks."""
    return type(module) is sort and not module._forward_pre_hooks and not module._forward_hooks


def _fuses(conv: nn.Conv2d | None) -> bool:
    """Return whether a convolution may run inside a fused operation."""
    return conv is None or (_is_plain(conv, nn.Conv2d) and conv.padding_mode == "zeros")


def _plain(x: Tensor, act: str, conv: nn.Conv2d | None) -> Tensor:
    x = F.relu(x) if act == "relu" else x
    return x if conv is None else conv(x)


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
