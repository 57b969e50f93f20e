"""The integer widths that meet a budget: a network of a given shape, just below it.

The solver takes a shape (topologies, aggregations, depths, ratios of widths) and finds integer widths
whose cost lies in [(1 - tolerance) budget, budget] and never above. Cost grows with every width, so the
real-valued widths that spend the whole budget are found by bisection of a common scale; integer widths
are then searched nearest first, one block being refilled to what is left, at finer steps where coarse
ones do not meet the tolerance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import lcm

from connsearch.cost.budget import Budget
from connsearch.cost.model import CostModel, cost_plan, tally_of
from connsearch.errors import BudgetError, SpecError
from connsearch.registry import Ref
from connsearch.spec.chains import UNITS
from connsearch.spec.given import check_network
from connsearch.spec.network import NetworkSpec
from connsearch.spec.resolve import resolve

WIDEST = 1 << 20
MOST_TRIMS = 4  # depths tried for one network
MOST_CANDIDATES = 20  # combinations of widths tried for one depth and step
MOST_FACTORS = 16  # multiples of the least widths tried, where not all make a network
NEAR = 0.3  # how far, in the logarithm, a width may be from its ideal before finer steps are tried


def fit_width(
    spec: NetworkSpec,
    budget: Budget,
    *,
    quantum: int = 4,
    min_width: int = 4,
    min_depths: Sequence[int] | None = None,
) -> NetworkSpec:
    """Return a network of a shape just below a budget; its widths keep their ratios roughly.

    Args:
        spec: The shape; its widths count as ratios only.
        budget: What the network may cost. Never exceeded.
        quantum: Widths are multiples of it where that meets the tolerance, of a half, a quarter, ...
            of it, down to 1, where not. A unit's groups and heads always divide its width.
        min_width: No block is narrower.
        min_depths: If given, layers may be taken from the deepest block, down to these depths: while
            even the narrowest network is over budget, and a few more where narrow integer widths are
            too coarse for the tolerance.

    Raises:
        BudgetError: if the narrowest network is over budget; it names the bound and the least cost.
        SpecError: if the specification describes no network, or an argument is no such integer.

    >>> from connsearch.cost import network_cost
    >>> from connsearch.spec.presets import preset
    >>> half = fit_width(preset("resnet-20"), Budget(macs=20_000_000))
    >>> half.widths, network_cost(half).macs
    ((12, 24, 36), 19823976)
    """
    check_network(spec)
    if not isinstance(budget, Budget):
        raise SpecError(f"a Budget is asked for, got {budget!r}: give cs.Budget(macs=...)")
    for name, value in (("quantum", quantum), ("min_width", min_width)):
        if type(value) is not int or value < 1:
            raise SpecError(f"{name} must be an integer of at least 1, got {value!r}")
    groups = [_groups(block.unit) for block in spec.blocks]
    min_depths = min_depths or [block.n_layers for block in spec.blocks]
    if len(min_depths) != len(spec.blocks) or any(type(depth) is not int for depth in min_depths):
        raise SpecError(
            f"{len(spec.blocks)} blocks need as many integers as min_depths, got {list(min_depths)}"
        )
    shallowest = [max(d, 1 + block.entry_unit) for d, block in zip(min_depths, spec.blocks, strict=True)]
    narrowest = partial(_narrowest, min_width=min_width, groups=groups)
    best, best_use = spec, 0.0
    for shape in itertools.islice(_trimmed(spec, budget, narrowest, shallowest), MOST_TRIMS):
        least = narrowest(shape)
        if least is None:
            continue
        solver = _Solver(shape, budget, least, checked=_picky(shape, groups))
        widths = solver.widths(quantum, groups)
        if best_use < solver.use(widths) <= 1:  # fewer layers may cost more, where more is concatenated
            best, best_use = shape.with_widths(widths), solver.use(widths)
        if max(solver.ideal) > 0.99 * WIDEST:
            raise BudgetError(f"even a width of {WIDEST:,} leaves most of {budget} unused: lower the budget")
        if best_use >= 1 - budget.tolerance:
            break
    return best


Narrowest = Callable[[NetworkSpec], "list[int] | None"]


def _narrowest(spec: NetworkSpec, min_width: int, groups: Sequence[int]) -> list[int] | None:
    """Return the least widths that make a network, or None if no multiple of them up to 16 does."""
    if not _picky(spec, groups):
        return [min_width] * len(groups)
    for factor in range(1, MOST_FACTORS + 1):
        widths = [_round_up(min_width * factor, g) for g in groups]
        if _resolves(spec, widths):
            return widths
    return None


def _picky(spec: NetworkSpec, groups: Sequence[int]) -> bool:
    """Return whether some widths make no network: channels must divide, or nodes of a graph fit together."""
    return max(groups) > 1 or spec.own_graph is not None


def _resolves(spec: NetworkSpec, widths: Sequence[int]) -> bool:
    try:
        resolve(spec, widths)
    except SpecError:
        return False
    return True


def _groups(unit: Ref) -> int:
    """Return what must divide a unit's width."""
    params = UNITS.bind(unit)
    return lcm(int(params.get("groups", 1)), int(params.get("heads", 1)))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


# ---- depth ---------------------------------------------------------------------------------------------


def _trimmed(
    spec: NetworkSpec, budget: Budget, narrowest: Narrowest, min_depths: Sequence[int]
) -> Iterator[NetworkSpec]:
    """Yield the network at the depths whose narrowest form fits, deepest first."""
    depths = list(_depths(spec, min_depths))

    def use(i: int) -> float:
        return _use(_with_depths(spec, depths[i]), budget, narrowest)

    low, high = 0, len(depths)  # depths[high] fits, depths[low - 1] does not
    while low < high:
        middle = (low + high) // 2 if low else 0  # most networks fit untrimmed: ask that first
        if use(middle) <= 1:
            high = middle
        else:
            low = middle + 1
    if low == len(depths):
        low = min(range(low), key=use)
        if use(low) > 1:
            shape = _with_depths(spec, depths[low])
            widths = narrowest(shape)
            if widths is None:
                resolve(spec)  # says what is wrong, if it is the specification
                raise BudgetError(
                    f"no width up to {MOST_FACTORS} times the least makes a network: raise min_width"
                )
            raise BudgetError(_impossible(shape, budget, widths))
    return (_with_depths(spec, d) for d in depths[low:])


def _with_depths(spec: NetworkSpec, depths: Sequence[int]) -> NetworkSpec:
    return spec if spec.own_graph is not None else spec.with_depths(depths)


def _depths(spec: NetworkSpec, min_depths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield depths, each one layer less than before, taken from the deepest block that may lose it."""
    depths = [block.n_layers for block in spec.blocks]
    yield tuple(depths)
    while any(depth > least for depth, least in zip(depths, min_depths, strict=True)):
        spare = [b for b, least in enumerate(min_depths) if depths[b] > least]
        depths[max(spare, key=lambda b: depths[b])] -= 1
        yield tuple(depths)


def _use(shape: NetworkSpec, budget: Budget, narrowest: Narrowest) -> float:
    """Return the share of the budget that a shape uses at its narrowest; infinite if it makes no network."""
    widths = narrowest(shape)
    if widths is None:
        return math.inf
    tally = tally_of(cost_plan(shape, widths))
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
    """Integer widths near the real-valued ones that would spend the whole budget at the asked ratios."""

    def __init__(
        self, shape: NetworkSpec, budget: Budget, narrowest: Sequence[int], *, checked: bool
    ) -> None:
        self.shape = shape
        self.model = CostModel(shape)
        self.budget = budget
        self.narrowest = narrowest
        self.checked = checked  # whether some widths make no network
        ratios = shape.widths
        self.ideal = self._ideal([ratio / max(ratios) for ratio in ratios])
        self.refilled = self.ideal.index(max(self.ideal))  # the block whose steps are relatively finest

    def use(self, widths: Sequence[float]) -> float:
        share: float = self.model.macs(widths) / self.budget.macs if self.budget.macs else 0.0
        if self.budget.params:
            share = max(share, self.model.params(widths) / self.budget.params)
        return share

    def _ideal(self, ratios: Sequence[float]) -> list[float]:
        """Return the real widths at the greatest common scale that fits, none below the narrowest."""

        def at(scale: float) -> list[float]:
            return [max(least, scale * ratio) for ratio, least in zip(ratios, self.narrowest, strict=True)]

        low, high = 0.0, float(max(self.narrowest))
        while high < WIDEST and self.use(at(high)) <= 1:
            low, high = high, 2 * high
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if self.use(at(middle)) <= 1 else (low, middle)
        return at(low)

    def widths(self, quantum: int, groups: Sequence[int]) -> tuple[int, ...]:
        """Return widths that meet the tolerance near the ideal, at the coarsest steps that allow it.

        Where none do, those that meet it at the least distance; where none meet it, the dearest.
        """
        best, best_rank = tuple(self.narrowest), (False, self.use(self.narrowest))
        while quantum >= 1:
            for widths in self._candidates([lcm(quantum, g) for g in groups]):
                use, distance = self.use(widths), self._distance(widths)
                meets = use >= 1 - self.budget.tolerance
                if meets and distance <= NEAR:
                    return widths
                best, best_rank = max(
                    (best, best_rank), (widths, (meets, -distance if meets else use)), key=lambda b: b[1]
                )
            quantum //= 2
        return best

    def _distance(self, widths: Sequence[int]) -> float:
        """Return the greatest relative distance of a width from its ideal."""
        return max(abs(math.log(w / ideal)) for w, ideal in zip(widths, self.ideal, strict=True))

    def _candidates(self, steps: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield widths that fit, nearest first: multiples near each block's ideal, one block refilled."""
        n_varied = max(1, min(len(steps) - 1, 6))
        reach = max(2, round(MOST_CANDIDATES ** (1 / n_varied)))
        options = [
            [0] if b == self.refilled else self._multiples(b, step, reach) for b, step in enumerate(steps)
        ]
        nearest = sorted(
            itertools.islice(itertools.product(*options), 2 * MOST_CANDIDATES),
            key=lambda widths: sum(abs(w - i) / i for w, i in zip(widths, self.ideal, strict=True) if w),
        )
        for widths in nearest:
            refilled = self._refill(widths, steps[self.refilled])
            if refilled is None:
                continue
            if not self.checked:
                yield refilled
            else:
                yield from self._resolving(refilled, steps[self.refilled])

    def _resolving(self, widths: tuple[int, ...], step: int) -> Iterator[tuple[int, ...]]:
        """Yield the widths, or those a few steps narrower in the refilled block that make a network."""
        block = self.refilled
        for width in range(widths[block], max(self.narrowest[block], widths[block] - 8 * step) - 1, -step):
            narrower = (*widths[:block], width, *widths[block + 1 :])
            if _resolves(self.shape, narrower):
                yield narrower
                return

    def _multiples(self, block: int, step: int, reach: int) -> list[int]:
        """Return the multiples of a step, or the narrowest width, nearest to a block's ideal width.

        Those that do not fit even while all other blocks are narrowest are left out.
        """
        ideal, least = self.ideal[block], self.narrowest[block]
        middle = round(ideal / step)
        around = {max(least, (middle + k) * step) for k in range(-reach, reach + 1)}
        nearest = sorted(around, key=lambda w: abs(w - ideal))[:reach]
        before, after = self.narrowest[:block], self.narrowest[block + 1 :]
        return [w for w in nearest if w <= ideal or self.use((*before, w, *after)) <= 1]

    def _refill(self, widths: tuple[int, ...], step: int) -> tuple[int, ...] | None:
        """Return the widths with the refilled block as wide as fits, or None if no width does."""
        block, least = self.refilled, self.narrowest[self.refilled]

        def at(n: int) -> tuple[int, ...]:
            return (*widths[:block], max(least, n * step), *widths[block + 1 :])

        low, high = least // step, round(self.ideal[block] / step) + 1
        if self.use(at(low)) > 1:
            return None
        while high * step < WIDEST and self.use(at(high)) <= 1:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.use(at(middle)) <= 1 else (low, middle)
        return at(low)
