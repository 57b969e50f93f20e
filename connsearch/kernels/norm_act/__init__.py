"""Batch normalisation and activation in one pass."""

from connsearch.kernels.dispatch import dispatched
from connsearch.kernels.norm_act import reference

__all__ = ["batch_stats", "norm_act", "norm_act_backward", "norm_act_train"]

batch_stats = dispatched(reference.batch_stats)
norm_act = dispatched(reference.norm_act)
norm_act_train = dispatched(reference.norm_act_train)
norm_act_backward = dispatched(reference.norm_act_backward)
