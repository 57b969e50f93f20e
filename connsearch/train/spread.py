"""How far apart are the results of several seeds?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
FEWEST = 3
"""Values that an interval needs: that of two is thirteen deviations wide and says nothing."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of the same measure over seeds; of errors and shares, as fractions.

    Attributes:
        values: One for each seed, at least one.
        mean: Of them.
        deviation: Standard deviation of one value, with n - 1 in the denominator; None for a single value.
        interval: Where the mean of very many seeds lies, at 95 %: Student's, from these values alone; None
            for fewer than three.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of values, at least one.

        >>> found = Spread.of([0.10, 0.11, 0.12])
        >>> round(found.mean, 3), round(found.deviation, 3), [round(end, 3) for end in found.interval]
        (0.11, 0.01, [0.085, 0.135])
        """
        mean = statistics.fmean(values)
        deviation = statistics.stdev(values) if len(values) > 1 else None
        n, interval = len(values), None
        if deviation is not None and n >= FEWEST:
            interval = student_interval(mean, deviation / math.sqrt(n), n - 1)
        return cls(tuple(values), mean, deviation, interval)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; what is not known is None."""
        low, high = self.interval or (None, None)
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "min": min(self.values),
            "max": max(self.values),
            "low": low,
            "high": high,
            "seeds": len(self.values),
        }

    def __str__(self) -> str:
        """Return mean and deviation in percent.

        >>> str(Spread.of([0.10, 0.11, 0.12])), str(Spread.of([0.1]))
        ('11.00 ± 1.00 %', '10.00 %')
        """
        deviation = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{deviation} %"

    def sentence(self) -> str:
        """Return all of it in words.

        >>> Spread.of([0.10, 0.11, 0.12]).sentence()
        '11.00 ± 1.00 % (mean and deviation of 3 seeds), 10.00 to 12.00 %; mean at 95 %: 8.52 to 13.48 %'
        """
        if self.deviation is None:
            return f"{self} (1 seed: nothing is known of its spread)"
        ends = f"{100 * min(self.values):.2f} to {100 * max(self.values):.2f} %"
        text = f"{self} (mean and deviation of {len(self.values)} seeds), {ends}"
        if self.interval is None:
            return text
        low, high = (100 * min(max(end, 0.0), 1.0) for end in self.interval)
        return f"{text}; mean at 95 %: {low:.2f} to {high:.2f} %"


def student_interval(middle: float, error: float, freedom: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Student's interval: middle -+ t error, with t the quantile at (1 + level) / 2.

    Args:
        middle: What is estimated.
        error: Its standard error.
        freedom: Degrees of freedom of that, at least 1.
        level: How often such intervals hold the truth.

    >>> [round(end, 3) for end in student_interval(0.11, 0.01 / 3**0.5, 2)]
    [0.085, 0.135]
    """
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return middle - half, middle + half
