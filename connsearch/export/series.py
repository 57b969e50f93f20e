"""Series: names and numbers that count up, so that a loop can stand for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from connsearch.export.classes import Construction

LONGEST = 8  # items that repeat together
INDEX = "i"
_DIGITS = re.compile(r"(\d+)")


class Counted(NamedTuple):
    """Names that count: `head`, a number from `start` on, `tail`.

    Attributes:
        head: What is before the number.
        start: The number in the first name.
        tail: What is after it.
    """

    head: str
    start: int
    tail: str

    def named(self, number: int) -> str:
        """Return the name with a number."""
        return f"{self.head}{number}{self.tail}"

    @property
    def stem(self) -> str:
        """The name without its number."""
        return f"{self.head}{self.tail}"


def counted(first: str, second: str) -> Counted | None:
    """Return how two names count by one, None if they do not.

    >>> counted("block1.layer9_sum", "block1.layer10_sum")
    Counted(head='block1.layer', start=9, tail='_sum')
    """
    one, two = _DIGITS.split(first), _DIGITS.split(second)
    differing = [place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b]
    if len(one) != len(two) or len(differing) != 1 or differing[0] % 2 == 0:
        return None
    place = differing[0]
    a, b = one[place], two[place]
    if int(b) != int(a) + 1 or str(int(a)) != a or str(int(b)) != b:
        return None
    return Counted("".join(one[:place]), int(a), "".join(one[place + 1 :]))


class Repeat(NamedTuple):
    """Items that a loop stands for.

    Attributes:
        period: How many items repeat together.
        times: How often.
        names: How the name of each of these items counts; all start at the same number.
    """

    period: int
    times: int
    names: tuple[Counted, ...]

    @property
    def length(self) -> int:
        """How many items it stands for."""
        return self.period * self.times

    @property
    def saved(self) -> int:
        """How many items it saves."""
        return self.length - self.period

    @property
    def start(self) -> int:
        """The first number."""
        return self.names[0].start

    def loop(self) -> str:
        """Return the head of the loop."""
        return f"for {INDEX} in range({self.start}, {self.start + self.times}):"


def longest_repeat(
    names: Sequence[str], at: int, alike: Callable[[int, int, int], bool], *, least: int
) -> Repeat | None:
    """Return what repeats from an item on and is longest, None if nothing does.

    Args:
        names: Of all items.
        at: The item.
        alike: Whether `times` repetitions of `period` items repeat in what is no name: (at, period, times).
        least: How often it must repeat.
    """
    best: Repeat | None = None
    for period in range(1, LONGEST + 1):
        found = _repeat(names, at, period, alike)
        if found is None or found.times < least:
            continue
        if best is None or found.saved > best.saved:
            best = found
    return best


def _repeat(
    names: Sequence[str], at: int, period: int, alike: Callable[[int, int, int], bool]
) -> Repeat | None:
    if at + 2 * period > len(names):
        return None
    series = [counted(names[at + m], names[at + period + m]) for m in range(period)]
    whole = tuple(found for found in series if found is not None)
    if len(whole) < period or len({found.start for found in whole}) > 1:
        return None
    times = 1
    while at + (times + 1) * period <= len(names):
        later = names[at + times * period : at + (times + 1) * period]
        if any(name != found.named(found.start + times) for name, found in zip(later, whole, strict=True)):
            break
        if not alike(at, period, times + 1):
            break
        times += 1
    return Repeat(period, times, whole) if times > 1 else None


def affine(numbers: Sequence[int], start: int) -> str | None:
    """Return numbers as an expression of a loop's index that counts from `start`, None if they are none.

    >>> affine([16, 28, 40], 1), affine([5, 5, 5], 1), affine([2, 3, 4], 3), affine([1, 2, 4], 1)
    ('4 + 12 * i', '5', 'i - 1', None)
    """
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    if any(b - a != step for a, b in pairwise(numbers)):
        return None
    base = numbers[0] - step * start
    if not step:
        return str(base)
    if step < 0 or base < 0:
        scaled = INDEX if step == 1 else f"{step} * {INDEX}"
        if step < 0:
            return f"{base} - {INDEX}" if step == -1 else f"{base} - {-step} * {INDEX}"
        return f"{scaled} - {-base}"
    scaled = INDEX if step == 1 else f"{step} * {INDEX}"
    return f"{base} + {scaled}" if base else scaled


def in_series(made: Sequence[Construction], start: int) -> str | None:
    """Return constructions as one that depends on a loop's index, None if they cannot be."""
    if len({construction.text for construction in made}) > 1:
        return None
    columns = zip(*(construction.numbers for construction in made), strict=True)
    words = [affine(column, start) for column in columns]
    if any(word is None for word in words):
        return None
    return made[0].text.format(*words)
