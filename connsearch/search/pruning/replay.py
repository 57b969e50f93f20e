"""What would a pruning rule have saved, and lost? Replays it over curves that were recorded to their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from connsearch.errors import StudyError
from connsearch.search.pruning.rules import Curve, Rule
from connsearch.search.reading.hypervolume import Losses, hypervolume, non_dominated

N_BUDGETS = 200


class Replay(NamedTuple):
    """What a rule would have done to a study.

    Attributes:
        epochs: How many epochs each trial would have been trained, in the order of the trials.
        saved: Share of all epochs that would not have been trained.
        pruned: Share of trials that would have been pruned.
        front: Trials of the true front: nothing has both less error at the end and less MACs.
        front_lost: How many of these would have been pruned.
        hypervolume_lost: Share of the volume between the front and the corner (1, greatest MACs) that
            the trials that are left do not reach; MACs in logarithms.
        regret: By how much the least error within a budget would be higher, in the mean over budgets
            that are evenly spaced in the logarithm, from the cheapest trial's to the dearest's.
        worst_regret: The same at the budget where it is greatest.
    """

    epochs: tuple[int, ...]
    saved: float
    pruned: float
    front: int
    front_lost: int
    hypervolume_lost: float
    regret: float
    worst_regret: float


def replay(rule: Rule, curves: Sequence[Curve]) -> Replay:
    """Return what a rule would have done to trials that came one after the other, each to its last epoch.

    Args:
        rule: As `make_pruner` returns it.
        curves: Whole curves in the order of the trials. The ranking takes error and MACs as objectives.

    Raises:
        StudyError: if a curve was itself pruned, or there is none.

    >>> from connsearch.registry import Ref
    >>> from connsearch.search.pruning.rules import make_pruner
    >>> params = ("dominated_by", 2), ("first_epoch", 1), ("min_peers", 2)
    >>> rule = make_pruner(Ref("median", params), epochs=2)
    >>> good, bad = Curve(100, (0.5, 0.1), (100,)), Curve(100, (0.9, 0.8), (100,))
    >>> replay(rule, [good, good, bad, good]).epochs
    (2, 2, 1, 2)
    """
    if not curves or any(curve.end == "pruned" for curve in curves):
        raise StudyError("only whole curves can be replayed: record a study with pruner = 'none'")
    seen: list[Curve] = []
    for curve in curves:
        seen.append(_ended(rule, curve, seen))
    epochs = tuple(len(curve.errors) for curve in seen)
    whole = sum(len(curve.errors) for curve in curves)
    kept = [index for index, curve in enumerate(seen) if curve.end != "pruned"]
    every = list(range(len(curves)))
    losses = np.array([[_final(curve), math.log(curve.macs)] for curve in curves])
    front = non_dominated(losses, np.array(every))
    regrets = _regrets(losses, every, kept)
    volume = _volume(losses, every)
    return Replay(
        epochs,
        1 - sum(epochs) / whole,
        1 - len(kept) / len(curves),
        len(front),
        len({*front} - {*kept}),
        max(0.0, 1 - _volume(losses, kept) / volume) if volume else 0.0,
        float(regrets.mean()),
        float(regrets.max()),
    )


def _ended(rule: Rule, curve: Curve, earlier: Sequence[Curve]) -> Curve:
    """Return a trial as the rule would have left it."""
    for epoch in range(1, len(curve.errors)):
        if rule(curve.until(epoch), earlier) is not None:
            return Curve(curve.macs, curve.errors[:epoch], curve.costs, "pruned")
    return curve


def _final(curve: Curve) -> float:
    return 1.0 if curve.end == "diverged" else curve.errors[-1]


def _volume(losses: Losses, rows: Sequence[int]) -> float:
    reference = np.array([1.0, losses[:, 1].max() + 1e-9])
    return hypervolume(losses[list(rows)], reference)


def _regrets(losses: Losses, every: Sequence[int], kept: Sequence[int]) -> Losses:
    """Return the loss of error at each budget; where nothing is left within a budget, up to error 1."""
    budgets = np.linspace(losses[:, 1].min(), losses[:, 1].max(), N_BUDGETS)
    return np.subtract(_best(losses, kept, budgets), _best(losses, every, budgets))


def _best(losses: Losses, rows: Sequence[int], budgets: Losses) -> Losses:
    """Return the least error within each budget; 1 where there is none."""
    errors, macs = losses[list(rows)].T
    best: Losses = np.where(macs[:, None] <= budgets, errors[:, None], 1.0).min(axis=0, initial=1.0)
    return best
