"""Which layers read by a rule; a loop can stand for them."""

from __future__ import annotations

from collections.abc import Sequence

from connsearch.export.description import Layer
from connsearch.export.series import Repeat


class Patterns:
    """What layers read.

    Args:
        layers: Of a network.
        readers: Of each layer.
    """

    def __init__(self, layers: Sequence[Layer], readers: Sequence[Sequence[int]]) -> None:
        self.layers, self.readers = layers, readers

    def reads_all(self, at: int, length: int) -> bool:
        """Return whether each of some layers reads what the first one reads, and all before it."""
        base = self.layers[at].sources
        return bool(base) and all(
            self.layers[at + k].sources == (*base, *range(at, at + k)) for k in range(1, length)
        )

    def steps(self, at: int, length: int) -> tuple[int, ...]:
        """Return how many steps back layers look, the furthest first; empty if they follow no such rule."""
        base = self.layers[at].sources
        row = (*base, *range(at, at + length))
        place = {index: p for p, index in enumerate(row)}
        if len(base) != 1 or any(s not in place for k in range(length) for s in self.layers[at + k].sources):
            return ()
        looks = [{k + 1 - place[s] for s in self.layers[at + k].sources} for k in range(length)]
        steps = set().union(*looks)
        follow = all(look == {s for s in steps if s <= k} for k, look in enumerate(looks, start=1))
        if not follow or steps == {1} or 2 * len(steps) > length:
            return ()
        return tuple(sorted(steps, reverse=True))

    def state(self, at: int, repeat: Repeat) -> dict[int, int] | None:
        """Return what is carried from one repetition to the next: by item, the layer that it starts as.

        None if a layer reads what a loop does not keep: what is older than the repetition before.
        """
        period, end = repeat.period, at + repeat.length
        state: dict[int, int] = {}
        for m in range(period):
            for place in range(len(self.layers[at + m].sources)):
                column = [self.layers[at + r * period + m].sources[place] for r in range(repeat.times)]
                if not self._column_fits(column, at, period, m, state):
                    return None
        for index in range(at, end - period):
            if any(reader >= end for reader in self.readers[index]):
                return None
        return state

    def _column_fits(
        self, column: Sequence[int], at: int, period: int, m: int, state: dict[int, int]
    ) -> bool:
        """Return whether a source is always the same, of its own repetition, or of the one before."""
        if len(set(column)) == 1 and column[0] < at:
            return True
        if column[0] >= at:  # of its own repetition
            return all(source - column[0] == r * period for r, source in enumerate(column))
        first = column[1] - at
        if not m <= first < period or any(
            source != at + (r - 1) * period + first for r, source in enumerate(column) if r
        ):
            return False
        return state.setdefault(first, column[0]) == column[0]
