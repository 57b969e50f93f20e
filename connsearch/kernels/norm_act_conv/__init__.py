"""Batch normalisation, activation and 1x1 convolution of several sources, without concatenating them."""

from connsearch.kernels.dispatch import dispatched
from connsearch.kernels.norm_act_conv import reference

__all__ = ["norm_act_conv", "norm_act_conv_backward"]

norm_act_conv = dispatched(reference.norm_act_conv)
norm_act_conv_backward = dispatched(reference.norm_act_conv_backward, written="sinks")
