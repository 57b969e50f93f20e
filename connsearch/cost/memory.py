"""Activation memory: a walk over the plan that keeps count of which tensors are alive.

Sizes are scalars for one image. The walk is the order in which `connsearch.nn.Network` executes:
aggregate, release what no later node reads, then the operations one by one, then the gates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from connsearch.cost.symbolic import Monomial, Number, Poly
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Footprint, rule_of
from connsearch.spec.ops import (
    Act,
    Attention,
    Chain,
    Conv,
    Deconv,
    DepthwiseConv,
    Linear,
    Norm,
    Op,
    Pool,
    Shape,
    Softmax,
    output_shape,
)
from connsearch.spec.plan import NetworkPlan, NodePlan


class LineMemory(NamedTuple):
    """Memory of a straight line of operations, in scalars.

    Attributes:
        read: Its input.
        written: Its output.
        first: What the first operation allocates, at each of its moments; lives with the line's input.
        later: Input and all that it allocates, at each moment of later operations, the most only where
            that is known.
        saved: Kept for backward, the line's input and output apart.
        saves_input: Whether the line's input is kept.
        saves_output: Whether the line's output is kept, whoever reads it.
    """

    read: int
    written: int
    first: tuple[int, ...]
    later: tuple[int, ...]
    saved: int
    saves_input: bool
    saves_output: bool


@entry_cache
def line_memory(ops: Chain, shape: Shape) -> LineMemory:
    """Return the memory of a line of operations on an input of the given shape."""
    read = shape.size
    if not ops:
        return LineMemory(read, read, (0,), (), 0, saves_input=False, saves_output=False)
    sizes, moments, saved = [], [], []
    for op in ops:
        shape = output_shape(op, shape)
        size, beside = shape.size, _beside(op, shape)
        sizes.append(size)
        moments.append(_allocated(op, size, beside))
        saved.append(beside)
    for before, after, size in zip(ops, ops[1:], sizes, strict=False):
        if _saves_output(before) or _saves_input(after):
            saved.append(size)
    later = [size + more for size, allocated in zip(sizes, moments[1:], strict=False) for more in allocated]
    return LineMemory(
        read,
        sizes[-1],
        tuple(maximal(moments[0])),
        tuple(maximal(later)),
        sum(saved),
        _saves_input(ops[0]),
        _saves_output(ops[-1]),
    )


def _beside(op: Op, after: Shape) -> Any:
    """Return what an operation allocates beside its output and keeps for backward, for each image."""
    if isinstance(op, Norm):
        if op.kind == "channel":
            return 2 * (after.height * after.width)  # mean and deviation
        return {"layer": 2, "instance": 2 * op.channels}.get(op.kind, 0)
    if isinstance(op, Pool) and op.kind == "max":
        return 2 * after.size  # the positions of the maxima, 8 bytes each
    if isinstance(op, Attention):
        return op.heads * (after.height * after.width) ** 2  # a weight for each pair of pixels
    return 0


def _allocated(op: Op, size: int, beside: int) -> list[int]:
    """Return all that an operation has allocated for each image, at the moments when that may be most."""
    if isinstance(op, Norm) and op.kind == "channel":  # what is normalised, then a copy in order of channels
        return [size + beside, 2 * size]
    if isinstance(op, Attention):  # the scores go when the weights are made of them, before the output
        return [size + beside, 2 * beside]
    return [size + beside]


def _saves_input(op: Op) -> bool:
    """Return whether torch keeps an operation's input for its backward."""
    return isinstance(op, _READ_BY_BACKWARD) or (isinstance(op, Act) and op.kind != "relu")


def _saves_output(op: Op) -> bool:
    return (isinstance(op, Act) and op.kind == "relu") or isinstance(op, Softmax)


_READ_BY_BACKWARD = (Conv, DepthwiseConv, Deconv, Norm, Pool, Linear, Attention)


def maximal(sizes: Iterable[Any]) -> list[Any]:
    """Return the greatest integer; of polynomials, those that no other exceeds in every coefficient."""
    sizes = list(sizes)
    if len(sizes) < 2:
        return sizes
    if set(map(type, sizes)) == {int}:
        return [max(sizes)]
    tables: list[tuple[Any, dict[Monomial, Number]]] = [
        (size, size.terms if isinstance(size, Poly) else {(): size}) for size in set(sizes)
    ]
    tables.sort(key=lambda item: sum(item[1].values()), reverse=True)
    kept: list[tuple[Any, dict[Monomial, Number]]] = []
    for size, terms in tables:
        if not any(all(other.get(m, 0) >= n for m, n in terms.items()) for _, other in kept):
            kept.append((size, terms))
    return [size for size, _ in kept]


class ActivationMemory(NamedTuple):
    """Activations of one image, in scalars.

    Attributes:
        peaks: The most alive at once in evaluation, the image included throughout. With symbols for
            channels, several sums of which the greatest is the peak.
        training: Kept by autograd at the end of a forward pass in training.
    """

    peaks: list[Any]
    training: int


def activation_memory(plan: NetworkPlan) -> ActivationMemory:
    """Return the memory of activations in evaluation and in training."""
    lines = plan.per_line(line_memory)
    prints = [
        None if node.aggregation is None else _footprint(node.aggregation, len(node.sources))
        for node in plan.nodes
    ]
    return ActivationMemory(_inference_peaks(plan, lines, prints), _training_scalars(plan, lines, prints))


def _inference_peaks(
    plan: NetworkPlan, lines: Sequence[LineMemory], footprints: Sequence[Footprint | None]
) -> list[Any]:
    alive = plan.image.size  # the image, and outputs and gates that a later node reads
    moments = []
    held = [line.written for line in lines]
    bare_stem = not plan.nodes[0].chain
    if bare_stem:  # it gives out the image, which is held anyway
        held[0] = 0
    for node, line, footprint, released, released_gates, holds in zip(
        plan.nodes, lines, footprints, plan.graph.released, plan.released_gates(), held, strict=True
    ):
        if footprint is not None:
            temporaries = footprint.temporaries + (_n_scaled(node) if node.drops else 0)
            moments.append(alive + line.read * (1 + temporaries))
        for source in released:
            alive = alive - held[source]
        for owner in released_gates:
            alive = alive - n_gates(plan.nodes[owner])
        read = alive  # with the operations' input, where only they keep it alive
        if footprint is not None or (released and not (bare_stem and released[0] == 0)):
            read = alive + line.read
        for first in line.first:
            moments.append(read + first)
        for later in line.later:
            moments.append(alive + later)
        alive = alive + holds
        if node.gates:
            gates = line_memory(node.gates, node.out_shape)
            moments += [alive + more for more in (*gates.first, *gates.later)]
            alive = alive + n_gates(node)
    return maximal(moments)


def _training_scalars(
    plan: NetworkPlan, lines: Sequence[LineMemory], footprints: Sequence[Footprint | None]
) -> int:
    kept = {index for index, line in enumerate(lines) if line.saves_output}  # nodes whose output is kept
    parts = [line.saved for line in lines]
    for node, line, footprint in zip(plan.nodes, lines, footprints, strict=True):
        if node.gates:
            parts += [line_memory(node.gates, node.out_shape).saved, n_gates(node)]
        if footprint is not None:
            saved = footprint.saved + line.saves_input + (_n_masks(node) if node.drops else 0)
            if saved:
                parts.append(line.read * saved)
            if footprint.saves_sources:
                kept.update(_weighted(node) if node.slots else node.sources)
        elif line.saves_input:
            if node.sources:
                kept.add(node.sources[0])
            else:
                parts.append(plan.image.size)
    parts += [line.written for index, line in enumerate(lines) if index in kept]
    return sum(parts)


def _weighted(node: NodePlan) -> list[int]:
    """Return the sources that have a gate."""
    return [source for source, slot in zip(node.sources, node.slots, strict=True) if slot is not None]


@entry_cache
def _footprint(ref: Ref, n: int) -> Footprint:
    return rule_of(ref).footprint(n)


def _n_scaled(node: NodePlan) -> int:
    """Return how many sources evaluation scales before they are added."""
    return sum(drop is not None and drop.kind != "path" and drop.survival != 1 for drop in node.drops)


def _n_masks(node: NodePlan) -> int:
    """Return how many masks of elements training draws."""
    return sum(drop is not None and drop.kind == "element" and drop.survival != 1 for drop in node.drops)


def n_gates(node: NodePlan) -> int:
    """Return how many gates a node with gates computes."""
    return next(op.out_features for op in reversed(node.gates) if isinstance(op, Linear))
