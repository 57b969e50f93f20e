"""Normalise and activate in one pass over memory.

A batch norm reads its input twice and writes it once, ReLU reads and writes again; together they read once
and write once, a channel at a time:

    %2 = norm('batch', 64) <- %1
    %3 = act('relu') <- %2                  ->   %2 = norm('batch', 64) | act('relu') <- %1
"""

from __future__ import annotations

from connsearch.ir.passes.glue import glued
from connsearch.ir.program import Op, Program
from connsearch.spec.ops import is_batch_norm, is_relu


def fuse_norm_act(program: Program) -> Program:
    """Glue ReLU to the batch norm that it alone reads."""
    return glued(program, _fits)


def _fits(first: Op, second: Op) -> bool:
    alone = len(first.steps) == len(second.steps) == 1
    return alone and is_batch_norm(first.steps[0].what) and is_relu(second.steps[0].what)
