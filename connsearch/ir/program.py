"""Program: a network as a list of operations in single assignment form, which passes rewrite.

Value %0 is the image; operation k defines value %k. An operation does one *step* as lowered (a convolution,
a norm, an aggregation, ...), several once passes have fused them. A program holds no parameters: a step
names the module that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from connsearch.registry import Ref
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.ops import Op as Primitive, Shape


class Aggregate(NamedTuple):
    """Several values become one, by the aggregation of that reference.

    Attributes:
        ref: The aggregation.
        slots: For a routed one, per source: which operand holds its gates and which column of them weighs
            it, or None for a weight of one. Empty otherwise. Operands with gates come after the sources.
        drops: Per source, what training does to it at random, or None; empty if nothing is done.
    """

    ref: Ref
    slots: tuple[tuple[int, int] | None, ...] = ()
    drops: tuple[EdgeDrop | None, ...] = ()
    op: Literal["aggregate"] = "aggregate"

    @property
    def n_gates(self) -> int:
        """How many operands hold gates."""
        return len({slot[0] for slot in self.slots if slot is not None})


class Scale(NamedTuple):
    """Every element times a constant."""

    factor: float
    op: Literal["scale"] = "scale"


class Share(NamedTuple):
    """The value, made ready for several fused readers; always the last step.

    Its gradient is gathered from all of them at once. stats: mean and variance of each channel are computed
    once, for all of them.
    """

    stats: bool = False
    op: Literal["share"] = "share"


What = Primitive | Aggregate | Scale | Share


class Step(NamedTuple):
    """One thing that is done.

    Attributes:
        what: What.
        at: Path of the module in the network that does it and holds its parameters; "" if none does.
    """

    what: What
    at: str = ""


@dataclass(frozen=True)
class Op:
    """Steps, one after the other, on what an operation reads.

    Attributes:
        steps: The first reads the operands, each later one what the step before gave out.
        reads: The values it reads: the sources of an aggregation oldest first, then gates.
        shape: What it gives out for one image.
    """

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    shape: Shape

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the sort of each step: `conv`, `norm`, `aggregate`, ..."""
        return tuple(step.what.op for step in self.steps)

    @property
    def aggregate(self) -> Aggregate | None:
        """The aggregation that it starts with, if it does."""
        what = self.steps[0].what
        return what if isinstance(what, Aggregate) else None

    @property
    def sources(self) -> tuple[int, ...]:
        """The values it reads, gates apart."""
        found = self.aggregate
        return self.reads[: len(self.reads) - found.n_gates] if found else self.reads

    @property
    def shared(self) -> Share | None:
        """How its value is made ready for fused readers, if it is."""
        what = self.steps[-1].what
        return what if isinstance(what, Share) else None


@dataclass(frozen=True)
class Program:
    """A network's forward pass.

    Attributes:
        name: The network's.
        image: Shape of one image.
        ops: Operation k - 1 of these defines %k.
        outputs: Name and value of each head, the network's own last.
        n_columns: Number of parallel columns, of which drop-path may draw one.
    """

    name: str
    image: Shape
    ops: tuple[Op, ...]
    outputs: tuple[tuple[str, int], ...]
    n_columns: int = 1

    def __str__(self) -> str:
        from connsearch.ir.text import to_text

        return to_text(self)

    def shape(self, value: int) -> Shape:
        """Return the shape of a value for one image."""
        return self.ops[value - 1].shape if value else self.image

    def op(self, value: int) -> Op:
        """Return the operation that defines a value other than the image."""
        return self.ops[value - 1]

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each value, the values whose operations read it, ascending."""
        found: list[list[int]] = [[] for _ in range(len(self.ops) + 1)]
        for value, op in enumerate(self.ops, start=1):
            for read in dict.fromkeys(op.reads):
                found[read].append(value)
        return tuple(map(tuple, found))

    @property
    def kept(self) -> frozenset[int]:
        """The values that the program gives out."""
        return frozenset(value for _, value in self.outputs)


def renumbered(program: Program, ops: Sequence[tuple[int, Op]]) -> Program:
    """Return a program of other operations, each with the number by which reads know its value.

    Operations come in their new order; numbers may be any, if they are distinct and not 0.
    """
    new = {0: 0} | {old: value for value, (old, _) in enumerate(ops, start=1)}
    return Program(
        program.name,
        program.image,
        tuple(Op(op.steps, tuple(new[read] for read in op.reads), op.shape) for _, op in ops),
        tuple((name, new[value]) for name, value in program.outputs),
        program.n_columns,
    )
