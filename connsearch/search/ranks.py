"""Mean ranks: where does each value stand among all, whatever the distances between them?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean_ranks(values: Floats, times: Floats | None = None) -> Floats:
    """Return the rank of each value, from 0; equal values have their mean rank.

    Args:
        values: A column.
        times: If given, how often each value is there, a row for each sample; a row of ranks for each. The
            rank of a value that a sample does not have is of no use.

    >>> mean_ranks(np.array([3.0, 1.0, 3.0]))
    array([1.5, 0. , 1.5])
    >>> mean_ranks(np.array([3.0, 1.0, 3.0]), np.array([[1.0, 2.0, 0.0]]))[0, :2]
    array([2. , 0.5])
    """
    _, first, which = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    counts = np.ones(values.shape) if times is None else times
    here = np.add.reduceat(counts[..., order], first, axis=-1)  # of each different value, ascending
    found = np.empty(counts.shape)
    found[..., order] = (np.cumsum(here, axis=-1) - (here + 1) / 2)[..., which]
    return found
