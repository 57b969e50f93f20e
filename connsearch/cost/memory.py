"""Activation memory: a walk over the plan that keeps count of which tensors are alive.

Sizes are scalars for one image. The walk is the order in which `connsearch.nn.Network` executes:
aggregate, release what no later node reads, then the operations one by one, then the gates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from connsearch.cost.symbolic import Monomial, Number, Poly
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Footprint
from connsearch.spec.ops import (
    Act,
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
from connsearch.spec.resolve import NetworkPlan, NodePlan, rule_of


class LineMemory(NamedTuple):
    """Memory of a straight line of operations, in scalars.

    Attributes:
        read: Its input.
        written: Its output.
        first: What the first operation allocates; lives together with the line's input.
        later: Input and all that it allocates, of each later operation, the most only where that is known.
        saved: Kept for backward, the line's input and output apart.
        saves_input: Whether the line's input is kept.
        saves_output: Whether the line's output is kept, whoever reads it.
    """

    read: int
    written: int
    first: int
    later: tuple[int, ...]
    saved: int
    saves_input: bool
    saves_output: bool


@entry_cache
def line_memory(ops: Chain, shape: Shape) -> LineMemory:
    """Return the memory of a line of operations on an input of the given shape."""
    read = shape.size
    if not ops:
        return LineMemory(read, read, 0, (), 0, saves_input=False, saves_output=False)
    sizes, besides = [], []
    for op in ops:
        shape = output_shape(op, shape)
        sizes.append(shape.size)
        besides.append(_beside(op, shape))
    saved = [*besides]
    for before, after, size in zip(ops, ops[1:], sizes, strict=False):
        if _saves_output(before) or _saves_input(after):
            saved.append(size)
    allocated = zip(sizes, sizes[1:], besides[1:], strict=False)
    later = maximal(before + after + beside for before, after, beside in allocated)
    first = sizes[0] + besides[0]
    return LineMemory(
        read, sizes[-1], first, tuple(later), sum(saved), _saves_input(ops[0]), _saves_output(ops[-1])
    )


def _beside(op: Op, after: Shape) -> Any:
    """Return what an operation allocates beside its output and keeps for backward, for each image."""
    if isinstance(op, Pool) and op.kind == "max":
        return 2 * after.size  # the positions of the maxima, 8 bytes each
    if isinstance(op, Norm) and op.kind in ("layer", "instance"):
        return 2 * op.channels if op.kind == "instance" else 2  # mean and deviation
    return 0


def _saves_input(op: Op) -> bool:
    """Return whether torch keeps an operation's input for its backward."""
    kept = isinstance(op, Conv | DepthwiseConv | Deconv | Norm | Pool | Linear)
    return kept or (isinstance(op, Act) and op.kind != "relu")


def _saves_output(op: Op) -> bool:
    return isinstance(op, Softmax) or (isinstance(op, Act) and op.kind == "relu")


def maximal(sizes: Iterable[Any]) -> list[Any]:
    """Return the greatest integer; of polynomials, those that no other exceeds in every coefficient."""
    sizes = list(sizes)
    if set(map(type, sizes)) <= {int}:
        return [max(sizes)] if sizes else []
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
    held = [
        line.written + n_gates(n) if n.gates else line.written
        for n, line in zip(plan.nodes, lines, strict=True)
    ]
    alive = plan.image.size  # the image, and outputs and gates that a later node reads
    moments = []
    for node, line, footprint, released, holds in zip(
        plan.nodes, lines, footprints, _released(plan), held, strict=True
    ):
        if footprint is not None:
            moments.append(alive + line.read * (1 + footprint.temporaries))
        for source in released:
            alive = alive - held[source]
        if released or footprint is not None:  # nothing else keeps the operations' input alive
            moments.append(alive + line.read + line.first)
        else:
            moments.append(alive + line.first)
        for pair in line.later:
            moments.append(alive + pair)
        alive = alive + holds
        if node.gates:
            gates = line_memory(node.gates, node.out_shape)
            without = alive - n_gates(node)
            moments += [without + gates.first, *(without + pair for pair in gates.later)]
    return maximal(moments)


def _training_scalars(
    plan: NetworkPlan, lines: Sequence[LineMemory], footprints: Sequence[Footprint | None]
) -> int:
    keeps_output = [line.saves_output for line in lines]
    parts = [line.saved for line in lines]
    keeps_image = False
    for node, line, footprint in zip(plan.nodes, lines, footprints, strict=True):
        if node.gates:
            parts += [line_memory(node.gates, node.out_shape).saved, n_gates(node)]
        if not node.sources:
            keeps_image = keeps_image or line.saves_input
        elif footprint is None:
            keeps_output[node.sources[0]] |= line.saves_input
        else:
            parts.append(line.read * (footprint.saved + line.saves_input))
            if footprint.saves_sources:
                for source, slot in zip(node.sources, node.slots or node.sources, strict=True):
                    if slot is not None:
                        keeps_output[source] = True
    parts += [line.written for line, keeps in zip(lines, keeps_output, strict=True) if keeps]
    return sum([*parts, plan.image.size if keeps_image else 0])


@entry_cache
def _footprint(ref: Ref, n: int) -> Footprint:
    return rule_of(ref).footprint(n)


def n_gates(node: NodePlan) -> int:
    """Return how many gates a node with gates computes."""
    return next(op.out_features for op in reversed(node.gates) if isinstance(op, Linear))


def _released(plan: NetworkPlan) -> list[list[int]]:
    """Return, for each node, the sources that it is the last to read."""
    last = {source: index for index, node in enumerate(plan.nodes) for source in node.sources}
    found: list[list[int]] = [[] for _ in plan.nodes]
    for source, reader in last.items():
        found[reader].append(source)
    return found
