"""Let a convolution do the norm and the activation that follow it: for inference.

In evaluation a batch norm is a x + b with constants a and b. Folded into the weights and the bias of the
convolution that it reads, it costs nothing, and ReLU is done before the convolution's result is written:

    %2 = conv(16, 64, kernel=1) <- %1
    %3 = norm('batch', 64) | act('relu') <- %2

becomes

    %2 = conv(16, 64, kernel=1) | norm('batch', 64) | act('relu') <- %1
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued
from connsearch.ir.program import Op, Program
from connsearch.ir.verify import CONVOLUTIONS
from connsearch.spec.ops import is_batch_norm, is_relu


def fold_norms(program: Program) -> Program:
    """Glue batch norms and ReLU to the convolutions that they alone read."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    folded = all(is_batch_norm(step.what) or is_relu(step.what) for step in second.steps)
    return folded and len(first.steps) == 1 and first.kinds[0] in CONVOLUTIONS
