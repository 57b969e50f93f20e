"""Normalise and activate a weighted sum while it is still in the cache.

Sum and norm, written and read twice otherwise, take one pass:

    %4 = aggregate.depthwise <- %1 %2 %3
    %5 = norm('batch', 64) | act('relu') <- %4

becomes

    %4 = aggregate.depthwise | norm('batch', 64) | act('relu') <- %1 %2 %3
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued, is_weighted
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import is_batch_norm


def fuse_epilogues(program: Program) -> Program:
    """Glue batch norms (and what is glued to them) to weighted sums that they alone read."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    return is_weighted(first) and len(first.steps) == 1 and is_batch_norm(second.steps[0].what)
