"""How many operations kernels do, for `torch.utils.flop_counter`: two for each multiply-accumulate.

`register` tells torch once its counter is imported, which imports Triton too, or complains if there is none.

Only what has weights counts, as torch counts convolutions and not norms. A plain sum that runs as a weighted
one, with weights of one, counts as that.

Shapes: L sources, R readers, B C H W maps, K channels into a convolution and O out of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

Sizes = Sequence[int]


def weighted_sum(sources: Sequence[Sizes], *_: Any, **__: Any) -> int:
    """Count L multiply-accumulates for each element of the sum."""
    return 2 * len(sources) * prod(sources[0])


def pull(grads: Sequence[Sizes], *_: Any, **__: Any) -> int:
    """Count for each reader's gradient one into the source's and one into its weight's."""
    return 4 * len(grads) * prod(grads[0])


def norm_act_conv(
    sources: Sequence[Sizes], scale: Sizes, shift: Sizes, act: str, weight: Sizes, **_: Any
) -> int:
    """Count the products of a 1x1 convolution."""
    B, _K, H, W = sources[0]
    return 2 * B * H * W * prod(weight)


def norm_act_conv_backward(grad: Sizes, *others: Any, **_: Any) -> int:
    """Count the products for the gradients of input and weight."""
    B, _O, H, W = grad
    weight: Sizes = others[6]
    return 4 * B * H * W * prod(weight)


FORMULAS: dict[str, Callable[..., int]] = {
    "weighted_sum": weighted_sum,
    "weighted_sum_norm_act": weighted_sum,
    "pull": pull,
    "pull_normalized": pull,
    "norm_act_conv": norm_act_conv,
    "norm_act_conv_backward": norm_act_conv_backward,
}


def register() -> None:
    """Register the formulas with torch's counter, if that is imported, and with those that count already."""
    counting = sys.modules.get("torch.utils.flop_counter")
    if counting is None:
        return
    operators = {getattr(torch.ops.connsearch, name): formula for name, formula in FORMULAS.items()}
    for operator, formula in operators.items():
        if operator not in counting.flop_registry:
            counting.register_flop_formula(operator)(formula)
    for mode in _get_current_dispatch_mode_stack():  # counters copy the formulas when they are made
        if isinstance(counter := getattr(mode, "counter", None), counting.FlopCounterMode):
            counter.flop_registry |= {operator: counting.flop_registry[operator] for operator in operators}
