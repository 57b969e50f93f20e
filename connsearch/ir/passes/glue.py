"""Gluing: an operation and the only one that reads it become one, where a rule allows it."""

from __future__ import annotations

from collections.abc import Callable

from connsearch.ir.program import Op, Program, renumbered
from connsearch.spec.aggregations import Depthwise, rule_of


def glued(program: Program, fits: Callable[[Op, Op], bool]) -> Program:
    """Return the program with every pair (first, second) glued that `fits`, first read by second alone.

    An operation that grew by gluing may be the first of another pair.
    """
    ops: dict[int, Op] = {}
    for value, second in enumerate(program.ops, start=1):
        first = ops.get(second.reads[0])
        if first is not None and _alone(program, second) and fits(first, second):
            del ops[second.reads[0]]
            second = Op(first.steps + second.steps, first.reads, second.shape)
        ops[value] = second
    return program if len(ops) == len(program.ops) else renumbered(program, list(ops.items()))


def _alone(program: Program, second: Op) -> bool:
    """Return whether an operation reads one value, which nothing else does."""
    read = second.reads[0]
    return len(second.reads) == 1 and len(program.readers[read]) == 1 and read not in program.kept


def is_weighted(op: Op) -> bool:
    """Return whether an operation starts with a sum of sources that have weights each, or could have."""
    what = op.aggregate
    if what is None or what.drops:
        return False
    name = what.ref.name
    return name in ("depthwise", "weighted", "routed", "mean") or (name == "sum" and len(op.sources) > 2)


def is_fused(program: Program, op: Op) -> bool:
    """Return whether an operation runs as one: it has several steps, or weighs sources that are shared."""
    if len(op.steps) > 1 + (op.shared is not None):
        return True
    return is_weighted(op) and any(read and program.op(read).shared for read in op.sources)


def is_normalized(op: Op) -> bool:
    """Return whether an operation starts with a weighted sum of sources normalised one by one."""
    what = op.aggregate
    if what is None or not is_weighted(op):
        return False
    rule = rule_of(what.ref)
    return isinstance(rule, Depthwise) and rule.form == "normalized"


def norms_concat(op: Op) -> bool:
    """Return whether an operation normalises a concatenation that it does not make."""
    what = op.aggregate
    return what is not None and what.ref.name == "concat" and "norm" in op.kinds
