"""A program as a report: beside each operation that torch runs step by step, why nothing is fused there."""

from __future__ import annotations

from dataclasses import replace

from connsearch.ir.passes.glue import is_fused, is_weighted
from connsearch.ir.pipelines import PIPELINES
from connsearch.ir.program import Aggregate, Op, Program
from connsearch.ir.text import to_text
from connsearch.spec.ops import Act, Norm

FULLEST = "fused"  # the pipeline that fuses what can be
OTHERS_FUSE = "not fused by this pipeline"
OTHERS_REUSE = "not built from other sums by this pipeline"


def program_report(program: Program, *, evaluation: bool = False, plain: str = "") -> str:
    """Return the program's text, `# as defined: why` after operations that could run fused but do not.

    Args:
        program: The program.
        evaluation: Whether it is that of the pipeline "inference", whose norms and weights are constants.
        plain: Why kernels run as plain PyTorch; "" if they do not.
    """
    first, *lines, last = to_text(program).splitlines()
    could = {} if evaluation else _fusible(program)
    fused = [_has_kernel(op) if evaluation else is_fused(program, op) for op in program.ops]
    reasons = ["" if done else _why(op, could) for op, done in zip(program.ops, fused, strict=True)]
    found = [
        f"{line}  # as defined: {why}" if why else line for line, why in zip(lines, reasons, strict=True)
    ]
    counts = f"# {len(lines)} operations: {sum(fused)} fused, {sum(map(bool, reasons))} as defined"
    here = [f"# fused operations run as plain PyTorch here: {plain}"] if plain else []
    return "\n".join([first, *found, last, counts, *here])


def _fusible(program: Program) -> dict[str, bool]:
    """Return by module whether the fullest pipeline would fuse its step, of those whose steps it keeps."""
    ops = (replace(op, steps=op.steps[:-1]) if op.shared else op for op in program.ops)
    program = replace(program, ops=tuple(ops))  # what is shared is glued to nothing
    for rewrite in PIPELINES[FULLEST]:
        program = rewrite(program)
    return {step.at: is_fused(program, op) for op in program.ops for step in op.steps if step.at}


def _why(op: Op, could: dict[str, bool]) -> str:
    why, at = as_defined(op), op.steps[0].at
    if is_weighted(op) and at not in could:
        return OTHERS_REUSE
    return OTHERS_FUSE if why and could.get(at) else why


def _has_kernel(op: Op) -> bool:
    """Return whether an operation runs as one in evaluation, or is a kernel by itself."""
    what = op.steps[0].what
    if isinstance(what, Aggregate) and what.drops:
        return len(op.steps) > 1 or what.ref.name in ("sum", "mean")
    return len(op.steps) > 1 or is_weighted(op) or (isinstance(what, Norm) and what.kind == "batch")


def as_defined(op: Op) -> str:
    """Return why an aggregation, norm or activation on its own runs as in the definition; "" if torch's own.

    >>> from connsearch.ir.program import Step
    >>> from connsearch.spec.ops import Shape
    >>> as_defined(Op((Step(Act("elu")),), (1,), Shape(4, 8, 8)))
    "no kernel for the activation 'elu'"
    """
    what = op.steps[0].what
    if isinstance(what, Aggregate):
        return OTHERS_FUSE if is_weighted(op) else _why_not_aggregated(what)
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
