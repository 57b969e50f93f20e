"""Weighted sums of which the first sources are summed ahead, for several at once, in plain PyTorch.

Shapes: K sums of L sources B C H W. Each sum has weights of its own: K L C. What is begun is a map like the
sources, rounded to their dtype; sums are float32, of float64 maps float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.kernels.norm_act.reference import norm_act_train
from connsearch.kernels.weighted_sum.reference import weighted_sum


def begin_sums(sources: Sequence[Tensor], weight_KLC: Tensor, sums: Sequence[Tensor]) -> None:
    """Write sum_i w_ki h_i to each of K maps, B C H W, in the dtype and the layout of the sources.

    Reads L maps for each sum. The kernel must read L maps and write K, for K up to 4.
    """
    for weight_LC, total in zip(weight_KLC, sums, strict=True):
        total.copy_(weighted_sum(sources, weight_LC[:, None]))


def finish_sum(begun: Tensor, sources: Sequence[Tensor], weight_LC: Tensor, bias_C: Tensor | None) -> None:
    """Make x = begun + sum_i w_i h_i + b of what `begin_sums` left.

    There may be no sources. The kernel must read L + 1 maps and write one, x where begun is.
    """
    ones = torch.ones(1, weight_LC.shape[1], dtype=weight_LC.dtype, device=weight_LC.device)
    begun.copy_(weighted_sum([begun, *sources], torch.cat([ones, weight_LC])[:, None], bias_C))


def finish_sum_norm_act(
    begun: Tensor,
    sources: Sequence[Tensor],
    weight_LC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make x as `finish_sum` does; return y = act(BN(x)), the mean C and the variance C of x.

    The kernel must read L + 1 maps and write two, x where begun is.
    """
    finish_sum(begun, sources, weight_LC, bias_C)
    return norm_act_train(begun, norm_weight_C, norm_bias_C, eps, act)
