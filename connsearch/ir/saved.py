"""What a program keeps of its forward pass for the backward pass, and the least that it could keep.

Counted are elements of one image; parameters, and what is one figure for each channel, are not.
"""

from __future__ import annotations

from connsearch.cost.memory import line_memory
from connsearch.ir.passes.glue import is_fused, is_weighted, norms_concat
from connsearch.ir.program import Aggregate, Op, Program, Scale, Share, Step, renumbered
from connsearch.spec.aggregations import rule_of
from connsearch.spec.ops import Act, Norm, Pool, Shape, output_shape
from connsearch.spec.plan import Line


def saved_elements(program: Program) -> int:
    """Return what autograd keeps of one image when the program of a training step has run forward.

    Of a lowered program it is what the definition keeps: `network_cost(spec).training_bytes // 4`.
    """
    values: set[int] = set()
    beside = 0
    for value, op in enumerate(program.ops, start=1):
        more, kept = _fused(program, op) if is_fused(program, op) else _step(program, value, op)
        beside += more
        values |= kept
        if op.shared is not None and _needs_source(program, value):
            values.add(value)
    return beside + sum(program.shape(value).size for value in values)


def least_saved(program: Program) -> int:
    """Return the least that any order of computing a training step keeps, at the end of its forward pass.

    That is what the definition keeps without what a norm and an activation, or copying alone, make again of
    what is kept anyway.
    """
    steps = _unfused(program)
    values: set[int] = set()
    beside = 0
    for value, op in enumerate(steps.ops, start=1):
        more, kept = _step(steps, value, op)
        what = op.steps[0].what
        if isinstance(what, Pool) and what.kind == "avg":
            kept = set()  # torch keeps what it reads; its gradient needs only the size
        beside += more
        values |= {root for k in kept for root in _roots(steps, k)}
    return beside + sum(steps.shape(value).size for value in values)


def _step(program: Program, value: int, op: Op) -> tuple[int, set[int]]:
    """Return what one step keeps beside values, and which values."""
    what = op.steps[0].what
    if isinstance(what, Aggregate):
        return _aggregated(op, what)
    if isinstance(what, Scale | Share):
        return 0, set()
    memory = line_memory(Line((what,), program.shape(op.reads[0]), op.shape))
    kept = {op.reads[0]} if memory.saves_input else set()
    return memory.saved, kept | ({value} if memory.saves_output else set())


def _aggregated(op: Op, what: Aggregate) -> tuple[int, set[int]]:
    footprint = rule_of(what.ref).footprint(len(op.sources))
    masks = sum(d is not None and d.kind == "element" and d.survival != 1 for d in what.drops)
    kept = set(op.sources) if footprint.saves_sources else set()
    if what.slots:
        gated = {source for source, slot in zip(op.sources, what.slots, strict=True) if slot is not None}
        kept = gated | set(op.reads[len(op.sources) :])
    return op.shape.size * (footprint.saved + masks), kept


def _fused(program: Program, op: Op) -> tuple[int, set[int]]:
    """Return what a fused operation keeps: what its norm reads, and sources that have gates."""
    what = op.aggregate
    if norms_concat(op):
        return 0, set(op.sources)
    if what is None:
        return 0, {op.reads[0]}
    joined = program.shape(op.sources[0]).size if "norm" in op.kinds else 0
    gated = any(slot is not None for slot in what.slots)
    kept = set(op.sources) if gated or _keeps_sources(op) else set()
    return joined, kept


def _keeps_sources(op: Op) -> bool:
    """Return whether a weighted sum has weights whose gradients need the sources."""
    return is_weighted(op) and op.aggregate is not None and op.aggregate.ref.name in ("depthwise", "weighted")


def _needs_source(program: Program, value: int) -> bool:
    """Return whether gathering the gradient of a shared value reads the value itself."""
    return any(_keeps_sources(program.op(r)) or norms_concat(program.op(r)) for r in program.readers[value])


# ---- the least -----------------------------------------------------------------------------------------


def _unfused(program: Program) -> Program:
    """Return the program with an operation for each step."""
    ops: list[tuple[int, Op]] = []
    more = len(program.ops)
    for value, op in enumerate(program.ops, start=1):
        *early, last = [step for step in op.steps if not isinstance(step.what, Share)]
        reads, shape = op.reads, program.shape(op.reads[0])
        for step in early:
            shape = _shape_after(program, op, step, shape)
            more += 1
            ops.append((more, Op((step,), reads, shape)))
            reads = (more,)
        ops.append((value, Op((last,), reads, op.shape)))
    return renumbered(program, ops)


def _shape_after(program: Program, op: Op, step: Step, shape: Shape) -> Shape:
    if isinstance(step.what, Aggregate):
        channels = rule_of(step.what.ref).out_channels([program.shape(s).channels for s in op.sources])
        return shape._replace(channels=channels)
    assert not isinstance(step.what, Scale | Share)
    return output_shape(step.what, shape)


def _roots(program: Program, value: int) -> set[int]:
    """Return the values of which norms, activations and copies make a value."""
    if not value:
        return {0}
    op = program.op(value)
    what = op.steps[0].what
    copied = isinstance(what, Aggregate) and what.ref.name == "concat"
    if not copied and not isinstance(what, Norm | Act | Scale):
        return {value}
    return {root for read in op.reads for root in _roots(program, read)}
