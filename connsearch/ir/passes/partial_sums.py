"""Reuse a partial sum instead of adding its terms again.

A block where each layer reads the sum of all earlier outputs adds 1 + 2 + ... + (n - 1) maps: quadratic in
depth. Each sum extends the one before by a term, so that n - 1 additions do:

    %9 = aggregate.sum <- %1 %2 %4 %6 %8                %9 = aggregate.sum <- %1 %2 %4 %6 %8
    %11 = aggregate.sum <- %1 %2 %4 %6 %8 %10     ->    %11 = aggregate.sum <- %9 %10

Sparse patterns share terms too: two terms that several sums have in common get a sum of their own. A mean
is a sum, scaled; it becomes one where that is part of another. One pass over many maps is fast by itself,
so that nothing is done that would not move less (`connsearch.ir.passes.sums`): a sum of three is not worth
a sum of two and another. Terms may be added in another order: results differ by rounding.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heappush
from itertools import combinations

from connsearch.ir.passes.sums import Sums, adds, is_mean
from connsearch.ir.program import Aggregate, Op, Program, Scale, Step, renumbered
from connsearch.registry import Ref

_SUM = Step(Aggregate(Ref("sum")))
Pair = tuple[int, int]


def partial_sums(program: Program) -> Program:
    """Build sums from each other, until nothing more pays."""
    before = None
    while program is not before:
        before, program = program, _rebuilt(_without_equals(program))
    return program


def _without_equals(program: Program) -> Program:
    """Return the program with equal sums, and equal means, made once."""
    found: dict[tuple[bool, frozenset[int]], int] = {}
    same: dict[int, int] = {}
    ops: list[tuple[int, Op]] = []
    for value, op in enumerate(program.ops, start=1):
        op = _reading(op, same)
        if value not in program.kept and adds(op):
            first = found.setdefault((is_mean(op), frozenset(op.reads)), value)
            if first != value:
                same[value] = first
                continue
        ops.append((value, op))
    return renumbered(program, ops) if same else program


def _rebuilt(program: Program) -> Program:
    sums = Sums(program)
    given = dict(sums.terms)
    for group in sums.groups():
        sums = _with_parts(sums, group)
    _share_pairs(sums)
    return program if sums.terms == given else renumbered(program, _rewritten(program, sums))


def _with_parts(sums: Sums, group: list[int]) -> Sums:
    """Return sums built from each other; for means that pays if most of them become sums."""
    means = {number: sums.terms[number] for number in group if number in sums.means}
    if means:
        scaled = sums.copy()
        scaled.replace(means)
        _use_parts(scaled, group)
        if scaled.moved().is_less(sums.moved()):
            return scaled
    _use_parts(sums, group)
    return sums


def _use_parts(sums: Sums, group: list[int]) -> None:
    """Build sums from the largest others that are part of them, the longest first."""
    sets = {number: frozenset(sums.terms[number]) for number in group}
    by_size = sorted(group, key=lambda number: (len(sets[number]), number in sums.means), reverse=True)
    for place, whole in enumerate(by_size):
        for part in by_size[place + 1 :]:
            own = sums.terms[whole]
            if part in own or not sets[part].issubset(own):  # a part that is a term would be added twice
                continue
            rest = tuple(term for term in own if term not in sets[part])
            if rest or whole in sums.means:  # sums that have come to be equal are made once, next time
                sums.replace_if_less({whole: (part, *rest), part: sums.terms[part]})


def _share_pairs(sums: Sums) -> None:
    """Take out of sums of four or more what several of them have in common, two terms at a time."""
    holders: defaultdict[Pair, set[int]] = defaultdict(set)  # the sums that add both
    for number, terms in sums.terms.items():
        if _may_hold(sums, number):
            for pair in combinations(sorted(terms), 2):
                holders[pair].add(number)
    queue = [rank for pair in holders if (rank := _rank(sums, pair, holders)) is not None]
    heapify(queue)
    while queue:
        rank = heappop(queue)
        pair = (-rank[1], -rank[2])
        now = _rank(sums, pair, holders)
        if now != rank:  # another pair has taken a term of it since
            if now is not None:
                heappush(queue, now)
            continue
        for formed in _take(sums, pair, holders):
            if (rank := _rank(sums, formed, holders)) is not None:
                heappush(queue, rank)


def _may_hold(sums: Sums, number: int) -> bool:
    one_pass = number in sums.means and number not in sums.scaled
    return len(sums.terms[number]) > 3 and not one_pass


def _rank(sums: Sums, pair: Pair, holders: dict[Pair, set[int]]) -> tuple[int, int, int] | None:
    """Return what is least for the pair that saves most, the latest of these; None if it saves nothing."""
    if len(holders[pair]) < 3:  # evaluation would move more: a sum is three maps, each holder reads one less
        return None
    saved = sums.saved_by_pair(pair, len(holders[pair]))
    return (-saved, -pair[0], -pair[1]) if saved > 0 else None


def _take(sums: Sums, pair: Pair, holders: defaultdict[Pair, set[int]]) -> list[Pair]:
    """Give a pair a sum of its own in those that hold it; return the pairs that this one now forms."""
    made, numbers = sums.number(), sorted(holders.pop(pair))
    changes: dict[int, tuple[int, ...]] = {made: pair}
    formed: dict[Pair, None] = {}
    for number in numbers:
        rest = tuple(term for term in sums.terms[number] if term not in pair)
        changes[number] = (made, *rest)
        lost = [(min(term, old), max(term, old)) for term in rest for old in pair]
        if len(rest) < 3:
            lost += combinations(sorted(rest), 2)
        for held in lost:
            holders[held].discard(number)
        for term in rest if len(rest) > 2 else ():
            holders[term, made].add(number)
            formed[term, made] = None
    sums.replace(changes)
    return list(formed)


def _rewritten(program: Program, sums: Sums) -> list[tuple[int, Op]]:
    """Return the operations: a sum where it is first needed, for a mean what scales it."""
    ops: dict[int, Op] = {}
    numbers = {value: number for number, value in sums.means.items() if number in sums.scaled}

    def place(number: int, op: Op) -> None:
        if number in sums.terms and number not in ops:
            terms = tuple(_resolved(sums, term) for term in sums.terms[number])
            for term in terms:
                place(term, op)
            as_it_was = number <= len(program.ops) and program.op(number).reads == terms
            ops[number] = program.op(number) if as_it_was else Op((_SUM,), terms, op.shape)

    for value, op in enumerate(program.ops, start=1):
        number = numbers.get(value, value)
        if number not in sums.terms:
            ops[value] = op
            continue
        number = _resolved(sums, number)
        place(number, op)
        if value in numbers:
            ops[value] = Op((Step(Scale(1 / len(op.reads))),), (number,), op.shape)
    return list(ops.items())


def _resolved(sums: Sums, number: int) -> int:
    """Return the number of what is really added, for one that equals another sum."""
    while len(terms := sums.terms.get(number, ())) == 1:
        (number,) = terms
    return number


def _reading(op: Op, same: dict[int, int]) -> Op:
    return Op(op.steps, tuple(same.get(read, read) for read in op.reads), op.shape)
