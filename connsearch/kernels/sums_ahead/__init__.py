"""Weighted sums of which the first sources are summed ahead, for several at once.

These write maps that they are given, and are no operators of torch: whoever has them called where torch looks
on (`operators.is_watched`) uses `weighted_sum_norm_act`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor

from connsearch.kernels.dispatch import choose

__all__ = ["begin_sums", "finish_sum_norm_act"]


def begin_sums(sources: Sequence[Tensor], weight_KLC: Tensor, sums: Sequence[Tensor]) -> None:
    """Write sum_i w_ki h_i to each of K maps, B C H W, in the dtype and the layout of the sources."""
    _chosen(sources[0]).begin_sums(sources, weight_KLC, sums)


def finish_sum_norm_act(
    begun: Tensor,
    sources: Sequence[Tensor],
    weight_LC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make x = begun + sum_i w_i h_i + b of what `begin_sums` left; return y = act(BN(x)) and statistics."""
    found: tuple[Tensor, Tensor, Tensor] = _chosen(begun).finish_sum_norm_act(
        begun, sources, weight_LC, bias_C, norm_weight_C, norm_bias_C, eps, act
    )
    return found


def _chosen(like: Tensor) -> ModuleType:
    return _implementation(choose(like.device.type, like.dtype).backend)


@cache
def _implementation(backend: str) -> ModuleType:
    return import_module(f"connsearch.kernels.sums_ahead.{backend}")
