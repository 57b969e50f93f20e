"""What each layer of a whole network reads, where a rule runs over all blocks.

The rules are topologies; the head reads what the last layer read, and that layer. Source: Log-DenseNet (Hu
et al., arXiv 1711.00002) and its authors' code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import isqrt
from typing import Any

from connsearch.errors import SpecError
from connsearch.graph.topologies import TOPOLOGIES, predecessors
from connsearch.registry import Ref

Rule = tuple[tuple[int, ...], ...]


def check_depths(depths: Sequence[int]) -> None:
    """Refuse blocks without a layer.

    Raises:
        SpecError: if there is no block, or a depth is no integer of at least 1.
    """
    if not depths or any(type(depth) is not int or depth < 1 for depth in depths):
        raise SpecError(f"depths: each block needs an integer of at least 1, got {list(depths)}")


def pattern_rule(pattern: object, depths: Sequence[int], *, hubs: Iterable[int] = ()) -> Rule:
    """Return the positions that each layer and, last, the head reads; 0 is the stem.

    Args:
        pattern: A topology; `loglog_dense` takes the ends of blocks as keys too.
        depths: Layers of each block.
        hubs: Layers that all later ones read too (the authors' forced early links).

    >>> pattern_rule("log_dense", [2, 2], hubs=[1])
    ((0,), (0, 1), (1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4))

    Raises:
        SpecError: if the pattern is unknown, a block has no layer or a hub is none.
    """
    check_depths(depths)
    ref = TOPOLOGIES.parse(pattern)
    n_layers = sum(depths)
    known = set(hubs)
    for hub in known:
        if not 1 <= hub <= n_layers:
            raise SpecError(f"hubs: there is no layer {hub} of {n_layers}")
    base = _loglog_rule(ref, depths) if ref.name == "loglog_dense" else predecessors(ref, n_layers)[:-1]
    layers = [tuple(sorted({*reads, *(h for h in known if h < j)})) for j, reads in enumerate(base, start=1)]
    return (*layers, (*layers[-1], n_layers))


def _loglog_rule(ref: Ref, depths: Sequence[int]) -> list[set[int]]:
    """Return what each layer reads by LogLog, the ends of blocks among the outermost keys.

    Between two keys it is the same recursion that the topology has.
    """
    n_layers = sum(depths)
    step = isqrt(n_layers + 1)
    ends = [sum(depths[: b + 1]) for b in range(len(depths))]
    keys = sorted({0, *range(n_layers % step, n_layers + 1, step), *ends})
    reads = [{j - 1} for j in range(1, n_layers + 1)]
    for first, last in pairwise(keys):
        reads[last - 1].update(key for key in keys if key < last)
        inside = predecessors(TOPOLOGIES.ref("loglog_dense", min_inputs=1), last - first)
        for j, sources in enumerate(inside[:-1], start=first + 1):
            reads[j - 1].update(first + i for i in sources)
            if j < last:
                reads[j - 1].add(first)
    least: Any = TOPOLOGIES.bind(ref)["min_inputs"]
    return [_padded(sources, j, least) for j, sources in enumerate(reads, start=1)]


def _padded(sources: set[int], j: int, least: int) -> set[int]:
    """Return sources with offsets 1, 2, 4, .. 32 added until there are enough."""
    offsets = [1 << k for k in range(6) if 1 << k <= j]
    more = [j - offset for offset in offsets if j - offset not in sources]
    return sources | set(more[: max(0, least - len(sources))])
