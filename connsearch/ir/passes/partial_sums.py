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

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import combinations

from connsearch.ir.program import Aggregate, Op, Program, Scale, Step, renumbered
from connsearch.registry import Ref

_SUM = Step(Aggregate(Ref("sum")))
Pair = tuple[int, int]


def partial_sums(program: Program) -> Program:
    """Build sums from each other."""
    found = _from_each_other(program)
    _share_pairs(found)
    if all(found.terms.get(value) == program.op(value).reads for value in found.totals):
        return program
    return renumbered(program, _rewritten(program, found))


@dataclass
class _Sums:
    """How sums are to be built.

    Attributes:
        next: A number that no value and no sum has.
        totals: For each sum or mean, the number of its sum: a sum's own, or that of one that is equal.
        terms: For each number of a sum, what it adds; a single term is what it equals.
    """

    next: int
    totals: dict[int, int] = field(default_factory=dict)
    terms: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def number(self) -> int:
        self.next += 1
        return self.next - 1

    def resolved(self, number: int) -> int:
        """Return the number of what is really added, for one that equals another sum."""
        while len(terms := self.terms.get(number, ())) == 1:
            (number,) = terms
        return number


def _adding(program: Program) -> dict[int, frozenset[int]]:
    """Return what each sum adds; means among them where that is part of what another one adds."""
    values = [v for v, op in enumerate(program.ops, start=1) if _adds(op) and v not in program.kept]
    sets = {value: frozenset(program.op(value).reads) for value in values}

    def related(value: int) -> bool:
        own = sets[value]
        return any(own <= other or other < own for v, other in sets.items() if v != value)

    return {v: terms for v, terms in sets.items() if not _is_mean(program.op(v)) or related(v)}


def _adds(op: Op) -> bool:
    what = op.aggregate
    adds = what is not None and what.ref in (Ref("sum"), Ref("mean")) and not what.drops
    return adds and len(op.steps) == 1 and len(set(op.reads)) == len(op.reads)


def _is_mean(op: Op) -> bool:
    return op.aggregate is not None and op.aggregate.ref == Ref("mean")


def _from_each_other(program: Program) -> _Sums:
    """Return each sum, built from the largest others that are part of it."""
    found = _Sums(len(program.ops) + 1)
    known: dict[frozenset[int], int] = {}
    by_size: list[frozenset[int]] = []  # of the known, the largest first
    for value, whole in sorted(_adding(program).items(), key=lambda item: len(item[1])):
        if whole in known:
            found.totals[value] = known[whole]
            continue
        parts, rest = [], whole
        for part in by_size:
            if part < rest and known[part] not in rest:  # else it would be added twice
                parts.append(known[part])
                rest -= part
        number = found.number() if _is_mean(program.op(value)) else value
        known[whole] = found.totals[value] = number
        by_size.insert(0, whole)
        found.terms[number] = (*parts, *(read for read in program.op(value).reads if read in rest))
    return found


def _share_pairs(found: _Sums) -> None:
    """Take out of sums what two or more of them have in common, two terms at a time."""
    holders: defaultdict[Pair, set[int]] = defaultdict(set)  # the sums that add both
    for number, terms in found.terms.items():
        for pair in combinations(sorted(terms), 2):
            holders[pair].add(number)
    queue = [_rank(pair, numbers) for pair, numbers in holders.items() if len(numbers) > 1]
    heapify(queue)
    while queue:
        rank = heappop(queue)
        pair = (-rank[1], -rank[2])
        numbers = holders[pair]
        if rank != _rank(pair, numbers):  # another pair has taken a term of it since
            if len(numbers) > 1:
                heappush(queue, _rank(pair, numbers))
            continue
        for new in _take(pair, sorted(numbers), found, holders):
            if len(holders[new]) > 1:
                heappush(queue, _rank(new, holders[new]))


def _rank(pair: Pair, numbers: set[int]) -> tuple[int, int, int]:
    """Return what is least for the pair that most sums have in common, the latest of these."""
    return -len(numbers), -pair[0], -pair[1]


def _take(pair: Pair, numbers: list[int], found: _Sums, holders: defaultdict[Pair, set[int]]) -> list[Pair]:
    """Give a pair a sum of its own in those that hold it; return the pairs that this one now forms."""
    made = found.number()
    formed = dict.fromkeys((term, made) for number in numbers for term in found.terms[number])
    for number in numbers:
        rest = tuple(term for term in found.terms[number] if term not in pair)
        for term in rest:
            for old in pair:
                holders[min(term, old), max(term, old)].discard(number)
            holders[term, made].add(number)
        found.terms[number] = (made, *rest)
    del holders[pair]
    found.terms[made] = pair
    return list(formed)


def _rewritten(program: Program, found: _Sums) -> list[tuple[int, Op]]:
    """Return the operations: a sum where it is first needed, for a mean what scales it."""
    ops: dict[int, Op] = {}
    same: dict[int, int] = {}  # what to read instead of a value
    means: dict[tuple[int, int], int] = {}  # by the sum that is scaled, and by how much

    def place(number: int, op: Op) -> None:
        if number in ops or number not in found.terms:
            return
        terms = [found.resolved(term) for term in found.terms[number]]
        for term in terms:
            place(term, op)
        ops[number] = Op((_SUM,), tuple(same.get(term, term) for term in terms), op.shape)

    for value, op in enumerate(program.ops, start=1):
        if value not in found.totals:
            ops[value] = Op(op.steps, tuple(same.get(read, read) for read in op.reads), op.shape)
            continue
        total = found.resolved(found.totals[value])
        place(total, op)
        if not _is_mean(op):
            same[value] = total
        elif (mean := means.setdefault((total, len(op.reads)), value)) != value:
            same[value] = mean
        else:
            ops[value] = Op((Step(Scale(1 / len(op.reads))),), (total,), op.shape)
    return list(ops.items())
