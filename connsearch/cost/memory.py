"""Activation memory: a walk over the plan that keeps count of which tensors are alive.

Sizes are scalars for one image. The walk is the order in which `connsearch.nn.Network` executes:
aggregate, release what no later node reads, then the operations one by one, then the gates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from connsearch.cost.symbolic import Monomial, Number, Poly
from connsearch.registry import Ref, entry_cache
from connsearch.spec.aggregations import Footprint, rule_of
from connsearch.spec.ops import (
    Act,
    Attention,
    Conv,
    Deconv,
    DepthwiseConv,
    Linear,
    Norm,
    Op,
    Pool,
    Shape,
    Softmax,
    is_relu,
    output_shape,
)
from connsearch.spec.plan import Line, NetworkPlan, NodePlan


class LineMemory(NamedTuple):
    """Memory of a straight line of operations, in scalars.

    Attributes:
        read: Its input.
        written: Its output.
        lent: All that it has allocated, at each moment, while others keep its input alive.
        owned: The same and its input, which dies with the first operation, where only that keeps it alive.
        saved: Kept for backward, the line's input and output apart.
        saves_input: Whether the line's input is kept.
        saves_output: Whether the line's output is kept, whoever reads it.
    """

    read: int
    written: int
    lent: tuple[int, ...]
    owned: tuple[int, ...]
    saved: int
    saves_input: bool
    saves_output: bool


@entry_cache
def line_memory(line: Line) -> LineMemory:
    """Return the memory of a line of operations."""
    ops, shape, read = line.chain, line.in_shape, line.in_shape.size
    if not ops:
        return LineMemory(read, read, (0,), (read,), 0, saves_input=False, saves_output=False)
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
        tuple(maximal([*moments[0], *later])),
        tuple(maximal([*(read + first for first in moments[0]), *later])),
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
    return isinstance(op, _READ_BY_BACKWARD) or (isinstance(op, Act) and not is_relu(op))


def _saves_output(op: Op) -> bool:
    return is_relu(op) or isinstance(op, Softmax)


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
    footprints = [footprint_of(node) for node in plan.nodes]
    return ActivationMemory(
        _inference_peaks(plan, lines, footprints), _training_scalars(plan, lines, footprints)
    )


# ---- evaluation ----------------------------------------------------------------------------------------


def _inference_peaks(
    plan: NetworkPlan, lines: Sequence[LineMemory], footprints: Sequence[Footprint | None]
) -> list[Any]:
    moments = []
    written = [line.written for line in lines]
    if not plan.nodes[0].chain:  # a bare stem: it gives out the image, which is held anyway
        written[0] = 0
    maps = alive(plan.graph.released, written, plan.image.size)
    n_gates = plan.n_gates()
    gates = alive(plan.released_gates(), n_gates) if any(n_gates) else repeat((0, 0), len(n_gates))
    for node, line, footprint, released, (before, after), (gates_before, gates_after) in zip(
        plan.nodes, lines, footprints, plan.graph.released, maps, gates, strict=True
    ):
        if footprint is not None:
            joined = joining(line, footprint, _n_scaled(node) if node.drops else 0)
            moments.append(before + gates_before + joined)
        after = after + gates_after
        for allocated in line.owned if owns_input(footprint, released, written) else line.lent:
            moments.append(after + allocated)
        if node.gate_line is not None:
            moments += [after + line.written + allocated for allocated in line_memory(node.gate_line).lent]
    return maximal(moments)


def alive(
    released: Iterable[Sequence[int]], held: Sequence[Any], always: Any = 0
) -> Iterator[tuple[Any, Any]]:
    """Yield what earlier nodes hold when a node starts, and once it has released what none will read again.

    Args:
        released: For each node, those that it is the last to read.
        held: What each node's output takes.
        always: What is held throughout.
    """
    total = always
    for last_read, own in zip(released, held, strict=True):
        before = total
        for node in last_read:
            total = total - held[node]
        yield before, total
        total = total + own


def owns_input(footprint: Footprint | None, released: Sequence[int], held: Sequence[Any]) -> bool:
    """Return whether a node's operations alone keep their input alive: it was joined, or is read no more."""
    return footprint is not None or (bool(released) and held[released[0]] != 0)


def joining(line: LineMemory, footprint: Footprint, n_scaled: int = 0) -> Any:
    """Return what an aggregation has allocated at the most, beside its sources."""
    return line.read * (1 + footprint.temporaries + n_scaled)


# ---- training ------------------------------------------------------------------------------------------


def _training_scalars(
    plan: NetworkPlan, lines: Sequence[LineMemory], footprints: Sequence[Footprint | None]
) -> int:
    kept = {index for index, line in enumerate(lines) if line.saves_output}  # nodes whose output is kept
    parts = [plan.image.size] if lines[0].saves_input else []
    for node, line, footprint in zip(plan.nodes, lines, footprints, strict=True):
        parts.append(saved(line, footprint, _n_masks(node) if node.drops else 0))
        if node.gate_line is not None:
            parts.append(gates_saved(node.gate_line))
        if keeps_sources(line, footprint):
            kept.update(weighted_sources(node))
    parts += [lines[index].written for index in kept]
    return sum(parts)


def saved(line: LineMemory, footprint: Footprint | None, n_masks: int = 0) -> Any:
    """Return what a node keeps for backward beside its sources and its output."""
    if footprint is None:
        return line.saved
    return line.saved + line.read * (footprint.saved + line.saves_input + n_masks)


def gates_saved(line: Line) -> Any:
    """Return what a node's gates keep for backward."""
    return line_memory(line).saved + line.out_shape.size


def keeps_sources(line: LineMemory, footprint: Footprint | None) -> bool:
    """Return whether a node needs what it reads for backward."""
    return line.saves_input if footprint is None else footprint.saves_sources


def weighted_sources(node: NodePlan) -> Sequence[int]:
    """Return the sources of a node, but those that a routed aggregation takes without a gate."""
    if not node.slots:
        return node.sources
    return [source for source, slot in zip(node.sources, node.slots, strict=True) if slot is not None]


def footprint_of(node: NodePlan) -> Footprint | None:
    """Return the memory of a node's aggregation, or None if it has none."""
    return None if node.aggregation is None else _footprint(node.aggregation, len(node.sources))


@entry_cache
def _footprint(ref: Ref, n: int) -> Footprint:
    return rule_of(ref).footprint(n)


def _n_scaled(node: NodePlan) -> int:
    """Return how many sources evaluation scales before they are added."""
    return sum(drop is not None and drop.kind != "path" and drop.survival != 1 for drop in node.drops)


def _n_masks(node: NodePlan) -> int:
    """Return how many masks of elements training draws."""
    return sum(drop is not None and drop.kind == "element" and drop.survival != 1 for drop in node.drops)
