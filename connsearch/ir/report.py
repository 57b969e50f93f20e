"""A program as a report: beside each operation that torch runs step by step, why nothing is fused there."""

from __future__ import annotations

from connsearch.ir.passes.glue import is_fused, is_weighted
from connsearch.ir.program import Aggregate, Op, Program
from connsearch.ir.text import to_text
from connsearch.spec.ops import Act, Norm


def program_report(program: Program) -> str:
    """Return the program's text, `# as defined: why` after operations that could run fused but do not."""
    first, *lines, last = to_text(program).splitlines()
    fused = [is_fused(program, op) for op in program.ops]
    reasons = ["" if done else as_defined(op) for op, done in zip(program.ops, fused, strict=True)]
    found = [
        f"{line}  # as defined: {why}" if why else line for line, why in zip(lines, reasons, strict=True)
    ]
    counts = f"{len(lines)} operations: {sum(fused)} fused, {sum(map(bool, reasons))} as defined"
    return "\n".join([first, *found, last, f"# {counts}"])


def as_defined(op: Op) -> str:
    """Return why an aggregation, norm or activation on its own runs as in the definition; "" if torch's own.

    >>> from connsearch.ir.program import Step
    >>> from connsearch.spec.ops import Shape
    >>> as_defined(Op((Step(Act("elu")),), (1,), Shape(4, 8, 8)))
    "no kernel for the activation 'elu'"
    """
    what = op.steps[0].what
    if isinstance(what, Aggregate):
        return "not fused by this pipeline" if is_weighted(op) else _why_not_aggregated(what)
    if isinstance(what, Norm):
        if what.kind != "batch":
            return f"no kernel for the norm {what.kind!r}"
        return "a norm on its own, followed by neither ReLU nor a convolution that reads it alone"
    if isinstance(what, Act):
        if what.kind != "relu":
            return f"no kernel for the activation {what.kind!r}"
        return "an activation on its own, not after a norm that it reads alone"
    return ""


def _why_not_aggregated(what: Aggregate) -> str:
    if what.drops:
        return "training draws which sources count"
    if what.ref.name == "sum":
        return "two maps: one addition"
    if what.ref.name == "concat":
        return "no batch norm reads the concatenation alone"
    if what.ref.name == "gated":
        return "each gate reads the sum so far"
    return f"no kernel for the aggregation {what.ref.name!r}"
