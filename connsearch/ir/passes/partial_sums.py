"""Reuse a partial sum instead of adding its terms again.

A block where each layer reads the sum of all earlier outputs adds 1 + 2 + ... + (n - 1) maps: quadratic in
depth. Each sum extends the one before by a term, so that n - 1 additions do:

    %3 = aggregate.sum <- %1 %2                %3 = aggregate.sum <- %1 %2
    %5 = aggregate.sum <- %1 %2 %4      ->     %5 = aggregate.sum <- %3 %4

Sparse patterns share terms too: two terms that several sums have in common get a sum of their own, the most
common two first. A mean is a sum, scaled; it becomes one where that is part of another. Terms may then be
added in another order: results differ by rounding.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from connsearch.ir.program import Aggregate, Op, Program, Scale, Step, renumbered
from connsearch.registry import Ref

_SUM = Step(Aggregate(Ref("sum")))
Sums = dict[
    int, tuple[int, ...]
]  # the terms of each sum, by value; -v is the mean that value v is the sum of


def partial_sums(program: Program) -> Program:
    """Build sums from each other."""
    adding = [value for value, op in enumerate(program.ops, start=1) if _adds(op)]
    if not _nested(
        [program.op(value).reads for value in adding]
    ):  # a mean is one pass, sum and scale are two
        adding = [value for value in adding if not _is_mean(program.op(value))]
    sums, same = _from_each_other(program, adding)
    pairs = _common_pairs(sums, first=len(program.ops) + 1)
    if not same and not pairs and all(sums[value] == program.op(value).reads for value in adding):
        return program
    ops = _rewritten(program, sums, same, pairs)
    return renumbered(program, ops)


def _adds(op: Op) -> bool:
    what = op.aggregate
    adds = what is not None and what.ref in (Ref("sum"), Ref("mean")) and not what.drops
    return adds and len(op.steps) == 1


def _is_mean(op: Op) -> bool:
    return op.aggregate is not None and op.aggregate.ref == Ref("mean")


def _nested(terms: list[tuple[int, ...]]) -> bool:
    """Return whether one sum is part of another."""
    sets = sorted({frozenset(reads) for reads in terms}, key=len)
    return any(small < large for small, large in combinations(sets, 2))


def _from_each_other(program: Program, adding: list[int]) -> tuple[Sums, dict[int, int]]:
    """Return each sum, built from the largest earlier ones that are part of it; and which equal which."""
    known: dict[frozenset[int], int] = {}
    sums: Sums = {}
    same: dict[int, int] = {}
    means = {value for value in adding if _is_mean(program.op(value))}
    for value in adding:
        terms = [same.get(read, read) for read in program.op(value).reads]
        rest = whole = frozenset(-term if term in means else term for term in terms)
        if whole in known and value not in program.kept:
            same[value] = known[whole]
            continue
        parts = []
        for part in sorted(known, key=len, reverse=True):
            if part < rest:
                parts.append(known[part])
                rest -= part
        known[whole] = value
        sums[value] = (*parts, *sorted(rest, key=abs))
    return sums, same


def _common_pairs(sums: Sums, *, first: int) -> Sums:
    """Take out of sums what two or more of them have in common, two terms at a time; return these pairs."""
    found: Sums = {}
    while True:
        long = [sorted(terms) for terms in sums.values() if len(terms) > 2]
        counts = Counter(pair for terms in long for pair in combinations(terms, 2))
        pair, n = max(counts.items(), key=lambda item: (item[1], item[0]), default=((0, 0), 0))
        if n < 2:
            return found
        value = first + len(found)
        found[value] = pair
        for key, terms in sums.items():
            if len(terms) > 2 and set(pair) <= set(terms):
                sums[key] = (value, *(term for term in terms if term not in pair))


def _rewritten(program: Program, sums: Sums, same: dict[int, int], pairs: Sums) -> list[tuple[int, Op]]:
    """Return the operations: pairs before the first sum that adds them, after a mean's sum what scales it."""
    ops: list[tuple[int, Op]] = []
    placed: set[int] = set()
    first = len(program.ops) + len(pairs) + 1
    scaled: dict[int, int] = {}  # the numbers of means, by the values that are their sums now

    def number(term: int) -> int:
        return scaled[-term] if term < 0 else term

    for value, op in enumerate(program.ops, start=1):
        if value in sums:
            for pair in _unplaced(sums[value], pairs, placed):
                ops.append((pair, Op((_SUM,), tuple(map(number, pairs[pair])), op.shape)))
            ops.append((value, Op((_SUM,), tuple(map(number, sums[value])), op.shape)))
        elif value not in same:
            reads = [same.get(read, read) for read in op.reads]
            ops.append((value, Op(op.steps, tuple(scaled.get(r, r) for r in reads), op.shape)))
        if value in sums and _is_mean(op):
            scaled[value] = first + len(scaled)
            ops.append((scaled[value], Op((Step(Scale(1 / len(op.reads))),), (value,), op.shape)))
    return ops


def _unplaced(terms: tuple[int, ...], pairs: Sums, placed: set[int]) -> list[int]:
    """Return the pairs among terms that have no place yet, each after those that it adds itself."""
    needed = []
    for term in terms:
        if term in pairs and term not in placed:
            placed.add(term)
            needed += [*_unplaced(pairs[term], pairs, placed), term]
    return needed
