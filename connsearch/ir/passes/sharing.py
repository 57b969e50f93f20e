"""Sharing: what several readers of a value need of it is made once, at the value."""

from __future__ import annotations

from collections.abc import Collection

from connsearch.ir.passes.glue import is_normalized, norms_concat
from connsearch.ir.program import Op, Program, Share, Step


def normalized_sources(program: Program) -> set[int]:
    """Return the values whose statistics fused operations read."""
    return {source for op in program.ops if is_normalized(op) or norms_concat(op) for source in op.sources}


def shared(program: Program, values: Collection[int], share: Share) -> Program:
    """Return the program with some values shared; those that are already get statistics if that is asked.

    The image is no value of an operation, and never shared.
    """
    ops = tuple(_with(op, share) if value in values else op for value, op in enumerate(program.ops, start=1))
    if ops == program.ops:
        return program
    return Program(program.name, program.image, ops, program.outputs, program.n_columns)


def _with(op: Op, share: Share) -> Op:
    if op.shared is None:
        return Op((*op.steps, Step(share)), op.reads, op.shape)
    return Op((*op.steps[:-1], Step(share)), op.reads, op.shape) if share.stats else op
