"""Outcome: what a network gives out and leaves behind, and how far that of one is from that of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from connsearch.nn.verification import WHAT, Errors, excess_of

SMALL = 1e-2  # below that, values are nothing but rounding where logits and gradients are of the order of 1
PART = 1e-3  # of the typical value, likewise
ZERO = 1e-9  # of the typical value: what is smaller in float64 is 0 but for rounding
TINY = torch.finfo(torch.float32).tiny
Each = list[list[float]]  # for each thing that is compared, the relative errors of its tensors


class Outcome(NamedTuple):
    """Tensors by what is compared, as in `Errors`; none of what was not run."""

    values: list[Tensor]
    gradients: list[Tensor]
    statistics: list[Tensor]
    inference: list[Tensor]

    def errors(self, truth: Outcome, *, small: float = SMALL, part: float = PART) -> Each:
        """Return how far the tensors are from those of another outcome.

        Args:
            truth: The other.
            small: Values below that are nothing but rounding.
            part: Values below that part of the typical one are likewise.
        """
        return [_relative(a, b, small, part) for a, b in zip(self, truth, strict=True)]


def _relative(ours: Sequence[Tensor], truth: Sequence[Tensor], small: float, part: float) -> list[float]:
    """Return |a - b| / |b| of each pair; small tensors are measured by the size of all.

    A gradient that is 0 but for rounding, as that of a bias before a norm, is a sum of terms of any size.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(ours, truth, strict=True)]
    n = sum(b.numel() for _, b in pairs)
    typical = (sum(float(b.square().sum()) for _, b in pairs) / max(n, 1)) ** 0.5
    found = []
    for a, b in pairs:
        size = float(b.norm()) / max(b.numel(), 1) ** 0.5
        least = typical if size < ZERO * typical else max(part * typical, small)
        error = float((a - b).norm()) / (max(size, least, TINY) * max(b.numel(), 1) ** 0.5)
        found.append(error if error == error else inf)
    return found


class Draws:
    """Errors of further runs of a definition, each made when it is first asked for, and kept.

    Args:
        make: Returns those of one run, by its number.
        most: How many runs there are.
    """

    def __init__(self, make: Callable[[int], Each], most: int) -> None:
        self._make, self._most = make, most
        self._found: list[Each] = []

    def __iter__(self) -> Iterator[Each]:
        for number in range(self._most):
            if number == len(self._found):
                self._found.append(self._make(number))
            yield self._found[number]


def greatest(found: Each) -> Errors:
    """Return the greatest error of all tensors."""
    return Errors(*(max(errors, default=0.0) for errors in found))


def excess(ours: Each, definition: Each, dtype: torch.dtype) -> Errors:
    """Return how many times as far off tensors are as the definition's errors explain, at the most."""
    return Errors(*(excess_of(*pair, dtype) for pair in zip(WHAT, ours, definition, strict=True)))


def explained(ours: Each, own: Each, dtype: torch.dtype, draws: Draws) -> tuple[Each, Errors]:
    """Return the definition's errors that explain ours, and the excess.

    Args:
        ours: Errors of a way in a precision.
        own: Errors of the definition in that precision.
        dtype: The precision.
        draws: Further runs of the definition: as long as ours are not explained, the greater errors of one
            more are taken.
    """
    found = excess(ours, own, dtype)
    for drawn in draws if max(found) > 1 else ():
        own = [[max(pair) for pair in zip(*errors, strict=True)] for errors in zip(own, drawn, strict=True)]
        found = excess(ours, own, dtype)
        if max(found) <= 1:
            break
    return own, found
