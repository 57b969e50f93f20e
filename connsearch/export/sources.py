"""How what a layer reads is written: variables, elements and slices of lists, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from connsearch.registry import Ref

FEW = 4  # sources whose sum is written out
LEAST_SLICE = 3  # elements in a row


class Element(NamedTuple):
    """A place in a list."""

    list: str
    place: int


class Names:
    """What layers are called where they are read.

    Attributes:
        lengths: Of the lists, when they are complete.
    """

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._elements: dict[int, Element] = {}

    def call(self, index: int, name: str) -> None:
        """Call a layer by the name of a variable."""
        self._names[index] = name

    def place(self, index: int, element: Element) -> None:
        """Call a layer by its place in a list."""
        self._elements[index] = element

    def one(self, index: int) -> str:
        """Return the expression of one layer."""
        if index in self._names:
            return self._names[index]
        name, place = self._elements[index]
        return f"{name}[{-1 if place == self.lengths[name] - 1 else place}]"

    def many(self, indices: Sequence[int]) -> list[str]:
        """Return expressions of several layers as a list display holds them, slices with a star."""
        words: list[str] = []
        at = 0
        while at < len(indices):
            length = self._row(indices, at)
            if length < LEAST_SLICE:
                words.append(self.one(indices[at]))
                at += 1
                continue
            words.append(f"*{self._slice(indices[at], length)}")
            at += length
        return words

    def _row(self, indices: Sequence[int], at: int) -> int:
        """Return how many layers from one on stand in a row in one list."""
        row = [self._elements.get(index) for index in indices[at:]]
        if row[0] is None:
            return 0
        length = 1
        for before, after in pairwise(row):
            if before is None or after is None or after != (before.list, before.place + 1):
                break
            length += 1
        return length

    def _slice(self, index: int, length: int) -> str:
        name, start = self._elements[index]
        stop = start + length
        if length == self.lengths[name]:
            return name
        return f"{name}[{start or ''}:{'' if stop == self.lengths[name] else stop}]"


def display(words: Sequence[str]) -> str:
    """Return a list of expressions; the list itself if that is all there is.

    >>> display(["a", "*b[1:]"]), display(["*b"])
    ('[a, *b[1:]]', 'b')
    """
    if len(words) == 1 and words[0].startswith("*"):
        return words[0][1:]
    return f"[{', '.join(words)}]"


def joined(aggregation: Ref, words: Sequence[str], n: str) -> str:
    """Return the expression of `n` sources joined by a sum, a mean or a concatenation."""
    if aggregation.name == "concat":
        return f"torch.cat({display(words)}, dim=1)"
    starred = any(word.startswith("*") for word in words)
    if not starred and 1 < len(words) <= FEW:
        total = " + ".join(words)
        return f"({total}) / {len(words)}" if aggregation.name == "mean" else total
    total = f"sum({display(words)})"
    return f"{total} / {n}" if aggregation.name == "mean" else total
