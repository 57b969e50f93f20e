"""Batch normalisation and activation of several sources at once, without concatenating them."""

from connsearch.kernels.concat_norm_act import reference
from connsearch.kernels.dispatch import dispatched

__all__ = ["add_affine", "concat_norm_act", "concat_norm_act_backward"]

concat_norm_act = dispatched(reference.concat_norm_act)
concat_norm_act_backward = dispatched(reference.concat_norm_act_backward, written="sinks")
add_affine = dispatched(reference.add_affine, written="sink")
