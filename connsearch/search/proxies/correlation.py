"""Rank correlation: does a number that costs no training order a study's errors, and better than MACs do?

A proxy that only grows with the network orders a study of many budgets well and teaches nothing. So each is
compared with multiply-accumulates, and looked at again where these are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from connsearch.search.ranks import Floats, mean_ranks

LEVEL = 0.95
N_RESAMPLED = 1000
NEAR = 1.1
"""MACs within this ratio count as equal."""
FEWEST = 10
"""With fewer trials nothing is said."""


class Estimate(NamedTuple):
    """A rank correlation, -1 to 1, with its bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def spearman(x: Floats, y: Floats, *, times: Floats | None = None) -> Floats:
    """Return Spearman's rho: Pearson's correlation of the ranks; NaN if all are equal.

    Args:
        x, y: A value for each trial.
        times: If given, how often each trial is there, a row for each sample; a result for each row.

    >>> float(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])).round(3))
    1.0
    """
    return _pearson(mean_ranks(x, times), mean_ranks(y, times), times)


def kendall(x: Floats, y: Floats, macs: Floats | None = None, *, times: Floats | None = None) -> Floats:
    """Return Kendall's tau-b: pairs ordered alike, less those that are not, over all.

    Pairs that are equal in one count in neither, and the number of pairs is the geometric mean of those that
    differ in x and in y.

    Args:
        x, y: A value for each trial.
        macs: If given, only pairs whose MACs differ by less than a tenth count.
        times: If given, how often each trial is there, a row for each sample; a result for each row.

    >>> float(kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])).round(3))
    0.333
    """
    weight = np.ones(len(x)) if times is None else times
    sign_x, sign_y = (np.sign(column[:, None] - column[None, :]) for column in (x, y))
    if macs is not None:
        far = np.abs(np.log(macs[:, None] / macs[None, :])) >= np.log(NEAR)
        sign_x[far] = sign_y[far] = 0.0
    both, in_x, in_y = (
        ((weight @ pairs) * weight).sum(axis=-1) for pairs in (sign_x * sign_y, sign_x**2, sign_y**2)
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(both / np.sqrt(in_x * in_y))


def partial(x: Floats, y: Floats, held: Floats, *, times: Floats | None = None) -> Floats:
    """Return Spearman's rho of x and y with a third held equal: of what its ranks leave of theirs.

    NaN where the third leaves nothing. `times` as `spearman` takes it.
    """
    of = mean_ranks(held, times)
    left_x, left_y = (_rest(mean_ranks(column, times), of, times) for column in (x, y))
    return _pearson(left_x, left_y, times)


def _rest(a: Floats, b: Floats, times: Floats | None) -> Floats:
    """Return what the straight line in b leaves of a, exactly 0 where that is rounding."""
    a, b = _centred(a, times), _centred(b, times)
    square = _sum(b * b, times)[..., None]
    slope = np.divide(_sum(a * b, times)[..., None], square, out=np.zeros_like(square), where=square > 0)
    left = a - slope * b
    size = _sum(left * left, times)[..., None]
    return np.asarray(np.where(size > 1e-12 * _sum(a * a, times)[..., None], left, 0.0))


def _pearson(a: Floats, b: Floats, times: Floats | None) -> Floats:
    a, b = _centred(a, times), _centred(b, times)
    with np.errstate(invalid="ignore"):
        return np.asarray(_sum(a * b, times) / np.sqrt(_sum(a * a, times) * _sum(b * b, times)))


def _sum(a: Floats, times: Floats | None) -> Floats:
    """Return the sum over trials, each as often as it is there."""
    return np.asarray((a if times is None else a * times).sum(axis=-1))


def _centred(a: Floats, times: Floats | None) -> Floats:
    count = a.shape[-1]  # a sample is as large as what it is drawn from
    return np.asarray(a - _sum(a, times)[..., None] / count)


def estimate(statistic: Callable[..., Floats], *columns: Sequence[float], level: float = LEVEL) -> Estimate:
    """Return a statistic of some columns with its bootstrap interval: trials are drawn with replacement.

    Resamples in which it is not defined (all values equal) are left out.

    Args:
        statistic: One of this module.
        columns: Its columns, a value for each trial.
        level: Of the interval.
    """
    data = np.array(columns, float)
    n_trials = data.shape[1]
    if n_trials < FEWEST:
        return UNKNOWN
    drawn = np.random.default_rng(0).integers(n_trials, size=(N_RESAMPLED, n_trials))
    times = np.stack([np.bincount(rows, minlength=n_trials) for rows in drawn]).astype(float)
    found, value = statistic(*data, times=times), float(statistic(*data))
    found = found[np.isfinite(found)]
    if not len(found) or not np.isfinite(value):
        return UNKNOWN
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def lead(proxy: Floats, macs: Floats, error: Floats, *, times: Floats | None = None) -> Floats:
    """Return by how much a proxy orders errors better than MACs: the difference of Spearman's rhos.

    Both are meant to fall with the error, so each counts by the negative of its rho. A proxy or MACs that are
    all equal order nothing: 0. `times` as `spearman` takes it.
    """
    order = mean_ranks(error, times)
    with_proxy, with_macs = (
        np.nan_to_num(_pearson(mean_ranks(column, times), order, times)) for column in (proxy, macs)
    )
    return np.asarray(with_macs - with_proxy)
