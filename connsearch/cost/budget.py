"""Budgets, and the integer widths that meet one: the widest network of a shape within a budget.

The solver takes a shape (topologies, aggregations, depths, ratios of widths) and finds integer widths
whose cost lies in [(1 - tolerance) budget, budget] and never above. Cost grows with every width, so the
common scale is found by bisection; what rounding left over is filled block by block, then by a search
of the neighbourhood, then at finer steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm

from connsearch.cost.count import network_tally
from connsearch.cost.model import CostModel
from connsearch.errors import BudgetError
from connsearch.spec.chains import UNITS
from connsearch.spec.network import NetworkSpec
from connsearch.spec.resolve import resolve

WIDEST = 1 << 20
MOST_TRIMS = 6  # depths tried for one network


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost, for one image and one forward pass.

    Attributes:
        macs: Multiply-accumulates, or None for no bound.
        params: Trainable scalars, or None for no bound.
        tolerance: How far below the budget a network may stay, as a share of it.

    Raises:
        BudgetError: if nothing is bounded, a bound is below 1, or the tolerance is not within 0..1.
    """

    macs: int | None = None
    params: int | None = None
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.macs, self.params) if bound is not None]
        if not bounds or min(bounds) < 1:
            raise BudgetError(f"a budget needs macs or params of at least 1, got {self}")
        if not 0 < self.tolerance < 1:
            raise BudgetError(f"a budget's tolerance must lie between 0 and 1, got {self.tolerance}")

    def __str__(self) -> str:
        return " and ".join(f"{value:,} {name}" for name, value in self.bounds().items())

    def bounds(self) -> dict[str, int]:
        """Return the bounds that are set, by name."""
        return {name: v for name, v in (("macs", self.macs), ("params", self.params)) if v is not None}

    def use(self, *, macs: int, params: int) -> float:
        """Return the greatest share of a bound that is used; above 1 is over budget."""
        return max(
            macs / self.macs if self.macs else 0.0,
            params / self.params if self.params else 0.0,
        )


def fit_width(
    spec: NetworkSpec,
    budget: Budget,
    *,
    quantum: int = 4,
    min_width: int = 4,
    min_depths: Sequence[int] | None = None,
) -> NetworkSpec:
    """Return the widest network of a shape within a budget; its widths keep their ratios roughly.

    Args:
        spec: The shape; its widths count as ratios only.
        budget: What the network may cost. Never exceeded.
        quantum: Widths are multiples of it where that meets the tolerance, of a half, a quarter, ...
            of it, down to 1, where not. A unit's groups always divide its width.
        min_width: No block is narrower.
        min_depths: If given, layers may be taken from the deepest block, down to these depths: while
            even the narrowest network is over budget, and a few more where narrow integer widths are
            too coarse for the tolerance.

    Raises:
        BudgetError: if the narrowest network is over budget; it names the bound and the least cost.
        SpecError: if the specification describes no network.
    """
    groups = [int(UNITS.bind(block.unit).get("groups", 1)) for block in spec.blocks]
    narrowest = [_round_up(min_width, g) for g in groups]
    shapes = _trimmed(spec, budget, narrowest, min_depths or [block.n_layers for block in spec.blocks])
    best, best_use = spec, 0.0
    for shape in itertools.islice(shapes, MOST_TRIMS):
        solver = _Solver(CostModel(shape), budget, shape.widths, narrowest)
        widths = solver.widths(quantum, groups)
        if solver.use(widths) > best_use:
            best, best_use = shape.with_widths(widths), solver.use(widths)
        if best_use >= 1 - budget.tolerance:
            break
    return best


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


# ---- depth ---------------------------------------------------------------------------------------------


def _trimmed(
    spec: NetworkSpec, budget: Budget, narrowest: Sequence[int], min_depths: Sequence[int]
) -> Iterator[NetworkSpec]:
    """Yield the network at the depths whose narrowest form fits, deepest first."""
    depths = list(_depths(spec, min_depths))
    low, high = 0, len(depths)  # depths[high:] fit, depths[:low] do not
    while low < high:
        middle = (low + high) // 2 if low else 0  # most networks fit untrimmed: ask that first
        if _use(spec, budget, narrowest, depths[middle]) <= 1:
            high = middle
        else:
            low = middle + 1
    if low == len(depths):
        raise BudgetError(_impossible(_with_depths(spec, depths[-1]), budget, narrowest))
    return (_with_depths(spec, d) for d in depths[low:])


def _with_depths(spec: NetworkSpec, depths: Sequence[int]) -> NetworkSpec:
    return spec if spec.own_graph is not None else spec.with_depths(depths)


def _depths(spec: NetworkSpec, min_depths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield depths, each one layer less than the one before, taken from the deepest block that may lose it."""
    depths = [block.n_layers for block in spec.blocks]
    yield tuple(depths)
    while any(depth > least for depth, least in zip(depths, min_depths, strict=True)):
        spare = [b for b, least in enumerate(min_depths) if depths[b] > least]
        depths[max(spare, key=lambda b: depths[b])] -= 1
        yield tuple(depths)


def _use(spec: NetworkSpec, budget: Budget, widths: Sequence[int], depths: Sequence[int]) -> float:
    tally = network_tally(resolve(_with_depths(spec, depths), widths))
    return budget.use(macs=tally.conv_macs + tally.linear_macs + tally.aggregation_macs, params=tally.params)


def _impossible(spec: NetworkSpec, budget: Budget, widths: Sequence[int]) -> str:
    model = CostModel(spec)
    least = {"macs": model.macs(widths), "params": model.params(widths)}
    over = [name for name, bound in budget.bounds().items() if least[name] > bound]
    name = max(over, key=lambda n: least[n] / budget.bounds()[n])
    depth = sum(block.n_layers for block in spec.blocks)
    layers = f" of {depth} layers" if depth else ""
    return (
        f"{name}: the least possible is {least[name]:,} (widths {', '.join(map(str, widths))}{layers}), "
        f"over the budget of {budget.bounds()[name]:,}: raise {name} or use fewer layers"
    )


# ---- width ---------------------------------------------------------------------------------------------


class _Solver:
    def __init__(
        self, model: CostModel, budget: Budget, ratios: Sequence[int], narrowest: Sequence[int]
    ) -> None:
        self.model = model
        self.budget = budget
        self.ratios = [ratio / max(ratios) for ratio in ratios]
        self.narrowest = narrowest

    def use(self, widths: Sequence[int]) -> float:
        macs = self.model.macs(widths) if self.budget.macs else 0
        params = self.model.params(widths) if self.budget.params else 0
        return self.budget.use(macs=macs, params=params)

    def widths(self, quantum: int, groups: Sequence[int]) -> tuple[int, ...]:
        """Return the best widths, at steps of the quantum or, where that is too coarse, finer ones."""
        widths = tuple(self.narrowest)
        while quantum >= 1 and self.use(widths) < 1 - self.budget.tolerance:
            widths = self._solve(widths, [lcm(quantum, g) for g in groups])
            quantum //= 2
        return widths

    def _solve(self, start: tuple[int, ...], steps: Sequence[int]) -> tuple[int, ...]:
        scaled = self._bisect(steps)
        best = self._fill(max(start, scaled, key=self.use), steps)
        for near in self._neighbours(best, steps):
            if self.use(best) >= 1 - self.budget.tolerance:
                break
            best = max(best, near, key=self.use)
        return best

    def _at(self, scale: float, steps: Sequence[int]) -> tuple[int, ...]:
        parts = zip(self.ratios, self.narrowest, steps, strict=True)
        return tuple(max(least, int(scale * ratio) // step * step) for ratio, least, step in parts)

    def _bisect(self, steps: Sequence[int]) -> tuple[int, ...]:
        """Return the widths at the greatest common scale that fits, to a quarter of a channel."""
        low, high = 0.0, float(max(self.narrowest))
        while high < WIDEST and self.use(self._at(high, steps)) <= 1:
            low, high = high, 2 * high
        while high - low > 0.25:
            middle = (low + high) / 2
            low, high = (middle, high) if self.use(self._at(middle, steps)) <= 1 else (low, middle)
        return self._at(low, steps)

    def _fill(self, widths: tuple[int, ...], steps: Sequence[int]) -> tuple[int, ...]:
        """Widen one block at a time, whichever uses the most of what is left, while one fits."""
        while True:
            wider = [
                (*widths[:b], (w // step + 1) * step, *widths[b + 1 :])
                for b, (w, step) in enumerate(zip(widths, steps, strict=True))
            ]
            uses = [use if use <= 1 and max(w) <= WIDEST else -1.0 for w in wider for use in [self.use(w)]]
            if max(uses) < 0:
                return widths
            widths = wider[uses.index(max(uses))]

    def _neighbours(self, widths: tuple[int, ...], steps: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield widths that fit, nearest first: some blocks moved by steps, the cheapest to widen refilled."""
        cheapest = min(range(len(widths)), key=lambda b: self.use(_moved(widths, steps, {b: 1})))
        others = [b for b in range(len(widths)) if b != cheapest]
        for move in _moves(len(others)):
            moved = _moved(widths, steps, dict(zip(others, move, strict=True)))
            refilled = self._refill(moved, cheapest, steps[cheapest])
            if refilled is not None:
                yield refilled

    def _refill(self, widths: tuple[int, ...], block: int, step: int) -> tuple[int, ...] | None:
        """Return the widths with one block as wide as fits, or None if no width does."""

        def at(n: int) -> tuple[int, ...]:
            return (*widths[:block], self.narrowest[block] + n * step, *widths[block + 1 :])

        if min(w - least for w, least in zip(widths, self.narrowest, strict=True)) < 0 or self.use(at(0)) > 1:
            return None
        high = 1
        while self.use(at(high)) <= 1 and high < WIDEST:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.use(at(middle)) <= 1 else (low, middle)
        return at(low)


def _moved(widths: Sequence[int], steps: Sequence[int], moves: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(w + moves.get(b, 0) * step for b, (w, step) in enumerate(zip(widths, steps, strict=True)))


@lru_cache
def _moves(n_blocks: int, at_most: int = 64) -> tuple[tuple[int, ...], ...]:
    """Return the smallest vectors of steps, none of them zero."""
    reach = range(-at_most // 2, at_most // 2 + 1) if n_blocks == 1 else range(-3, 4)
    vectors = itertools.product(reach, repeat=min(n_blocks, 4))
    ordered = sorted(vectors, key=lambda v: (sum(map(abs, v)), v))[1 : at_most + 1]
    return tuple(v + (0,) * (n_blocks - len(v)) for v in ordered)
