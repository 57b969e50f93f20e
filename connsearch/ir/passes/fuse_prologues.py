"""Make what a 1x1 convolution reads while it reads it: for inference.

A 1x1 convolution is a product of matrices with a row for each pixel. A weighted sum or a concatenation, its
norm and ReLU are computed for some rows, in the cache, when their turn comes; they are never written:

    %4 = aggregate.concat | norm('batch', 48) | act('relu') <- %1 %2 %3
    %5 = conv(48, 64, kernel=1) | norm('batch', 64) | act('relu') <- %4

becomes

    %4 = aggregate.concat | norm('batch', 48) | act('relu') | conv(48, 64, kernel=1) | ... <- %1 %2 %3
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued, is_weighted, norms_concat
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import Conv, is_batch_norm


def fuse_prologues(program: Program) -> Program:
    """Glue 1x1 convolutions, and what is folded into them, to norms that they alone read."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    what = second.steps[0].what
    pixelwise = isinstance(what, Conv) and what.kernel == what.stride == what.groups == 1 and not what.padding
    normal = is_batch_norm(first.steps[0].what)
    return pixelwise and "conv" not in first.kinds and (normal or _joins(first))


def _joins(op: Op) -> bool:
    weighted = is_weighted(op) and op.aggregate is not None and not op.aggregate.slots
    return "norm" in op.kinds and (weighted or norms_concat(op))
