"""Small programs for tests, and what they compute without torch."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

from hypothesis import strategies as st

from connsearch.ir import Op, Program, Step, lower
from connsearch.ir.passes.eliminate_concat import eliminate_concat
from connsearch.ir.passes.fuse_epilogues import fuse_epilogues
from connsearch.ir.passes.fuse_norm_act import fuse_norm_act
from connsearch.ir.passes.glue import norms_concat
from connsearch.ir.passes.partial_sums import partial_sums
from connsearch.ir.passes.pull_backward import pull_backward
from connsearch.ir.passes.recompute import recompute
from connsearch.ir.passes.share_statistics import share_statistics
from connsearch.ir.program import Aggregate, Scale
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Conv, GlobalPool, Linear, Shape
from connsearch.spec.presets import list_presets, preset
from strategies import FAMILIES, families, specs

TRAINING = {  # the passes of training, in their order
    rewrite.__name__: rewrite
    for rewrite in (
        partial_sums,
        fuse_norm_act,
        fuse_epilogues,
        eliminate_concat,
        recompute,
        share_statistics,
        pull_backward,
    )
}
Combination = tuple[tuple[int, Fraction], ...]


def dropping_network() -> st.SearchStrategy[NetworkSpec]:
    """Draw a specification in which training may drop sources."""
    return specs(drops=True)


def any_network() -> st.SearchStrategy[NetworkSpec]:
    """Draw a specification, of a family that gives its graph as often as not."""
    return st.one_of(specs(), st.sampled_from(sorted(FAMILIES)).flatmap(families))


@cache
def small_presets() -> tuple[Program, ...]:
    """Return the programs of all presets of up to 150 operations."""
    found = (lower(preset(name)) for name in list_presets())
    return tuple(program for program in found if len(program.ops) <= 150)


def network(topology: str, aggregation: str, n_layers: int = 3, **block: Any) -> NetworkSpec:
    """Return a network of one block of 4 channels on 8 x 8 pixels."""
    return NetworkSpec(
        name=f"{topology} {aggregation}",
        input={"channels": 3, "height": 8, "width": 8},
        n_classes=5,
        blocks=[{"topology": topology, "aggregation": aggregation, "n_layers": n_layers, "width": 4} | block],
    )


def sums(n_atoms: int, joins: Sequence[tuple[str, Sequence[int]]], *, kept: Sequence[int] = ()) -> Program:
    """Return a program that makes some maps, joins them, and reads every join twice and all in the end.

    Args:
        n_atoms: Values %1 .. %n are convolutions of the image.
        joins: Aggregation and reads of each further value, in order.
        kept: Values that are given out themselves.
    """
    shape = Shape(4, 8, 8)
    ops = [Op((Step(Conv(3, 4), f"atom{i}.conv"),), (0,), shape) for i in range(1, n_atoms + 1)]
    for i, (name, reads) in enumerate(joins):
        ops.append(Op((Step(Aggregate(Ref(name)), f"join{i}.aggregation"),), tuple(reads), shape))
    values = range(1, len(ops) + 1)
    ops.append(
        Op((Step(Aggregate(Ref("concat")), "head.aggregation"),), tuple(values), Shape(4 * len(ops), 8, 8))
    )
    ops.append(Op((Step(GlobalPool(), "head.pool1"),), (len(ops),), Shape(4 * len(values), 1, 1)))
    ops.append(Op((Step(Linear(4 * len(values), 2), "head.linear1"),), (len(ops),), Shape(2, 1, 1)))
    outputs = [(f"out{value}", value) for value in kept]
    return Program("sums", Shape(3, 8, 8), tuple(ops), (*outputs, ("head", len(ops))))


def same(one: Program, other: Program) -> bool:
    """Return whether two programs compute the same, rounding apart."""
    atoms: dict[object, int] = {}
    return _computed(one, atoms) == _computed(other, atoms)


def _computed(program: Program, atoms: dict[object, int]) -> list[tuple[str, Combination]]:
    """Return each output as a linear combination of what is not added, scaled or averaged.

    Args:
        program: The program.
        atoms: A number for each operation on values that is none of these, filled in here.
    """
    values: list[Combination] = [((-1, Fraction(1)),)]
    for op in program.ops:
        values.append(_combined(op, [values[read] for read in op.reads], atoms))
    return [(name, values[value]) for name, value in program.outputs]


def _combined(op: Op, reads: list[Combination], atoms: dict[object, int]) -> Combination:
    what = op.steps[0].what
    if isinstance(what, Scale):
        return _weighed(reads, Fraction(what.factor).limit_denominator(1000))
    if isinstance(what, Aggregate) and what.ref.name in ("sum", "mean") and len(op.steps) == 1:
        return _weighed(reads, Fraction(1, len(reads) if what.ref.name == "mean" else 1))
    return ((atoms.setdefault((op.steps, tuple(reads)), len(atoms)), Fraction(1)),)


def _weighed(reads: list[Combination], weight: Fraction) -> Combination:
    total: dict[int, Fraction] = {}
    for read in reads:
        for atom, factor in read:
            total[atom] = total.get(atom, Fraction(0)) + weight * factor
    return tuple(sorted(total.items()))


def read_once(program: Program) -> int:
    """Return the elements of the sources that one norm of a concatenation reads."""
    reads = [source for op in program.ops if norms_concat(op) for source in op.sources]
    return sum(program.shape(source).size for source in set(reads) if reads.count(source) == 1)


def n_additions(program: Program) -> int:
    """Return how many maps are added to others."""
    names = ("sum", "mean")
    found = [op for op in program.ops if op.aggregate is not None and op.aggregate.ref.name in names]
    return sum(len(op.sources) - 1 for op in found)
