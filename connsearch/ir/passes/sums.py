"""How sums and means of a program may be built from each other, and what that moves.

The unit is a map, all those that a sum adds being of one size. What counts is what a pipeline makes of a
program in the end, as `connsearch.ir.traffic` counts it: a sum of n reads n and writes one, a norm that
alone reads a sum of three or more costs nothing to read it, and gradients are gathered at their sources. How
readers of another sort, such as gated sums and concatenations, leave theirs is not looked into.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from typing import NamedTuple

from connsearch.ir.passes.glue import is_weighted
from connsearch.ir.program import Op, Program
from connsearch.registry import Ref
from connsearch.spec.ops import is_batch_norm

Terms = tuple[int, ...]


class Maps(NamedTuple):
    """Maps that are moved.

    Attributes:
        training: In a training step.
        evaluation: In evaluation.
    """

    training: int
    evaluation: int

    def is_less(self, other: Maps) -> bool:
        """Return whether training moves less, and evaluation not more."""
        return self.training < other.training and self.evaluation <= other.evaluation


class Sums:
    """The sums and means of a program, and how they are to be built.

    A mean is one pass, like a sum, until it is built from a sum or another one from its sum: then it is a
    sum, scaled.

    Attributes:
        terms: What each sum adds, by its number: its value, or a number that no value has (the sum of a mean,
            or one that was taken out of others). Terms are values and numbers.
        means: The value of each mean, by the number of its sum.
        scaled: The numbers of means that are built as a sum, scaled.
    """

    def __init__(self, program: Program) -> None:
        self._program, self._next = program, len(program.ops) + 1
        self.terms: dict[int, Terms] = {}
        self.means: dict[int, int] = {}
        self.scaled: set[int] = set()
        self._readers: defaultdict[int, Counter[str]] = defaultdict(Counter)  # of a term, by how they read it
        for value, op in enumerate(program.ops, start=1):
            if value in program.kept or not adds(op):
                for read in op.reads:
                    self._readers[read][_way(op)] += 1
                continue
            number = self.number() if is_mean(op) else value
            self.terms[number] = op.reads
            if is_mean(op):
                self.means[number] = value
            self._count(number, 1)

    def number(self) -> int:
        """Return a number that no value and no sum has."""
        self._next += 1
        return self._next - 1

    def groups(self) -> list[list[int]]:
        """Return the sums in groups that have no terms in common."""
        found: list[tuple[set[int], list[int]]] = []
        for number, terms in self.terms.items():
            near = [group for group in found if not group[0].isdisjoint(terms)]
            found = [group for group in found if group[0].isdisjoint(terms)]
            numbers = [n for _, members in near for n in members]
            found.append((set(terms).union(*(shared for shared, _ in near)), [*numbers, number]))
        return [numbers for _, numbers in found]

    def copy(self) -> Sums:
        """Return the same, to try something."""
        other = copy(self)
        other.terms, other.scaled = dict(self.terms), set(self.scaled)
        other._readers = defaultdict(Counter, {term: ways.copy() for term, ways in self._readers.items()})
        return other

    def replace(self, changes: Mapping[int, Terms]) -> None:
        """Build some sums of other terms, means among them as sums, scaled."""
        self._replace(changes, self.scaled | (changes.keys() & self.means.keys()))

    def _replace(self, changes: Mapping[int, Terms], scaled: set[int]) -> None:
        for number in changes.keys() & self.terms.keys():
            self._count(number, -1)
        self.terms |= changes
        self.scaled = scaled
        for number in changes:
            self._count(number, 1)

    def replace_if_less(self, changes: Mapping[int, Terms]) -> None:
        """Build some sums of other terms if less is moved."""
        old, scaled = {number: self.terms[number] for number in changes}, set(self.scaled)
        touched = {*changes, *(t for terms in (*old.values(), *changes.values()) for t in terms)}
        before = self.moved(touched)
        self.replace(changes)
        if not self.moved(touched).is_less(before):
            self._replace(old, scaled)

    def saved_by_pair(self, pair: tuple[int, int], n_holders: int) -> int:
        """Return the maps that training saves by a sum of two terms that so many of four or more hold."""
        moved = 3 - n_holders + _gathered(Counter(sum=n_holders))
        for term in filter(None, pair):
            ways = self._readers[term]
            moved += _gathered(ways + Counter(plain=1) - Counter(sum=n_holders))
            moved -= _gathered(ways)
        return -moved

    def _count(self, number: int, by: int) -> None:
        """Count (by 1) or forget (by -1) a sum among the readers of its terms."""
        terms = self.terms[number]
        way = "sum" if len(terms) > 2 else "plain"
        if number in self.means:
            way = way if number in self.scaled else "mean"
            self._readers[number]["plain"] += by * (number in self.scaled)
        for term in terms:
            self._readers[term][way] += by

    def moved(self, terms: Iterable[int] | None = None) -> Maps:
        """Return what it takes to build terms, or all of them, and to gather their gradients."""
        training = evaluation = 0
        for term in {*self._readers, *self.terms} if terms is None else terms:
            training += _gathered(self._readers[term]) if term else 0
            if term in self.terms:
                built = self._built(term)
                training += built.training
                evaluation += built.evaluation
        return Maps(training, evaluation)

    def _built(self, number: int) -> Maps:
        """Return what it takes to build a sum, to scale it, and for a norm to read it if not glued to it."""
        n, value = len(self.terms[number]), self.means.get(number, number)
        is_sum = value == number or number in self.scaled
        scaled = is_sum and value != number
        alone = self._readers[value].total() == 1
        apart = self._is_normed(value) and not (alone and not scaled and (n > 2 or not is_sum))
        forward = n + 1 if n > 1 else 0
        return Maps(forward + 4 * scaled + apart, forward + 2 * scaled + 2 * apart)

    def _is_normed(self, value: int) -> bool:
        """Return whether a batch norm reads a value."""
        if value > len(self._program.ops):
            return False
        return any(is_batch_norm(self._program.op(r).steps[0].what) for r in self._program.readers[value])


def _way(op: Op) -> str:
    """Return how an operation's gradients for what it reads are gathered; "plain" if each is added up."""
    what = op.aggregate
    if what is None or not (is_weighted(op) or what.ref.name == "concat"):
        return "plain"
    return what.ref.name if what.ref.name in ("sum", "mean") else "other"


def _gathered(ways: Counter[str]) -> int:
    """Return the maps that are moved to gather a value's gradient of what its readers leave."""
    sums, means, plain, other = (ways[way] for way in ("sum", "mean", "plain", "other"))
    moved = 3 * max(0, plain - 1)
    there = plain + other > 0
    for n, least in ((sums, 1), (means, 0)):
        if n:
            moved += 3 * there + (n + 1 if n > least else 0)
            there = True
    return moved


def adds(op: Op) -> bool:
    """Return whether an operation is a sum or a mean of different values, and nothing else."""
    what = op.aggregate
    plain = what is not None and what.ref in (Ref("sum"), Ref("mean")) and not what.drops
    return plain and len(op.steps) == 1 and len(set(op.reads)) == len(op.reads)


def is_mean(op: Op) -> bool:
    """Return whether an operation is a mean."""
    return op.aggregate is not None and op.aggregate.ref == Ref("mean")
