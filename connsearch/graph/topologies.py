"""Topologies: which earlier outputs each layer reads.

A topology answers one question, "which nodes precede node j?", for any depth. Node 0 is the block
input, nodes 1..n_layers are layers, and node n_layers + 1 is the block output: whatever comes after
the block (a transition, the head) reads what one more layer would.

Sources of the rules: ResNet-v2 and DenseNet (`dense`), Log-DenseNet (Hu et al., arXiv 1711.00002:
`log_dense`, `loglog_dense`, `nearest`, `evenly_spaced`, `half`, `every_other`), SparseNet (Zhu et al.,
arXiv 1801.05895: `sparse`), HarDNet (Chao et al., arXiv 1909.00948: `harmonic`).
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from connsearch.errors import SpecError
from connsearch.registry import Ref, Registry

Rule = Callable[..., Iterable[int]]

TOPOLOGIES: Registry[Rule] = Registry("topology")


def register_topology(name: str) -> Callable[[Rule], Rule]:
    """Register a rule `rule(j)` or `rule(j, n_layers)` that returns the predecessors of node j.

    Keyword-only arguments with plain defaults become parameters of the topology.

    Raises:
        SpecError: if the name is taken, or the rule takes other positional arguments.
    """

    def add(rule: Rule) -> Rule:
        positional = _positional(rule)
        if len(positional) not in (1, 2) or any(p.default is not p.empty for p in positional):
            words = ", ".join(str(p.replace(annotation=p.empty)) for p in positional) or "nothing"
            raise SpecError(
                f"topology {name!r} must take (j) or (j, n_layers), parameters by keyword only; "
                f"it takes {words}"
            )
        return TOPOLOGIES.register(name)(rule)

    return add


def _positional(rule: Rule) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(rule).parameters.values() if p.kind in kinds]


def list_topologies() -> list[str]:
    """Return the names of all registered topologies.

    >>> "log_dense" in list_topologies()
    True
    """
    return sorted(TOPOLOGIES)


def predecessors(topology: object, n_layers: int) -> tuple[tuple[int, ...], ...]:
    """Return the ascending predecessors of nodes 1 .. n_layers + 1 of a block.

    >>> predecessors("log_dense", 3)
    ((0,), (0, 1), (1, 2), (0, 2, 3))

    Raises:
        SpecError: if the topology is unknown, `n_layers` is below 1, or the rule names a node that
            does not precede j or leaves a node that no later one reads.
    """
    ref = topology if isinstance(topology, Ref) else TOPOLOGIES.parse(topology)
    if type(n_layers) is not int or n_layers < 1:
        raise SpecError(f"a block needs an integer of at least 1 layers, got {n_layers!r}")
    return _asked_once(TOPOLOGIES[ref.name], ref, n_layers)


def asked(rule: Rule, ref: Ref, n_layers: int) -> tuple[tuple[int, ...], ...]:
    """Return what a rule, of that reference, says now; `predecessors` remembers what it said first.

    Raises:
        SpecError: if the rule names a node that does not precede j or leaves one that no later one reads.
    """
    params: dict[str, Any] = TOPOLOGIES.bind(ref)
    depth = (n_layers,) if len(_positional(rule)) > 1 else ()
    found = []
    for j in range(1, n_layers + 2):
        read = rule(j, *depth, **params)
        if not isinstance(read, Iterable):
            raise SpecError(f"topology {ref.label!r}: node {j} reads {read!r}: give a set or a list of nodes")
        sources = set(read)
        bad = [i for i in sources if not (isinstance(i, int) and 0 <= i < j)]
        if bad or not sources:
            what = f"reads {bad[0]!r}" if bad else "reads nothing"
            raise SpecError(f"topology {ref.label!r}: node {j} {what}: it must read some of 0..{j - 1}")
        found.append(tuple(sorted(sources)))
    for j in sorted(set(range(n_layers + 1)) - set().union(*found)):
        raise SpecError(f"topology {ref.label!r}: no later node of {n_layers + 1} reads node {j}")
    return tuple(found)


_asked_once = lru_cache(maxsize=4096)(asked)


@register_topology("chain")
def chain(j: int) -> Iterable[int]:
    """Only the previous node: a plain feed-forward block."""
    return (j - 1,)


@register_topology("dense")
def dense(j: int) -> Iterable[int]:
    """All earlier nodes: ResNet-v2 with sum, DenseNet with concat, DelugeNet with depthwise."""
    return range(j)


@register_topology("log_dense")
def log_dense(j: int) -> Iterable[int]:
    """Offsets 1, 2, 4, 8, ...: floor(log2 j) + 1 predecessors (Log-DenseNet).

    >>> sorted(log_dense(7))
    [3, 5, 6]
    """
    return (j - (1 << k) for k in range(j.bit_length()))


@register_topology("sparse")
def sparse(j: int, *, base: int = 2) -> Iterable[int]:
    """Offsets 1, c, c^2, ... up to j, for base c: floor(log_c j) + 1 predecessors (SparseNet).

    >>> sorted(sparse(10, base=3))
    [1, 7, 9]

    Raises:
        SpecError: if the base is below 2.
    """
    if base < 2:
        raise SpecError(f"topology 'sparse': base must be at least 2, got {base}")
    return (j - offset for offset in _powers(base, j))


def _powers(base: int, last: int) -> Iterator[int]:
    power = 1
    while power <= last:
        yield power
        power *= base


def _log_layers(n_layers: int) -> int:
    """Return floor(log2(L + 1)) + 1, the number of inputs that the comparison patterns share."""
    return (n_layers + 1).bit_length()


@register_topology("nearest")
def nearest(j: int, n_layers: int, *, k: int = 0) -> Iterable[int]:
    """The k latest nodes; k = 0 means floor(log2(L + 1)) + 1 of them (Log-DenseNet's NEAREST).

    >>> sorted(nearest(9, 12))
    [5, 6, 7, 8]

    Raises:
        SpecError: if k is below 0.
    """
    if k < 0:
        raise SpecError(f"topology 'nearest': k must be at least 0, got {k}")
    return range(max(0, j - (k or _log_layers(n_layers))), j)


@register_topology("evenly_spaced")
def evenly_spaced(j: int, n_layers: int) -> Iterable[int]:
    """j - 1 - floor(t j / n) for t = 0..n-1, n = floor(log2(L + 1)) + 1 (EVENLY-SPACED).

    >>> sorted(evenly_spaced(9, 12))
    [2, 4, 6, 8]
    """
    n = _log_layers(n_layers)
    return {j - 1 - t * j // n for t in range(n)}


@register_topology("half")
def half(j: int) -> Iterable[int]:
    """The nearest half: j - 1, ..., j - 1 - floor((j - 1) / 2)."""
    return range(j - 1 - (j - 1) // 2, j)


@register_topology("every_other")
def every_other(j: int) -> Iterable[int]:
    """Every second node, j - 1, j - 3, j - 5, ..."""
    return range(j - 1, -1, -2)


@register_topology("harmonic")
def harmonic(j: int, n_layers: int) -> Iterable[int]:
    """j - 2^n for every n with 2^n dividing j; the output reads the last and all odd layers (HarDNet).

    >>> sorted(harmonic(12, 16))
    [8, 10, 11]
    """
    if j == n_layers + 1:
        return {n_layers, *range(1, n_layers + 1, 2)}
    return (j - (1 << n) for n in range(j.bit_length()) if j % (1 << n) == 0)


@register_topology("random_dag")
def random_dag(j: int, *, p: float = 0.5, seed: int = 0) -> Iterable[int]:
    """The previous node, and each earlier one with probability p; the same for the same seed.

    >>> sorted(random_dag(5, p=0.5, seed=7))
    [1, 3, 4]

    Raises:
        SpecError: if p is not within 0..1.
    """
    if not 0 <= p <= 1:
        raise SpecError(f"topology 'random_dag': p must be within 0..1, got {p}")
    draw = random.Random(f"{seed}/{j}")
    return {j - 1, *(i for i in range(j - 1) if draw.random() < p)}


@register_topology("loglog_dense")
def loglog_dense(j: int, n_layers: int, *, min_inputs: int = 4) -> Iterable[int]:
    """Recursive key layers, about log log n from anywhere to anywhere (LogLog-DenseNet).

    Layers that read fewer than `min_inputs` nodes are padded with offsets 1, 2, 4, ..., 32; the
    block output reads the last layer and every key of the outermost interval.
    """
    layers, keys = _loglog(n_layers + 1)
    sources = set(layers[j]) if j <= n_layers else {n_layers, *keys}
    for offset in _powers(2, min(j, 32)):
        if len(sources) >= min_inputs:
            break
        sources.add(j - offset)
    return sources


@lru_cache(maxsize=512)
def _loglog(n_nodes: int) -> tuple[tuple[frozenset[int], ...], tuple[int, ...]]:
    """Return the unpadded sources of nodes 0 .. n_nodes - 1, and the keys of the outermost interval."""
    sources: list[set[int]] = [{i - 1} if i else set() for i in range(n_nodes)]

    def connect(a: int, b: int) -> tuple[int, ...]:
        if b - a <= 2:
            return (a, b - 1)
        step = math.isqrt(b - a)
        keys = sorted({a, *range(a + (b - 1 - a) % step, b, step), b - 1})
        for before, key in pairwise(keys):
            sources[key].update(k for k in keys if k < key)
            for node in range(before + 1, key):
                sources[node].add(before)
            connect(before, key + 1)
        return tuple(keys)

    keys = connect(0, n_nodes)
    return tuple(map(frozenset, sources)), keys
