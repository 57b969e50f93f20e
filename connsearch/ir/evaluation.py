"""How many elements evaluation moves between memory and processor: nothing is kept, norms are constants.

Counted are elements of one image, as in `connsearch.ir.traffic`. As defined, the forward pass moves what
that of training does, but that a norm reads once what it normalises: its statistics are there. A program of
the pipeline "inference" runs each operation in one loop: it reads its operands once and writes its value
once, whatever its steps are; attention and gated sums run as defined. That is what kernels for float32 on a
CPU do. In other types, and on other devices, what a 1x1 convolution is to make of a sum or a concatenation
while it reads it is written first, and read again: two maps more, which are not counted.
"""

from __future__ import annotations

from connsearch.ir.passes.glue import is_normalized
from connsearch.ir.program import Op, Program
from connsearch.ir.traffic import op_traffic
from connsearch.spec.ops import Attention, Norm, Slice, Softmax, Subsample, is_batch_norm


def moved_in_evaluation(program: Program, *, folded: bool) -> int:
    """Return the elements that evaluation moves for one image.

    Args:
        program: A lowered program, or one of the pipeline "inference".
        folded: Whether it runs on constants, as what `build` returns does without gradients; else as defined.
    """
    run = _folded if folded else _defined
    return sum(run(program, value, op) for value, op in enumerate(program.ops, start=1))


def _defined(program: Program, value: int, op: Op) -> int:
    forward = op_traffic(program, value).forward
    if is_normalized(op):
        return forward - len(op.sources) * op.shape.size
    return forward - op.shape.size if is_batch_norm(op.steps[0].what) else forward


def _folded(program: Program, value: int, op: Op) -> int:
    what, y = op.steps[0].what, op.shape.size
    gated = op.aggregate is not None and op.aggregate.ref.name == "gated"
    if gated or isinstance(what, Attention | Softmax | Slice | Subsample):
        return op_traffic(program, value).forward
    if isinstance(what, Norm) and not is_batch_norm(what):
        return op_traffic(program, value).forward
    return sum(program.shape(source).size for source in op.sources) + y
