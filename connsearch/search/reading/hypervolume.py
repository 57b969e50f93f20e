"""The mathematics of fronts: which rows no other dominates, and the volume that they dominate.

Rows are losses: of every objective less is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Losses = npt.NDArray[np.float64]


def losses_of(values: npt.ArrayLike, directions: Sequence[str]) -> Losses:
    """Return values as losses: those of an objective that is maximised are turned round.

    Args:
        values: A column for each objective.
        directions: "minimize" or "maximize" for each.
    """
    signs = [1.0 if way == "minimize" else -1.0 for way in directions]
    return np.multiply(np.asarray(values, dtype=np.float64), signs)


def dominated_volume(losses: Losses, reference: Losses) -> float:
    """Return the hypervolume of rows of which some may be dominated; it is the same, and sooner found."""
    return hypervolume(losses[non_dominated(losses, np.arange(len(losses)))], reference)


def non_dominated(losses: Losses, tie_break: npt.NDArray[Any]) -> list[int]:
    """Return the rows that no other row dominates; of equal rows the one with the least `tie_break`.

    In lexicographic order whatever dominates a row comes before it, so one look back is enough.
    """
    order = np.lexsort((tie_break, *losses.T[::-1]))
    kept: list[int] = []
    front = np.empty_like(losses)
    for row in order:
        if not (front[: len(kept)] <= losses[row]).all(axis=1).any():
            front[len(kept)] = losses[row]
            kept.append(int(row))
    return sorted(kept)


def hypervolume(losses: Losses, reference: Losses) -> float:
    """Return the volume of what is dominated by some row and dominates the reference.

    Two objectives are a sweep; more are slices along the last objective, each the volume of fewer
    objectives times its thickness.

    >>> hypervolume(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([3.0, 3.0]))
    7.0
    """
    inside = losses[(losses < reference).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    thickness = np.diff(inside[:, -1], append=reference[-1])
    if inside.shape[1] == 2:
        return float(thickness @ (reference[0] - np.minimum.accumulate(inside[:, 0])))
    slices = ((i, t) for i, t in enumerate(thickness, start=1) if t > 0)
    return float(sum(t * hypervolume(inside[:i, :-1], reference[:-1]) for i, t in slices))
