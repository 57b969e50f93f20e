"""Rank correlation: does a number that costs no training order a study's errors, and better than MACs do?

A proxy that only grows with the network orders a study of many budgets well and teaches nothing. So each is
compared with multiply-accumulates, and looked at again where these are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
N_RESAMPLED = 1000
NEAR = 1.1
"""MACs within this ratio count as equal."""
FEWEST = 10
"""With fewer trials nothing is said."""


class Estimate(NamedTuple):
    """A rank correlation, -1 to 1, with its 95 % bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def ranks(values: Floats) -> Floats:
    """Return ranks along the last axis, from 0; equal values have their mean rank.

    >>> ranks(np.array([3.0, 1.0, 3.0]))
    array([1.5, 0. , 1.5])
    """
    found = np.empty(values.shape)
    for row in np.ndindex(values.shape[:-1]):
        _, which, count = np.unique(values[row], return_inverse=True, return_counts=True)
        found[row] = (np.cumsum(count) - (count + 1) / 2)[which]
    return found


def spearman(x: Floats, y: Floats) -> Floats:
    """Return Spearman's rho along the last axis: Pearson's correlation of the ranks; NaN if all are equal.

    >>> float(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])))
    1.0
    """
    return _pearson(ranks(x), ranks(y))


def kendall(x: Floats, y: Floats, macs: Floats | None = None, times: Floats | None = None) -> Floats:
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


def partial(x: Floats, y: Floats, held: Floats) -> Floats:
    """Return Spearman's rho of x and y with a third held equal: of what its ranks leave of theirs.

    NaN where the third leaves nothing.
    """
    of = ranks(held)
    return _pearson(_rest(ranks(x), of), _rest(ranks(y), of))


def _rest(a: Floats, b: Floats) -> Floats:
    """Return what the straight line in b leaves of a, exactly 0 where that is rounding."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    square = (b * b).sum(axis=-1, keepdims=True)
    slope = np.divide(
        (a * b).sum(axis=-1, keepdims=True), square, out=np.zeros_like(square), where=square > 0
    )
    left = a - slope * b
    size = (left * left).sum(axis=-1, keepdims=True)
    return np.asarray(np.where(size > 1e-12 * (a * a).sum(axis=-1, keepdims=True), left, 0.0))


def _pearson(a: Floats, b: Floats) -> Floats:
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1)))


def estimate(statistic: Callable[..., Floats], *columns: Sequence[float]) -> Estimate:
    """Return a statistic of some columns with its bootstrap interval: trials are drawn with replacement.

    Resamples in which it is not defined (all values equal) are left out.
    """
    data = np.array(columns, float)
    n_trials = data.shape[1]
    if n_trials < FEWEST:
        return UNKNOWN
    drawn = np.random.default_rng(0).integers(n_trials, size=(N_RESAMPLED, n_trials))
    if statistic is kendall:
        times = np.stack([np.bincount(rows, minlength=n_trials) for rows in drawn])
        found = kendall(data[0], data[1], data[2] if len(data) > 2 else None, times.astype(float))
    else:
        found = statistic(*data[:, drawn])
    found, value = found[np.isfinite(found)], float(statistic(*data))
    if not len(found) or not np.isfinite(value):
        return UNKNOWN
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def lead(proxy: Floats, macs: Floats, error: Floats) -> Floats:
    """Return by how much a proxy orders errors better than MACs: the difference of Spearman's rhos.

    Both are meant to fall with the error, so each counts by the negative of its rho. A proxy or MACs that are
    all equal order nothing: 0.
    """
    with_macs = np.nan_to_num(spearman(macs, error))
    return np.asarray(with_macs - np.nan_to_num(spearman(proxy, error)))
