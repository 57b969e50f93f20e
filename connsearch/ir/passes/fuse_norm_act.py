"""Normalise and activate in one pass over memory.

A batch norm reads its input twice and writes it once, ReLU reads and writes again; together they read once
and write once, a channel at a time:

    %2 = norm('batch', 64) <- %1
    %3 = act('relu') <- %2                  ->   %2 = norm('batch', 64) | act('relu') <- %1
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import Act, Norm


def fuse_norm_act(program: Program) -> Program:
    """Glue ReLU to the batch norm that it alone reads."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    norm, act = first.steps[-1].what, second.steps[0].what
    return (
        isinstance(norm, Norm)
        and norm.kind == "batch"
        and isinstance(act, Act)
        and act.kind == "relu"
        and len(first.steps) == len(second.steps) == 1
    )
