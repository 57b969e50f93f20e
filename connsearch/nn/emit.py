"""Emission: from a program to Python code that runs on the modules of a network, by way of torch.fx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from connsearch.ir.passes.glue import is_fused, is_weighted, norms_concat
from connsearch.ir.program import Aggregate, Op, Program, Scale
from connsearch.nn import fused
from connsearch.nn.aggregations import add_up
from connsearch.nn.drops import Draws
from connsearch.nn.shared import constant_weights, gate_weights, share, weights_of
from connsearch.spec.drops import EdgeDrop

OWN_WEIGHTS = ("depthwise", "weighted")  # aggregations with a parameter for each source


class Emitted(NamedTuple):
    """Code and what it defines.

    Attributes:
        code: A function `forward(self, images)`, `self` being a network, in Python.
        forward: That function; returns the logits of each head.
    """

    code: str
    forward: Callable[[nn.Module, Tensor], tuple[Tensor, ...]]


def emit(program: Program) -> Emitted:
    """Return the code of a program."""
    return compiled(_Emitter(program).run(), program.name)


def compiled(graph: fx.Graph, name: str) -> Emitted:
    """Return the code of a graph; a traceback shows the name."""
    made = graph.python_code("self")
    scope: dict[str, Any] = dict(made.globals)
    exec(compile(made.src, f"<{name}>", "exec"), scope)
    return Emitted(made.src.strip(), scope["forward"])


def begin(training: bool, n_columns: int) -> Draws:
    """Return the random decisions of one forward pass."""
    return Draws(n_columns, training=training)


def weaken(
    draws: Draws, drops: tuple[EdgeDrop | None, ...], names: tuple[int, ...], sources: list[Tensor]
) -> list[Tensor]:
    """Return sources as training's drops leave them."""
    return draws.weaken(drops, names, sources)


def column(gates: Tensor, slot: int) -> Tensor:
    """Return the gate of one reader, B."""
    return gates[:, slot]


def as_maps(gate: Tensor) -> Tensor:
    """Return a gate B as B 1 1 1."""
    return gate[:, None, None, None]


class _Emitter:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.images = self.graph.placeholder("images")
        self.values: list[fx.Node] = [self.images]  # as ops that are not fused read them
        self.shared: dict[int, fx.Node] = {}  # as fused ones read them
        self.weights: dict[int, fx.Node] = {}  # of weighted sums, by their value
        self.draws: fx.Node | None = None

    def run(self) -> fx.Graph:
        for value, op in enumerate(self.program.ops, start=1):
            what = op.aggregate
            if what is not None and what.ref.name in OWN_WEIGHTS and is_fused(self.program, op):
                self.weights[value] = self._call(weights_of, self._module(op.steps[0].at))
        if any(op.aggregate is not None and op.aggregate.drops for op in self.program.ops):
            self.draws = self._call(begin, self.graph.get_attr("training"), self.program.n_columns)
        for value, op in enumerate(self.program.ops, start=1):
            found = self._op(value, op)
            if op.shared is not None:
                readers = [self.weights[r] for r in self.program.readers[value] if r in self.weights]
                found = self._call(share, found, readers, stats=op.shared.stats)
                self.shared[value] = found
                found = self._call(getattr, found, "value")
            self.values.append(found)
        self.graph.output(tuple(self.values[value] for _, value in self.program.outputs))
        return self.graph

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, args, kwargs)

    def _module(self, path: str) -> fx.Node:
        return self.graph.get_attr(path)

    def _op(self, value: int, op: Op) -> fx.Node:
        if not is_fused(self.program, op):
            return self._plain(op)
        if is_weighted(op):
            return self._weighted(value, op)
        if norms_concat(op):
            sources = [self._source(read) for read in op.reads]
            return self._call(fused.concat_layer, sources, **self._tail(op))
        return self._call(fused.layer, self.values[op.reads[0]], **self._tail(op))

    def _source(self, read: int) -> fx.Node:
        return self.shared.get(read, self.values[read])

    def _tail(self, op: Op) -> dict[str, Any]:
        """Return norm, activation and convolution of a fused operation."""
        found: dict[str, Any] = {}
        for step in op.steps:
            if step.what.op in ("norm", "act", "conv"):
                found[step.what.op] = self._module(step.at)
        return found

    def _weighted(self, value: int, op: Op) -> fx.Node:
        what = op.aggregate
        assert what is not None
        like = self.values[op.reads[0]]
        weights = self.weights.get(value)
        if what.ref.name == "routed":
            weights = self._call(gate_weights, self._gates(op, what), like)
        elif weights is None:
            n = len(op.sources)
            weights = self._call(constant_weights, n, 1 / n if what.ref.name == "mean" else 1.0, like)
        sources = [self._source(read) for read in op.sources]
        return self._call(fused.weighted_layer, sources, weights, **self._tail(op))

    def _gates(self, op: Op, what: Aggregate) -> list[fx.Node | None]:
        return [
            None if slot is None else self._call(column, self.values[op.reads[slot[0]]], slot[1])
            for slot in what.slots
        ]

    def _plain(self, op: Op) -> fx.Node:
        """Do the one step of an operation as the definition does it."""
        step, reads = op.steps[0], [self.values[read] for read in op.reads]
        what = step.what
        if isinstance(what, Scale):
            return self._call(torch.mul, reads[0], what.factor)
        if not isinstance(what, Aggregate):
            return self.graph.call_module(step.at, (reads[0],))
        sources: Any = reads[: len(op.sources)]
        if what.drops:
            sources = self._call(weaken, self.draws, what.drops, op.sources, sources)
        if not step.at:
            return self._call(add_up, sources)
        if what.slots:
            gates = [gate and self._call(as_maps, gate) for gate in self._gates(op, what)]
            return self.graph.call_module(step.at, (sources, gates))
        return self.graph.call_module(step.at, (sources,))
