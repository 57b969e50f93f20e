"""When are two graphs the same network? A digest that names and order do not change.

Signatures of nodes are refined until they tell no more nodes apart (colour refinement, after Weisfeiler
and Lehman). Where some stay alike, each of the smallest such group is marked in turn and all are refined
again, which also separates regular graphs, such as a ring of six from two rings of three.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

Neighbours = Sequence[Sequence[int]]


def canonical_digest(labels: Sequence[str], sources: Neighbours, readers: Neighbours) -> str:
    """Return 64 hexadecimal digits, the same for every topological order of the nodes.

    Args:
        labels: One for each node: what else must agree.
        sources: For each node, the nodes that it reads, all earlier.
        readers: For each node, the nodes that read it, all later.

    >>> canonical_digest("abc", [(), (0,), (0,)], [(1, 2), (), ()]) == canonical_digest(
    ...     "acb", [(), (0,), (0,)], [(1, 2), (), ()])
    True
    """
    words = _refined(labels, sources, readers)
    marked = [[*words[:i], words[i] + "*", *words[i + 1 :]] for i in _alike(words)]
    found = [_refined(m, sources, readers) for m in marked] or [words]
    return _hash(sorted(_hash(sorted(f)) for f in found))


def _refined(words: Sequence[str], sources: Neighbours, readers: Neighbours) -> Sequence[str]:
    n_known = 0
    while n_known < len(set(words)):
        n_known = len(set(words))
        below = _signatures(range(len(words)), sources, words)
        words = _signatures(reversed(range(len(words))), readers, below)
    return words


def _alike(words: Sequence[str]) -> list[int]:
    """Return the positions of the smallest group of equal words; of groups of one size, the first by word."""
    groups = [(n, word) for word, n in Counter(words).items() if n > 1]
    _, first = min(groups, default=(0, ""))
    return [i for i, word in enumerate(words) if word == first]


def _signatures(order: Iterable[int], neighbours: Neighbours, words: Sequence[str]) -> list[str]:
    """Return per node a digest of its word and, recursively, of its neighbours' signatures."""
    found = [""] * len(words)
    for index in order:
        found[index] = _hash([words[index], *sorted(found[n] for n in neighbours[index])])
    return found


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
