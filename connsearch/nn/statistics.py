"""Running statistics: moved towards those of each batch, for all norms of a network together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor


def count_of(x: Tensor) -> int:
    """Return the number of values of each channel."""
    return x.numel() // x.shape[1]


class Move(NamedTuple):
    """Running statistics, and those of a batch that they are to move towards."""

    module: Any
    mean: Tensor
    var: Tensor
    n_values: int
    momentum: float


class _Moves(threading.local):
    """What a forward pass has put off: a few operations for all norms cost less than a few for each."""

    def __init__(self) -> None:
        self.pending: list[Move] | None = None


_moves = _Moves()


@contextmanager
def statistics_moved_at_the_end() -> Iterator[None]:
    """Move the running statistics of all norms that run inside together, after they have.

    Of those that have run if what is inside ends early, as a part does that is run again for its gradients.
    """
    outer, _moves.pending = _moves.pending, []
    try:
        yield
    finally:
        asked, _moves.pending = _moves.pending, outer
        _move_all(asked)


def move(module: Any, mean: Tensor, var: Tensor, count: int, momentum: float) -> None:
    """Move running statistics towards those of a batch, as torch does: the variance unbiased."""
    if count < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got {count}")
    asked = Move(module, mean, var, count, momentum)
    if _moves.pending is None:
        _move_all([asked])
    else:
        _moves.pending.append(asked)


def _move_all(moves: Sequence[Move]) -> None:
    groups: dict[tuple[float, torch.dtype, torch.device], list[Move]] = {}
    for m in moves:
        running_mean = m.module.running_mean
        groups.setdefault((m.momentum, running_mean.dtype, running_mean.device), []).append(m)
    for (momentum, dtype, _), group in groups.items():
        torch._foreach_add_([m.module.num_batches_tracked for m in group], 1)
        unbiased = torch._foreach_mul(
            [as_dtype(m.var, dtype) for m in group],
            [m.n_values / (m.n_values - 1) for m in group],
        )
        running = [m.module.running_mean for m in group] + [m.module.running_var for m in group]
        torch._foreach_lerp_(running, [*(as_dtype(m.mean, dtype) for m in group), *unbiased], momentum)


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of a type; asked so often that it looks first."""
    return tensor if tensor.dtype is dtype else tensor.to(dtype)
