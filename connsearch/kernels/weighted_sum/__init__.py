"""Sums of sources, each with a weight of its own, and what flows back to the sources."""

from connsearch.kernels.dispatch import dispatched
from connsearch.kernels.weighted_sum import reference

__all__ = ["pull", "pull_normalized", "weighted_sum", "weighted_sum_norm_act"]

weighted_sum = dispatched(reference.weighted_sum)
weighted_sum_norm_act = dispatched(reference.weighted_sum_norm_act)
pull = dispatched(reference.pull)
pull_normalized = dispatched(reference.pull_normalized)
