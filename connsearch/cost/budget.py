"""Budgets: the most that a network may cost."""

from __future__ import annotations

from dataclasses import dataclass

from connsearch.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """The most that a network may cost, for one image and one forward pass.

    Attributes:
        macs: Multiply-accumulates, or None for no bound.
        params: Trainable scalars, or None for no bound.
        tolerance: How far below the budget a network may stay, as a share of it.

    Raises:
        BudgetError: if nothing is bounded, a bound is below 1, or the tolerance is not within 0..1.

    >>> budget = Budget(macs=40_000_000, params=1_000_000)
    >>> print(budget)
    40,000,000 macs and 1,000,000 params
    >>> budget.use(macs=10_000_000, params=500_000)
    0.5
    """

    macs: int | None = None
    params: int | None = None
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        for name, bound in (("macs", self.macs), ("params", self.params)):
            if bound is not None and type(bound) is not int:
                raise BudgetError(f"a budget's {name} must be an integer, got {bound!r}")
        bounds = [bound for bound in (self.macs, self.params) if bound is not None]
        if not bounds or min(bounds) < 1:
            raise BudgetError(f"a budget needs macs or params of at least 1, got {self!r}")
        if type(self.tolerance) not in (int, float) or not 0 < self.tolerance < 1:
            raise BudgetError(f"a budget's tolerance must lie between 0 and 1, got {self.tolerance!r}")

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
