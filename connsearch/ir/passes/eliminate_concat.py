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
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import Norm


def eliminate_concat(program: Program) -> Program:
    """Glue batch norms (and what is glued to them) to concatenations that they alone read."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    what, norm = first.aggregate, second.steps[0].what
    return (
        what is not None
        and what.ref.name == "concat"
        and len(first.steps) == 1
        and isinstance(norm, Norm)
        and norm.kind == "batch"
    )
