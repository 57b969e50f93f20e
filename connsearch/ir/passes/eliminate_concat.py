"""Normalise sources where they lie, instead of copying them side by side first.

A dense block concatenates 1 + 2 + ... + n maps: quadratic in depth. A norm treats each channel on its own, so
it may as well read its sources one by one:

    %4 = aggregate.concat <- %1 %2 %3
    %5 = norm('batch', 48) | act('relu') <- %4

becomes

    %4 = aggregate.concat | norm('batch', 48) | act('relu') <- %1 %2 %3
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued
from connsearch.ir.passes.sharing import normalized_sources, shared
from connsearch.ir.program import Op, Program, Share
from connsearch.spec.ops import is_batch_norm


def eliminate_concat(program: Program) -> Program:
    """Glue batch norms (and what is glued to them) to concatenations that they alone read.

    Sources that are shared already get statistics.
    """
    made = glued(program, _fits)
    known = {source for source in normalized_sources(made) if source and made.op(source).shared}
    return shared(made, known, Share(stats=True))


def _fits(first: Op, second: Op) -> bool:
    what = first.aggregate
    concatenates = what is not None and what.ref.name == "concat" and len(first.steps) == 1
    return concatenates and is_batch_norm(second.steps[0].what)
