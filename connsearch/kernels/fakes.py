"""What kernels give out, without computing it: empty tensors of the right shape, type and layout.

Each function has the name of a reference and takes its arguments, in order. Shapes: L sources, R readers,
B C H W maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of statistics of maps of a type, and of sums over them."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def new_map(like: Tensor, channels: int | None = None) -> Tensor:
    """Return a dense map in the layout of another one, maybe of other channels."""
    B, C, H, W = like.shape
    last = not like.is_contiguous() and C > 1 and like.stride(1) == 1
    form = torch.channels_last if last else torch.contiguous_format
    shape = (B, C if channels is None else channels, H, W)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def vectors(like: Tensor, count: int, *shape: int) -> tuple[Tensor, ...]:
    """Return so many tensors of sums over a map."""
    return tuple(torch.empty(shape, dtype=sum_dtype(like.dtype), device=like.device) for _ in range(count))


def _channels(sources: Sequence[Tensor]) -> int:
    return sum(h.shape[1] for h in sources)


def weighted_sum(sources: Sequence[Tensor], *_: Any) -> Tensor:
    """Return B C H W."""
    return new_map(sources[0])


def weighted_sum_norm_act(sources: Sequence[Tensor], *_: Any) -> tuple[Tensor, ...]:
    """Return two maps B C H W, mean C, variance C."""
    first = sources[0]
    return new_map(first), new_map(first), *vectors(first, 2, first.shape[1])


def pull(grads: Sequence[Tensor], weight_RBC: Tensor, source: Tensor, *_: Any) -> tuple[Tensor, ...]:
    """Return a map B C H W, and R (B or 1) (C or 1)."""
    return new_map(source), *vectors(source, 1, *weight_RBC.shape)


def pull_normalized(
    grads: Sequence[Tensor], weight_RC: Tensor, source: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    """Return a map B C H W, and twice R C."""
    return new_map(source), *vectors(source, 2, len(grads), source.shape[1])


def batch_stats(x: Tensor) -> tuple[Tensor, ...]:
    """Return mean C, variance C."""
    return vectors(x, 2, x.shape[1])


def norm_act(x: Tensor, *_: Any) -> Tensor:
    """Return B C H W."""
    return new_map(x)


def norm_act_train(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    """Return a map B C H W, mean C, variance C."""
    return new_map(x), *vectors(x, 2, x.shape[1])


def norm_act_backward(grad_y: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    """Return a map B C H W, and twice C."""
    return new_map(x), *vectors(x, 2, x.shape[1])


def concat_norm_act(sources: Sequence[Tensor], *_: Any) -> Tensor:
    """Return B K H W."""
    return new_map(sources[0], _channels(sources))


def concat_norm_act_backward(grad_y: Tensor, sources: Sequence[Tensor], *_: Any) -> tuple[Tensor, ...]:
    """Return twice K."""
    return vectors(sources[0], 2, _channels(sources))


def add_affine(*_: Any) -> None:
    """Return nothing."""


def norm_act_conv(
    sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str, weight_OK: Tensor
) -> Tensor:
    """Return B O H W."""
    return new_map(sources[0], weight_OK.shape[0])


def norm_act_conv_backward(grad_y: Tensor, sources: Sequence[Tensor], *others: Any) -> tuple[Tensor, ...]:
    """Return twice K, and O K."""
    first, K = sources[0], _channels(sources)
    return *vectors(first, 2, K), *vectors(first, 1, grad_y.shape[1], K)
