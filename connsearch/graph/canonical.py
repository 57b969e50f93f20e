"""When are two graphs the same network? A digest that names and order do not change.

Signatures of nodes are refined until they tell no more nodes apart (colour refinement, after Weisfeiler
and Lehman). Where some stay alike, each of the smallest such group is marked in turn and all are refined
again, which also separates regular graphs, such as a ring of six from two rings of three.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Neighbours = Sequence[Sequence[int]]


def canonical_digest(
    labels: Sequence[str], sources: Neighbours, readers: Neighbours, ordered: Sequence[bool] = ()
) -> str:
    """Return 64 hexadecimal digits, the same for every topological order of the nodes.

    Args:
        labels: One for each node: what else must agree.
        sources: For each node, the nodes that it reads, all earlier.
        readers: For each node, the nodes that read it, all later.
        ordered: For each node, whether the order of its sources matters; none by default.

    >>> canonical_digest("abc", [(), (0,), (0,)], [(1, 2), (), ()]) == canonical_digest(
    ...     "acb", [(), (0,), (0,)], [(1, 2), (), ()])
    True
    """
    edges = _Edges(sources, readers, ordered or [False] * len(labels))
    words = _refined(labels, edges)
    marked = [[*words[:i], words[i] + "*", *words[i + 1 :]] for i in _alike(words)]
    found = [_refined(m, edges) for m in marked] or [words]
    return _hash(sorted(_hash(sorted(f)) for f in found))


class _Edges(NamedTuple):
    sources: Neighbours
    readers: Neighbours
    ordered: Sequence[bool]


def _refined(words: Sequence[str], edges: _Edges) -> Sequence[str]:
    n_known = 0
    while n_known < len(set(words)):
        n_known = len(set(words))
        words = _from_readers(_from_sources(words, edges), edges)
    return words


def _alike(words: Sequence[str]) -> list[int]:
    """Return the positions of the smallest group of equal words; of groups of one size, the first by word."""
    groups = [(n, word) for word, n in Counter(words).items() if n > 1]
    _, first = min(groups, default=(0, ""))
    return [i for i, word in enumerate(words) if word == first]


def _from_sources(words: Sequence[str], edges: _Edges) -> list[str]:
    """Return per node a digest of its word and, recursively, of its sources' signatures."""
    found: list[str] = []
    for word, sources, ordered in zip(words, edges.sources, edges.ordered, strict=True):
        below = [found[source] for source in sources]
        found.append(_hash([word, *(below if ordered else sorted(below))]))
    return found


def _from_readers(words: Sequence[str], edges: _Edges) -> list[str]:
    """Return per node a digest of its word and, recursively, of its readers' signatures."""
    found = [""] * len(words)
    for index in reversed(range(len(words))):
        above = [
            f"{edges.sources[reader].index(index)} {found[reader]}"
            if edges.ordered[reader]
            else found[reader]
            for reader in edges.readers[index]
        ]
        found[index] = _hash([words[index], *sorted(above)])
    return found


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
