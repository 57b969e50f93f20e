"""How far apart the nodes of a graph are, for the gradient that flows back."""

from __future__ import annotations

from collections.abc import Sequence


def distance_histogram(sources: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return, for each distance d, how many pairs (node, ancestor) are d connections apart at the least.

    A set of ancestors is one integer, a bit for each node, so that a step is a handful of OR operations.

    Args:
        sources: For each node, the indices of the nodes it reads, all smaller than its own.

    >>> distance_histogram([(), (0,), (0, 1), (2,)])
    {1: 4, 2: 2}
    """
    within = [1 << i for i in range(len(sources))]  # nodes at most d connections back, itself included
    counts: dict[int, int] = {}
    distance, n_known = 0, len(within)
    while True:
        wider = [_union(within, s) | w for s, w in zip(sources, within, strict=True)]
        n_now = sum(w.bit_count() for w in wider)
        if n_now == n_known:
            return counts
        distance += 1
        counts[distance] = n_now - n_known
        within, n_known = wider, n_now


def _union(sets: Sequence[int], indices: Sequence[int]) -> int:
    union = 0
    for index in indices:
        union |= sets[index]
    return union
