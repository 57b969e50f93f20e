"""What each operation of a program runs in evaluation: a function of what it reads, its constants made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from connsearch.ir.program import Aggregate, Op, Program, Scale
from connsearch.nn.aggregations import Sum
from connsearch.nn.convolve import conv_run, is_plain
from connsearch.nn.drops import Draws
from connsearch.nn.folding import (
    Affine,
    Run,
    Weighing,
    affine,
    concat_run,
    gated_sum_run,
    is_constant,
    norm_run,
    sum_run,
    weighing,
)
from connsearch.spec.drops import EdgeDrop

ADDING = ("sum", "mean")  # aggregations whose weights are known without a module


class Constants:
    """What the operations of a program run on the modules of a network, as these are now.

    Attributes:
        dead: For some values, places of sources that their operations do without: their weights are all 0.
    """

    def __init__(self, network: nn.Module, program: Program) -> None:
        self._network, self._program = network, program
        found = {value: self._weighing(op) for value, op in enumerate(program.ops, start=1)}
        self._weighings = {value: sum_ for value, sum_ in found.items() if sum_ is not None}
        self.dead = {value: sum_.dead for value, sum_ in self._weighings.items() if sum_.dead}

    def run(self, value: int) -> Run:
        """Return what the operation of a value runs on what it reads, dead sources left out."""
        op = self._program.op(value)
        modules = [self._network.get_submodule(step.at) if step.at else None for step in op.steps]
        norms = [m for m, kind in zip(modules, op.kinds, strict=True) if kind == "norm"]
        if not all(m is not None and is_constant(m) for m in norms):
            return self._as_defined(op)
        then = affine(norms[0]) if norms and norms[0] is not None else None
        return self._folded(value, op, modules[0], then) or self._as_defined(op)

    def _folded(self, value: int, op: Op, first: nn.Module | None, then: Affine | None) -> Run | None:
        act = "relu" if len(op.steps) > 1 and op.kinds[-1] == "act" else "none"
        what, dtype = op.aggregate, self._dtype
        if value in self._weighings:
            kept = self._weighings[value].without(self.dead.get(value, frozenset()))
            return sum_run(kept.then(then) if then else kept, act, dtype)
        if what is not None and what.slots and not what.drops:
            return gated_sum_run(what.slots, then, act, dtype)
        if what is not None and what.ref.name == "concat" and then:
            return concat_run(then, act, dtype)
        if first is not None and is_plain(first):
            assert isinstance(first, nn.Conv2d)
            return conv_run(first, then, act, self._program.shape(op.reads[0]))
        return norm_run(then, act, dtype) if then and op.kinds[0] == "norm" else None

    @property
    def _dtype(self) -> torch.dtype:
        return next(self._network.parameters()).dtype

    def _weighing(self, op: Op) -> Weighing | None:
        """Return the weights that an operation gives its sources, None if it has none or is no sum."""
        what = op.aggregate
        if what is None:
            return None
        if what.ref.name in ADDING and (what.drops or len(op.reads) > 2 or len(op.steps) > 1):
            shares = [_share(drop) for drop in what.drops] or [1.0] * len(op.reads)
            weight_L = torch.tensor(shares, dtype=torch.float64, device=self._device)
            return Weighing((weight_L / (len(shares) if what.ref.name == "mean" else 1))[:, None, None], None)
        return None if what.drops or not op.steps[0].at else weighing(self._module(op))

    @property
    def _device(self) -> torch.device:
        return next(self._network.parameters()).device

    def _module(self, op: Op) -> nn.Module:
        return self._network.get_submodule(op.steps[0].at)

    def _as_defined(self, op: Op) -> Run:
        """Return what the definition does, step by step."""
        first = self._first(op)
        later = [self._network.get_submodule(step.at) for step in op.steps[1:]]

        def run(*reads: Tensor) -> Tensor:
            x = first(*reads)
            for module in later:
                x = module(x)
            return x

        return run if later else first

    def _first(self, op: Op) -> Run:
        what = op.steps[0].what
        if isinstance(what, Scale):
            factor = what.factor
            return lambda x: x * factor
        if not isinstance(what, Aggregate):
            return self._module(op)
        return _aggregate_run(what, op.sources, self._module(op) if op.steps[0].at else Sum())


def _share(drop: EdgeDrop | None) -> float:
    """Return by what evaluation multiplies a source that training drops at random."""
    return 1.0 if drop is None or drop.kind == "path" else drop.survival


def _aggregate_run(what: Aggregate, names: Sequence[int], module: nn.Module) -> Run:
    n = len(names)

    def run(*reads: Tensor) -> Tensor:
        sources = list(reads[:n])
        if what.drops:
            sources = Draws(1, training=False).weaken(what.drops, names, sources)
        if not what.slots:
            return _called(module, sources)
        gates = [None if s is None else reads[s[0]][:, s[1], None, None, None] for s in what.slots]
        return _called(module, sources, gates)

    return run


def _called(function: Callable[..., Tensor], *args: object) -> Tensor:
    return function(*args)
