"""Polynomials with exact coefficients, standing in for channels: the cost of a shape at any width.

Counting adds and multiplies channels only, so counting once with symbols for the widths gives cost as
a polynomial of degree 2. Rounding down (a transition's compression) makes a further symbol, whose value
follows from the others.

A symbol is an integer: i >= 0 is the width of block i, i < 0 is the rounding `_FLOORS[-i - 1]`. Equal
roundings share a symbol, in all computations of the process, so that whatever was counted for one
network is found again for the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import repeat
from typing import Any

Monomial = tuple[int, ...]  # ascending symbols; () is the constant
Number = int | Fraction

_FLOORS: list[tuple[Poly, Fraction]] = []
_FLOOR_SYMBOLS: dict[tuple[Poly, Fraction], int] = {}


class Poly:
    """A polynomial in symbols. Immutable, hashable; `+`, `*` and exact division by an integer."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: dict[Monomial, Number]) -> None:
        self.terms = terms
        self._hash: int | None = None

    def __add__(self, other: Poly | int) -> Poly:
        if isinstance(other, int) and other == 0:
            return self
        terms = dict(self.terms)
        for monomial, number in _terms(other):
            terms[monomial] = terms.get(monomial, 0) + number
        return Poly(terms)

    __radd__ = __add__

    def __sub__(self, other: Poly | int) -> Poly:
        return Poly({m: n for m, n in (self + -1 * other).terms.items() if n})  # equal to what is left

    def __rsub__(self, other: int) -> Poly:
        return -1 * self + other

    def __mul__(self, other: Poly | int) -> Poly:
        if isinstance(other, int):
            return Poly({m: n * other for m, n in self.terms.items()})
        terms: dict[Monomial, Number] = {}
        for m1, n1 in self.terms.items():
            for m2, n2 in other.terms.items():
                monomial = tuple(sorted(m1 + m2))
                terms[monomial] = terms.get(monomial, 0) + n1 * n2
        return Poly(terms)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Poly:
        """Divide exactly: whoever divides channels into groups has checked that they divide."""
        if divisor == 1:
            return self
        return Poly({m: Fraction(n) / divisor for m, n in self.terms.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def floor_times(self, ratio: Fraction) -> Poly:
        """Return the symbol of max(1, floor(ratio * self))."""
        key = (self, ratio)
        if key not in _FLOOR_SYMBOLS:
            _FLOORS.append(key)
            _FLOOR_SYMBOLS[key] = -len(_FLOORS)
        return Poly({(_FLOOR_SYMBOLS[key],): 1})

    def __repr__(self) -> str:
        """Return the formula, squares first; w1 is the width of block 1."""
        terms = sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0]))
        return " + ".join(_product(n, monomial) for monomial, n in terms if n) or "0"


def _product(number: Number, monomial: Monomial) -> str:
    squares = len(monomial) == 2 and monomial[0] == monomial[1]
    factors = [f"{_symbol(monomial[0])}^2"] if squares else [*map(_symbol, monomial)]
    return " ".join([*([] if number == 1 and factors else [str(number)]), *factors])


def _symbol(symbol: int) -> str:
    if symbol >= 0:
        return f"w{symbol + 1}"
    poly, ratio = _FLOORS[-symbol - 1]
    return f"max(1, floor({ratio} ({poly})))"


def total(numbers: Sequence[Poly | int], counts: Sequence[int] = ()) -> Any:
    """Return the sum, of so many of each if counts are given, in one polynomial: `sum` would make many."""
    terms: dict[Monomial, Number] = {}
    for number, count in zip(numbers, counts or repeat(1, len(numbers)), strict=True):
        for monomial, n in _terms(number):
            terms[monomial] = terms.get(monomial, 0) + n * count
    return Poly(terms)


def width_symbols(n_blocks: int) -> tuple[Poly, ...]:
    """Return the symbols of the widths of blocks 0 .. n_blocks - 1."""
    return tuple(Poly({(i,): 1}) for i in range(n_blocks))


class Values(dict[int, Any]):
    """Values of symbols for given widths; a rounding is worked out when it is first asked for."""

    def __init__(self, widths: Sequence[float]) -> None:
        super().__init__(enumerate(widths))

    def __missing__(self, symbol: int) -> Any:
        if symbol >= 0:
            raise KeyError(f"no width of block {symbol}")
        poly, ratio = _FLOORS[-symbol - 1]
        value = sum((n * math.prod(self[i] for i in m) for m, n in poly.terms.items()), start=Fraction(0))
        self[symbol] = max(1, math.floor(ratio * value))
        return self[symbol]


def _terms(value: Poly | int) -> Iterable[tuple[Monomial, Number]]:
    if isinstance(value, Poly):
        return value.terms.items()
    return (((), value),) if value else ()
