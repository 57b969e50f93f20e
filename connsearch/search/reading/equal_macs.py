"""What is left of an objective when the effect of the budget is taken out: how trials stand at equal MACs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from connsearch.search.ranks import mean_ranks

Values = npt.NDArray[np.float64]

SHARE_NEAR = 0.5  # of all trials, that a trial is compared with
LEAST_NEAR = 10
_ROUNDING = 1e-9  # of the values: no difference


def ranks(values: Values) -> Values:
    """Return ranks within 0..1, of equal values their mean rank.

    >>> ranks(np.array([5.0, 90.0, 6.0, 5.0])).tolist()
    [0.125, 0.75, 0.5, 0.125]
    """
    return np.asarray(mean_ranks(values) / len(values))


def standing(values: Values, macs: Values) -> Values:
    """Return how far each trial lies above (worse, if less is better) what trials of its MACs reach.

    A trial is compared with the line that is fitted to the trials nearest to it in log MACs, half of all
    but at least ten, the nearer the more (tricube weights: LOESS, Cleveland 1979), the trial itself
    left out; the difference is divided by the spread about that line, so that it counts the same
    whether networks of that size differ much or little.

    A line, not bands: within a band the budget would still matter, and its edges are arbitrary.
    Not an isotonic fit: its ends are single trials, that would be compared with themselves.

    Args:
        values: One for each trial; ranks, where some are far out.
        macs: Multiply-accumulates of each trial's network, above 0.

    Returns:
        Standings in spreads; 0 where all trials of those MACs are alike.
    """
    x = np.log(macs)
    residuals = np.array([values[i] - _expected(values, x, i) for i in range(len(values))])
    spreads = np.array([_spread(residuals, x, i) for i in range(len(values))])
    alike = spreads <= _ROUNDING * max(1.0, float(np.abs(values).max()))
    found: Values = np.divide(residuals, spreads, out=np.zeros_like(residuals), where=~alike)
    return found


def explained_by_macs(values: Values, macs: Values) -> float:
    """Return the share of the variance that MACs alone predict, each trial from the others; at least 0."""
    x = np.log(macs)
    residuals = np.array([values[i] - _expected(values, x, i) for i in range(len(values))])
    total = float(np.var(values))
    return max(0.0, 1.0 - float(np.mean(residuals**2)) / total) if total > 0 else 0.0


def _weights(x: Values, i: int) -> Values:
    """Return the weight of each trial in the neighbourhood of the i-th, which has none."""
    distance = np.abs(x - x[i])
    n_near = min(len(x) - 1, max(LEAST_NEAR, math.ceil(SHARE_NEAR * len(x))))
    reach = 1.001 * float(np.partition(distance, n_near)[n_near])
    weights = np.ones_like(x) if reach == 0 else np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    weights[i] = 0.0
    return np.asarray(weights, dtype=np.float64)


def _expected(values: Values, x: Values, i: int) -> float:
    """Return the value at the i-th trial of the line through its neighbours."""
    weights = _weights(x, i)
    weights = weights / weights.sum()
    centre, mean = float(weights @ x), float(weights @ values)
    square = float(weights @ (x - centre) ** 2)
    if square <= 1e-12:  # one budget: no slope to be seen
        return mean
    slope = float(weights @ ((x - centre) * (values - mean))) / square
    return mean + slope * (float(x[i]) - centre)


def _spread(residuals: Values, x: Values, i: int) -> float:
    weights = _weights(x, i)
    return math.sqrt(float(weights @ residuals**2) / float(weights.sum()))
