"""What each operation of a program runs in evaluation: a function of what it reads, its constants made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from connsearch.ir.program import Aggregate, Op, Program, Scale, Step
from connsearch.kernels.convolve.reference import Before
from connsearch.nn.aggregations import Sum
from connsearch.nn.convolve import conv_run, joined_run
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
from connsearch.nn.plain import is_plain, is_plain_conv
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.ops import Conv, Shape

ADDING = ("sum", "mean")  # aggregations whose weights are known without a module


class Constants:
    """What the operations of a program run on the modules of a network, as these are now.

    Attributes:
        dead: For some values, places of sources that their operations do without: their weights are all 0.
    """

    def __init__(
        self, network: nn.Module, program: Program, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._network, self._program = network, program
        self._dtype, self._device = dtype, device
        found = {value: self._weighing(op) for value, op in enumerate(program.ops, start=1)}
        self._weighings = {value: sum_ for value, sum_ in found.items() if sum_ is not None}
        self.dead = {value: sum_.dead for value, sum_ in self._weighings.items() if sum_.dead}

    def run(self, value: int) -> Run:
        """Return what the operation of a value runs on what it reads, dead sources left out."""
        op = self._program.op(value)
        if not self._is_constant(op):
            return self._as_defined(op)
        place = op.kinds.index("conv") if "conv" in op.kinds else 0
        if not place:
            return self._folded(value, op, self._program.shape(op.reads[0])) or self._as_defined(op)
        conv = op.steps[place].what
        assert isinstance(conv, Conv)
        between = Shape(conv.in_channels, *op.shape[1:])
        head, tail = Op(op.steps[:place], op.reads, between), Op(op.steps[place:], (value,), op.shape)
        return self._joined(value, head, tail) or self._chained(value, head, tail)

    def _is_constant(self, op: Op) -> bool:
        """Return whether the norms and activations of an operation are now of the sort that is folded."""
        modules = [(step.what.op, self._at(step)) for step in op.steps]
        return all(
            is_constant(module) if kind == "norm" else is_plain(module, nn.ReLU)
            for kind, module in modules
            if kind == "norm" or (kind == "act" and len(modules) > 1)
        )

    def _joined(self, value: int, head: Op, tail: Op) -> Run | None:
        """Return a 1x1 convolution with what is before it as one function, None if there is none."""
        then, act, conv = self._affine(head), _act(head), self._at(tail.steps[0])
        if not is_plain_conv(conv) or not then:
            return None
        assert isinstance(conv, nn.Conv2d)
        if value in self._weighings:
            dead = self.dead.get(value, frozenset())
            before = self._weighings[value].without(dead).then(then).before(act)
        elif head.aggregate is None or head.aggregate.ref.name == "concat":
            dead, before = frozenset(), Before(then.scale.float(), then.shift.float(), act)
        else:
            return None
        read = [source for place, source in enumerate(head.sources) if place not in dead]
        channels = [self._program.shape(source).channels for source in read]
        return joined_run(before, conv, self._affine(tail), _act(tail), channels)

    def _chained(self, value: int, head: Op, tail: Op) -> Run:
        first = self._folded(value, head, head.shape) or self._as_defined(head)
        second = self._folded(0, tail, head.shape) or self._as_defined(tail)
        return lambda *reads: second(first(*reads))

    def _folded(self, value: int, op: Op, shape: Shape) -> Run | None:
        """Return steps as one function, None if they are not of a sort that is folded.

        Args:
            value: The value that they start to compute, 0 if they go on.
            op: The steps, no convolution after others.
            shape: The shape of one image of what they read first.
        """
        then, act, dtype = self._affine(op), _act(op), self._dtype
        what, first = op.aggregate, self._at(op.steps[0])
        if value in self._weighings:
            kept = self._weighings[value].without(self.dead.get(value, frozenset()))
            return sum_run(kept.then(then) if then else kept, act, dtype)
        if what is not None and what.slots and not what.drops:
            return gated_sum_run(what.slots, then, act, dtype)
        if what is not None and what.ref.name == "concat" and then:
            return concat_run(then, act, dtype)
        if is_plain_conv(first):
            assert isinstance(first, nn.Conv2d)
            return conv_run(first, then, act, shape)
        return norm_run(then, act, dtype) if then and op.kinds[0] == "norm" else None

    def _affine(self, op: Op) -> Affine | None:
        """Return a and b of the norm among steps, None if there is none."""
        norms = [step for step in op.steps if step.what.op == "norm"]
        return affine(self._at(norms[0])) if norms else None

    def _at(self, step: Step) -> nn.Module | None:
        return self._network.get_submodule(step.at) if step.at else None

    def _weighing(self, op: Op) -> Weighing | None:
        """Return the weights that an operation gives its sources, None if it has none or is no sum."""
        what = op.aggregate
        if what is None or not self._is_constant(op):
            return None
        if what.ref.name in ADDING and (what.drops or len(op.reads) > 2 or len(op.steps) > 1):
            shares = [_share(drop) for drop in what.drops] or [1.0] * len(op.reads)
            weight_L = torch.tensor(shares, dtype=torch.float64, device=self._device)
            return Weighing((weight_L / (len(shares) if what.ref.name == "mean" else 1))[:, None, None], None)
        return (
            None
            if what.drops or not op.steps[0].at
            else weighing(self._network.get_submodule(op.steps[0].at))
        )

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
            return self._network.get_submodule(op.steps[0].at)
        return _aggregate_run(what, op.sources, self._at(op.steps[0]) or Sum())


def _act(op: Op) -> str:
    """Return the activation that ends steps of more than one."""
    return "relu" if len(op.steps) > 1 and op.kinds[-1] == "act" else "none"


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
