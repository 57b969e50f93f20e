"""Two topologies, or two aggregations, over all that they can be combined with: which trains better?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from connsearch.search.tournament.contestants import Contestant
from connsearch.search.tournament.statistics import (
    SIGNIFICANT,
    Floats,
    Interval,
    bootstrap_interval,
    holm,
    known,
    sign_flip_p,
)


@dataclass(frozen=True)
class Comparison:
    """Two aggregations over all topologies, or two topologies over all aggregations, trained alike.

    Attributes:
        factor: "aggregation" or "topology".
        better: The one of lower mean error.
        worse: The other one.
        gain: Mean difference of errors, over seeds and the other factor.
        interval: Of that difference, by bootstrap over the independent differences.
        p: How likely luck alone makes as large a difference, corrected for all comparisons.
        over: Values of the other factor at which both are networks of their own.
        n: Independent differences: pairs of trainings with the same seeds, those that share a network
            averaged to one.
    """

    factor: str
    better: str
    worse: str
    gain: float
    interval: Interval
    p: float
    over: tuple[str, ...]
    n: int

    @property
    def significant(self) -> bool:
        """Whether luck alone would make as large a difference in less than one of twenty tournaments."""
        return self.p < SIGNIFICANT

    def sentence(self, macs: str) -> str:
        """Return the finding in words."""
        low, high = (f"{100 * end:.1f}" for end in self.interval)
        return (
            f"{self.better} beats {self.worse} by {100 * self.gain:.1f} points [{low}, {high}] at {macs}MACs "
            f"(p = {self.p:.2g}, {self.n} differences over {', '.join(self.over)})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: errors are fractions."""
        return {
            "factor": self.factor,
            "better": self.better,
            "worse": self.worse,
            "gain": self.gain,
            "gain_low": known(self.interval.low),
            "gain_high": known(self.interval.high),
            "p_corrected": self.p,
            "significant": self.significant,
            "over": list(self.over),
            "independent_differences": self.n,
        }


def comparisons_of(contestants: Sequence[Contestant], errors_SP: Floats) -> Iterator[Comparison]:
    """Yield all comparisons of two aggregations, then of two topologies, corrected for their number."""
    place = {name: i for i, contestant in enumerate(contestants) for name in contestant.pairs}
    raw = [*_marginal("aggregation", place, errors_SP), *_marginal("topology", place, errors_SP)]
    for each, p in zip(raw, holm([each.p for each in raw]), strict=True):
        yield replace(each, p=p)


def _independent(pairs: Collection[tuple[int, int]], errors_SP: Floats) -> Floats:
    """Return the differences of pairs of contestants, those with a contestant in common averaged to one.

    A chain is one network whatever the aggregation: its trainings, met again and again by those of another
    topology, would otherwise count as so many independent ones.
    """
    groups: list[list[tuple[int, int]]] = []
    for pair in pairs:
        sharing = [group for group in groups if any(set(pair) & set(other) for other in group)]
        groups = [group for group in groups if group not in sharing]
        groups.append([pair, *(other for group in sharing for other in group)])
    return np.concatenate(
        [np.mean([errors_SP[:, a] - errors_SP[:, b] for a, b in group], axis=0) for group in groups]
    )


def _marginal(factor: str, place: dict[str, int], errors_SP: Floats) -> Iterator[Comparison]:
    """Yield comparisons of the values of a factor, at those of the other where both are networks."""
    names = [name.split(" x ") for name in place]
    own, other = (1, 0) if factor == "aggregation" else (0, 1)
    values = list(dict.fromkeys(name[own] for name in names))
    others = list(dict.fromkeys(name[other] for name in names))

    def index(value: str, at: str) -> int | None:
        return place.get(f"{at} x {value}" if own else f"{value} x {at}")

    for first, second in combinations(values, 2):
        both = {at: (index(first, at), index(second, at)) for at in others}
        differ = {at: (a, b) for at, (a, b) in both.items() if a is not None and b is not None and a != b}
        if not differ:
            continue
        found = _independent(differ.values(), errors_SP)
        better, worse, gain = (first, second, -found) if found.mean() <= 0 else (second, first, found)
        yield Comparison(
            factor,
            better,
            worse,
            float(gain.mean()),
            bootstrap_interval(gain),
            sign_flip_p(gain),
            tuple(differ),
            len(gain),
        )
