"""Convolutions with constant weights and what comes before and after them, in plain PyTorch.

Shapes: L sources B C_i H W, K channels that are convolved, N results. act: "none" or "relu".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from connsearch.kernels.norm_act.reference import activate


class Before(NamedTuple):
    """What is done to sources before a 1x1 convolution: act(a sum of them), or act(scale and shift).

    Attributes:
        weight: L K: a weight for each source and channel of a sum; K: a scale for each channel of the
            concatenation.
        bias: K.
        act: What follows.
    """

    weight: Tensor
    bias: Tensor
    act: str


def pointwise(
    sources: Sequence[Tensor], before: Before | None, weight_NK: Tensor, bias_N: Tensor | None, act: str
) -> Tensor:
    """Return act(w before(sources) + b): B N H W.

    What is before the convolution is written and read again. The kernel must read each source once and
    write the result.
    """
    x = torch.cat(list(sources), dim=1) if before is None else _made(sources, before)
    return activate(conv2d(x, weight_NK[:, :, None, None], bias_N), act)


def _made(sources: Sequence[Tensor], before: Before) -> Tensor:
    bias_K11 = before.bias[:, None, None]
    if before.weight.dim() == 1:
        return activate(torch.cat(list(sources), dim=1) * before.weight[:, None, None] + bias_K11, before.act)
    return activate(
        torch.einsum("lbkhw,lk->bkhw", torch.stack(list(sources)), before.weight) + bias_K11, before.act
    )


def conv3x3(x: Tensor, weight_NK33: Tensor, bias_N: Tensor | None, act: str) -> Tensor:
    """Return act(w * x + b) with padding 1: B N H W. The kernel must do 4 / 9 of the multiplications."""
    return activate(conv2d(x, weight_NK33, bias_N, padding=1), act)
