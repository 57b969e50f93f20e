"""Residual networks of which training drops parts: stochastic depth and Swapout.

Stochastic depth: Huang et al., arXiv 1603.09382: ResNet-110 whose last unit survives half the time.
Swapout: Singh et al., arXiv 1605.06465: pre-activation basic units of twice the usual width, both the
skip and the unit dropped element by element. Both survivals and the layout of Swapout are recalled, not
confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from connsearch.registry import Ref
from connsearch.spec.drops import DROPS
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import resnets
from connsearch.spec.presets.residual import pre_activation

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def _stochastic_depth(depth: int) -> NetworkSpec:
    return resnets.PRESETS[f"resnet-{depth}"]().model_copy(
        update={"drop": DROPS.ref("stochastic_depth", survival=0.5)}
    )


def _swapout(depth: int, k: int) -> NetworkSpec:
    return pre_activation(
        ((depth - 2) // 6,) * 3,
        (16 * k, 32 * k, 64 * k),
        Ref("basic"),
        drop=DROPS.ref("swapout", survival=0.5),
    )


PRESETS["stochastic-depth-resnet-110"] = partial(_stochastic_depth, 110)
for _depth in (20, 32):
    PRESETS[f"swapout-resnet-{_depth}-w2"] = partial(_swapout, _depth, 2)
