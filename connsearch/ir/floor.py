"""The least that a network moves between memory and processor: what `bytes_moved` could come down to.

Counted are elements of one image, as in `connsearch.ir.traffic`. What a norm, an activation, a scaling, a
table of positions or a concatenation gives out is made where it is read, and moves nothing. Any other
operation is one loop over memory: it reads each of its sources once and writes its value once.

In the backward pass an operation reads the gradient of its value once, a value is read once more if
gradients need it, and its gradient is written once. A reader's gradient serves all its sources and a
source's all its readers, so that one pair of each costs nothing more. For every further pair the reader's
gradient is read again (pulled), or the source's so far is read and written (pushed), whichever is less. Plain
sums hand their gradient on.

Sums are built from each other first. In evaluation norms are constants: a sum that one operation alone reads,
weighted or not, is made where it is read, and pixels are averaged before a 1x1 convolution, not after it. A
convolution that is glued to another one, or to a pool or a sum after it, could move less still, and so could
sums that are made together, in one pass over the sources that they share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from connsearch.ir.passes.partial_sums import partial_sums
from connsearch.ir.passes.pool_first import pool_first
from connsearch.ir.program import Aggregate, Op, Program, Scale
from connsearch.spec.ops import Act, Conv, Deconv, DepthwiseConv, Linear, Norm, Position, Slice, Subsample

UNWEIGHTED = ("sum", "mean", "gated", "routed")  # of one source they are the source, or a gate times it
SUMS = ("sum", "mean", "weighted", "depthwise", "routed")
Roots = dict[int, bool]  # values that something is made of, and whether gradients need them


def least_moved(program: Program, *, training: bool = True) -> int:
    """Return the elements that a training step moves for one image at the least, or evaluation.

    Args:
        program: A lowered program.
        training: Whether there is a backward pass.
    """
    program = partial_sums(program) if training else pool_first(partial_sums(program))
    values = range(1, len(program.ops) + 1)
    passing = {v for v in values if _in_passing(program.op(v))}
    if not training:
        passing |= {v for v in values if _adds(program.op(v)) and _is_read_once(program, v, passing)}
    operands = {v: _operands(program, program.op(v), passing) for v in values if v not in passing}
    forward = sum(_forward(program, value, roots) for value, roots in operands.items())
    return forward + (_backward(program, operands) if training else 0)


def _in_passing(op: Op) -> bool:
    """Return whether what an operation gives out is made where it is read."""
    what = op.steps[0].what
    if isinstance(what, Aggregate):
        return what.ref.name == "concat" or (len(op.sources) == 1 and what.ref.name in UNWEIGHTED)
    return isinstance(what, Norm | Act | Scale | Position)


def _adds(op: Op) -> bool:
    return op.aggregate is not None and op.aggregate.ref.name in SUMS


def _is_read_once(program: Program, value: int, passing: set[int]) -> bool:
    """Return whether one operation alone reads a value, by way of what is made in passing."""
    while len(program.readers[value]) == 1 and value not in program.kept:
        (value,) = program.readers[value]
        if value not in passing:
            return True
    return False


def _operands(program: Program, op: Op, passing: set[int]) -> Roots:
    """Return what an operation reads from memory."""
    what = op.steps[0].what
    weighs = isinstance(what, Conv | DepthwiseConv | Deconv | Linear) or (
        isinstance(what, Aggregate) and what.ref.name in ("depthwise", "weighted")
    )
    return _merged((_roots(program, source, passing) for source in op.sources), needed=weighs)


def _roots(program: Program, value: int, passing: set[int]) -> Roots:
    if value not in passing:
        return {value: False}
    op = program.op(value)
    needed = isinstance(op.steps[0].what, Norm | Act)
    return _merged((_roots(program, source, passing) for source in op.sources), needed=needed)


def _merged(parts: Iterable[Roots], *, needed: bool) -> Roots:
    found: Roots = {}
    for part in parts:
        for root, before in part.items():
            found[root] = found.get(root, False) or before or needed
    return found


def _forward(program: Program, value: int, operands: Roots) -> int:
    what, y = program.op(value).steps[0].what, program.shape(value).size
    if isinstance(what, Slice):
        return 2 * y
    if isinstance(what, Subsample):
        return y * what.in_channels // what.out_channels + y
    return sum(program.shape(root).size for root in operands) + y


def _backward(program: Program, operands: dict[int, Roots]) -> int:
    """Return what the backward pass moves.

    Args:
        program: The program.
        operands: Of each value that is written, what is read for it.
    """
    size = [program.shape(value).size for value in range(len(program.ops) + 1)]
    read_again = {root for roots in operands.values() for root, needed in roots.items() if needed}
    readers: defaultdict[int, list[int]] = defaultdict(list)
    for reader, roots in operands.items():
        for root in roots:
            readers[root].append(reader)
    readers.pop(0, None)  # the image has no gradient
    hand_on = {value for value in operands if _hands_on(program.op(value))}
    gradients_read = sum(size[value] for value in operands if value not in hand_on)
    written = sum(size[v] for v, found in readers.items() if len(found) > 1 or found[0] not in hand_on)
    return gradients_read + written + sum(size[value] for value in read_again) + _further_pairs(readers, size)


def _hands_on(op: Op) -> bool:
    what = op.steps[0].what
    return isinstance(what, Aggregate) and what.ref.name in ("sum", "mean")


def _further_pairs(readers: dict[int, list[int]], size: list[int]) -> int:
    """Return what sources with several readers of several sources move more than each gradient once."""
    by_source: defaultdict[int, list[int]] = defaultdict(list)
    by_reader: defaultdict[int, list[int]] = defaultdict(list)
    for source, found in readers.items():
        for reader in found:
            cost = min(size[reader], 2 * size[source])
            by_source[source].append(cost)
            by_reader[reader].append(cost)
    free = sum(max(costs) for costs in (*by_source.values(), *by_reader.values()))
    return max(0, sum(sum(costs) for costs in by_source.values()) - free)
