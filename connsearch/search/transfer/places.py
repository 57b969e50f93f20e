"""Places: where in a choice does a value lie, and which value of another choice lies there?"""

from __future__ import annotations

import math
from typing import Any

from connsearch.search.choices import AnyOf, Choice, Fixed, IntRange


def place(choice: Choice, value: Any) -> float | None:
    """Return where a number lies between the least of a choice (0) and the greatest (1); None if it is fixed.

    Ranges that are searched in the logarithm are measured there; of a ladder the steps count alike.

    >>> place(IntRange(100, 10_000, log=True), 1000), place(AnyOf((3, 5, 20)), 5), place(Fixed(3), 3)
    (0.5, 0.5, None)
    """
    if isinstance(choice, Fixed):
        return None
    if isinstance(choice, AnyOf):
        return sorted(choice.values).index(value) / (len(choice.values) - 1)
    if choice.low == choice.high:
        return None
    if choice.log:
        return math.log(value / choice.low) / math.log(choice.high / choice.low)
    return float((value - choice.low) / (choice.high - choice.low))


def at(choice: Choice, where: float) -> Any:
    """Return the value of a choice of numbers that lies at a place, 0 to 1.

    >>> at(IntRange(1000, 100_000, log=True), 0.5), at(AnyOf((3, 5, 20)), 0.5), at(Fixed(3), 0.5)
    (10000, 5, 3)
    """
    if isinstance(choice, Fixed):
        return choice.value
    if isinstance(choice, AnyOf):
        return sorted(choice.values)[round(where * (len(choice.values) - 1))]
    if choice.log:
        found = math.exp(math.log(choice.low) + where * math.log(choice.high / choice.low))
    else:
        found = choice.low + where * (choice.high - choice.low)
    return nearest(choice, found)


def nearest(choice: Choice, value: float) -> Any:
    """Return the value of a choice of numbers that is nearest to a number; of two the lesser.

    >>> nearest(IntRange(2, 9, step=3), 7.6), nearest(IntRange(2, 9, step=3), 40)
    (8, 8)
    """
    if isinstance(choice, Fixed):
        return choice.value
    if isinstance(choice, AnyOf):
        return min(sorted(choice.values), key=lambda known: abs(known - value))
    inside = min(max(value, choice.low), choice.high)
    if not isinstance(choice, IntRange):
        return inside
    most = (choice.high - choice.low) // choice.step
    return choice.low + min(most, math.ceil((inside - choice.low) / choice.step - 0.5)) * choice.step


def holds(choice: Choice, value: Any) -> bool:
    """Return whether a choice of numbers has a value.

    >>> holds(IntRange(2, 9, step=3), 5), holds(IntRange(2, 9, step=3), 6)
    (True, False)
    """
    return bool(nearest(choice, value) == value)


def spread(count: int) -> list[float]:
    """Return so many places, evenly from end to end; a single one lies in the middle.

    >>> spread(1), spread(3)
    ([0.5], [0.0, 0.5, 1.0])
    """
    return [0.5] if count == 1 else [index / (count - 1) for index in range(count)]
