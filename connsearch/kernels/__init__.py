"""Kernels: operations of connected networks that torch would do in several passes over memory, in one.

Beside each kernel lies its reference in plain PyTorch. A kernel sees tensors, never a specification.
Shapes: L sources or R readers, B images, C channels, H W pixels; maps are NCHW or channels_last.
"""

from connsearch.kernels.concat_norm_act import (
    add_affine,
    concat_norm_act,
    concat_norm_act_backward,
)
from connsearch.kernels.dispatch import Choice, choose, use_backend
from connsearch.kernels.norm_act import batch_stats, norm_act, norm_act_backward, norm_act_train
from connsearch.kernels.norm_act_conv import norm_act_conv, norm_act_conv_backward
from connsearch.kernels.weighted_sum import (
    pull,
    pull_normalized,
    weighted_sum,
    weighted_sum_norm_act,
)

# isort: split
from connsearch.kernels import gradients  # noqa: F401  # of the operators that are registered above
from connsearch.kernels.flops import register

register()

__all__ = [
    "Choice",
    "add_affine",
    "batch_stats",
    "choose",
    "concat_norm_act",
    "concat_norm_act_backward",
    "norm_act",
    "norm_act_backward",
    "norm_act_conv",
    "norm_act_conv_backward",
    "norm_act_train",
    "pull",
    "pull_normalized",
    "use_backend",
    "weighted_sum",
    "weighted_sum_norm_act",
]
