"""Keep what a norm reads for backward, not what it and its activation give out.

A convolution needs its input for the gradient of its weights. Where a norm and ReLU make that input, it
costs one pass over memory to make it again, and nothing to keep: the concatenations of a dense block, of
which the definition keeps two copies for each layer, are then never kept.

    %4 = norm('batch', 64) | act('relu') <- %3
    %5 = conv(64, 32, kernel=1) <- %4

becomes

    %4 = norm('batch', 64) | act('relu') | conv(64, 32, kernel=1) <- %3
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import Conv


def recompute(program: Program) -> Program:
    """Glue convolutions to the norms whose output they alone read."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    ends_in_norm = first.kinds[-1] == "norm" or first.kinds[-2:] == ("norm", "act")
    norms = [step.what for step in first.steps if step.what.op == "norm"]
    fused = all(getattr(norm, "kind", "") == "batch" for norm in norms)
    return ends_in_norm and fused and isinstance(second.steps[0].what, Conv) and len(second.steps) == 1
