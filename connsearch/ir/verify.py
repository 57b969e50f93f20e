"""What a valid program is: every rule that passes must keep, checked after each of them."""

from __future__ import annotations

from collections.abc import Sequence

from connsearch.errors import VerifyError
from connsearch.ir.passes.glue import is_normalized, norms_concat
from connsearch.ir.program import Aggregate, Op, Program, Scale, Share, What
from connsearch.ir.text import op_text
from connsearch.spec.aggregations import rule_of
from connsearch.spec.ops import (
    Act,
    Attention,
    Conv,
    Deconv,
    DepthwiseConv,
    Linear,
    Norm,
    Position,
    Shape,
    Slice,
    Subsample,
    output_shape,
)

FUSED_ORDER = ("aggregate", "norm", "act", "conv", "share")  # in which the steps of one operation may follow
FOLDED = ("norm", "act")  # what a convolution may do in inference after itself, in this order
CONVOLUTIONS = ("conv", "depthwise_conv")


def verify(program: Program, *, after: str = "lower") -> Program:
    """Return the program itself, if it is valid.

    Args:
        program: What a stage made.
        after: The stage, for the message.

    Raises:
        VerifyError: naming the stage and the operation at fault.
    """
    for value, op in enumerate(program.ops, start=1):
        wrong = _wrong(program, value, op)
        if wrong:
            raise VerifyError(f"after {after}: %{value}: {op_text(op)}: {wrong}")
    if not program.outputs:
        raise VerifyError(f"after {after}: the program gives nothing out")
    for name, value in program.outputs:
        if not 0 <= value <= len(program.ops):
            raise VerifyError(f"after {after}: output {name!r} is %{value}, which nothing defines")
    for value in range(1, len(program.ops) + 1):
        if not program.readers[value] and value not in program.kept:
            raise VerifyError(f"after {after}: nothing reads %{value}: {op_text(program.op(value))}")
    return program


def _wrong(program: Program, value: int, op: Op) -> str:
    """Return what is wrong with an operation, or ""."""
    if not op.steps or not op.reads:
        return "an operation has steps and reads values"
    late = [read for read in op.reads if not 0 <= read < value]
    if late:
        return f"it reads %{late[0]}, which is not defined before it"
    order = _wrong_order(op)
    if order:
        return order
    n_sources = len(op.sources)
    if op.aggregate is None and len(op.reads) != 1:
        return f"{op.kinds[0]} takes one input, got {len(op.reads)}"
    if op.aggregate is not None and (wrong := _wrong_aggregate(op.aggregate, n_sources, len(op.reads))):
        return wrong
    shapes = [program.shape(source) for source in op.sources]
    if op.aggregate is not None and len({shape[1:] for shape in shapes}) > 1:
        return "its sources differ in resolution"
    if wrong := _wrong_sharing(program, op):
        return wrong
    channels = [shape.channels for shape in shapes]
    if op.aggregate is not None and rule_of(op.aggregate.ref).equal_channels and len(set(channels)) > 1:
        return f"{op.aggregate.ref.label} takes sources of equal channels, got {channels}"
    shape = shapes[0]
    for step in op.steps:
        reads, shape = shape, _after(step.what, shape, shapes)
        if wrong := _wrong_channels(step.what, reads):
            return wrong
    return "" if shape == op.shape else f"its shape is {'x'.join(map(str, shape))}"


def _wrong_sharing(program: Program, op: Op) -> str:
    """Return which source an operation normalises that is shared without statistics, or ""."""
    if not (is_normalized(op) or norms_concat(op)):
        return ""
    found = [s for s in op.sources if s and (share := program.op(s).shared) is not None and not share.stats]
    return f"it normalises %{found[0]}, which is shared without statistics" if found else ""


def _wrong_order(op: Op) -> str:
    """Return why steps may not follow each other in one operation, or ""."""
    kinds = op.kinds[:-1] if op.kinds[-1] == "share" else op.kinds
    if not kinds or "share" in kinds:
        return "share is the last of several steps"
    if len(kinds) < 2:
        return ""
    kinds = _without_folded(kinds)
    if len(kinds) < 2:
        return _wrong_kind(op)
    unknown = [kind for kind in kinds if kind not in FUSED_ORDER]
    if unknown:
        return f"{unknown[0]} is fused with nothing"
    if not _in_order(kinds, FUSED_ORDER):
        return f"steps go in the order {', '.join(FUSED_ORDER)}, each once"
    if "norm" not in kinds:
        return f"{' and '.join(kinds)} are fused with a norm between them only"
    return _wrong_kind(op)


def _without_folded(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return kinds of steps up to a convolution, if what follows it may be folded into it."""
    places = [place for place, kind in enumerate(kinds, start=1) if kind in CONVOLUTIONS]
    return kinds[: places[0]] if places and _in_order(kinds[places[0] :], FOLDED) else kinds


def _in_order(kinds: Sequence[str], order: Sequence[str]) -> bool:
    """Return whether steps of these kinds follow an order, each of it at most once."""
    places = [order.index(kind) for kind in kinds if kind in order]
    return len(places) == len(kinds) and sorted(set(places)) == places


def _wrong_kind(op: Op) -> str:
    """Return why a norm or an activation is not one that is fused, or ""."""
    wrong = [
        s.what for s in op.steps if isinstance(s.what, Norm | Act) and s.what.kind not in ("batch", "relu")
    ]
    return f"{wrong[0].op}({wrong[0].kind!r}) is fused with nothing" if wrong else ""


def _wrong_aggregate(what: Aggregate, n_sources: int, n_reads: int) -> str:
    if n_sources < 1 or not (n_sources > 1 or rule_of(what.ref).applies(n_sources)):
        return f"{what.ref.label} does not apply to {n_sources} sources"
    for name, given in (("slots", what.slots), ("drops", what.drops)):
        if given and len(given) != n_sources:
            return f"{what.ref.label} has {len(given)} {name} for {n_sources} sources"
    operands = {slot[0] for slot in what.slots if slot is not None}
    if operands and operands != set(range(n_sources, n_reads)):
        return f"its gates are operands {n_sources} to {n_reads - 1}, but slots name {sorted(operands)}"
    return ""


def _after(what: What, shape: Shape, sources: list[Shape]) -> Shape:
    """Return the shape that a step gives out."""
    if isinstance(what, Scale | Share):
        return shape
    if isinstance(what, Aggregate):
        channels = rule_of(what.ref).out_channels([source.channels for source in sources])
        return Shape(channels, shape.height, shape.width)
    return output_shape(what, shape)


def _wrong_channels(what: What, shape: Shape) -> str:
    """Return why a step cannot read a shape, or ""."""
    got, wanted = shape.channels, None
    if isinstance(what, Conv | Deconv | Subsample):
        wanted = what.in_channels
    elif isinstance(what, Norm | DepthwiseConv | Position):
        wanted = what.channels
    elif isinstance(what, Attention):
        wanted = 3 * what.channels
    elif isinstance(what, Slice) and what.stop > got:
        return f"slice takes {what.stop} channels or more, got {got}"
    elif isinstance(what, Linear) and what.in_features != shape.size:
        return f"linear takes {what.in_features} features, got {shape.size}"
    return f"{what.op} takes {wanted} channels, got {got}" if wanted not in (None, got) else ""
