"""Inference: what a network runs in evaluation without gradients.

A program of the pipeline "inference" runs on constants folded from the network's parameters: convolutions do
the norms and activations after them, weighted sums and concatenations theirs. Maps are channels last inside.
A batch is run in parts so small that what is held of a part stays in the cache: the memory that one
operation releases is what the next one writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, device as Device, fx, nn  # noqa: N812  # a class
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from connsearch.ir.liveness import Reads, live_reads, peak_elements
from connsearch.ir.program import Program
from connsearch.nn.constants import Constants
from connsearch.nn.emit import Emitted, compiled
from connsearch.nn.watch import Watch

CACHE_BYTES = 12 << 20  # of what is held of a part of a batch at most, on a CPU


class Inference:
    """A network's program on constants, which are made at once.

    Args:
        network: The network, in evaluation.
        program: Its program, of the pipeline "inference".

    Attributes:
        program: As given.
        images_at_once: How many images it runs at a time; None for all.
    """

    def __init__(self, network: nn.Module, program: Program) -> None:
        self.program = program
        self._watch = Watch(network)
        self._kind = _kind(self._watch.tensors)
        self._emitted: Emitted | None = None
        self.images_at_once: int | None = None
        if self._kind is not None:
            self._make(network, program, *self._kind)

    def _make(self, network: nn.Module, program: Program, dtype: torch.dtype, device: Device) -> None:
        with torch.no_grad():
            constants = Constants(network, program, dtype, device)
            reads = live_reads(program, constants.dead)
            self._runs = SimpleNamespace(**{_name(program, v): constants.run(v) for v in reads})
        self._emitted = _emit(program, reads)
        splits = not any(part.training for part in network.modules())  # statistics are of a whole batch
        if device.type == "cpu" and splits:
            held = peak_elements(program, reads) * dtype.itemsize
            self.images_at_once = max(1, CACHE_BYTES // held)

    @property
    def code(self) -> str | None:
        """What it runs, as Python; `self` holds what each operation runs, named by its value.

        None if the network's tensors are of several types or devices, or made in `torch.inference_mode`,
        where torch does not count edits: it takes no images then.
        """
        return self._emitted and self._emitted.code

    def is_current(self) -> bool:
        """Return whether the network is what the constants were made of."""
        return self._watch.unchanged()

    def takes(self, images: Tensor) -> bool:
        """Return whether images are of the type and on the device that the constants are."""
        return self._kind == (images.dtype, images.device)

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each head, contiguous."""
        at_once = self.images_at_once or len(images)
        if len(images) <= at_once:
            return tuple(logits.contiguous() for logits in self._part(images))
        parts = [self._part(part) for part in images.tensor_split(-(-len(images) // at_once))]
        return tuple(torch.cat(logits).contiguous() for logits in zip(*parts, strict=True))

    def _part(self, images: Tensor) -> tuple[Tensor, ...]:
        assert self._emitted is not None
        if images.dtype != torch.float64:
            images = images.contiguous(memory_format=torch.channels_last)
        return self._emitted.forward(self._runs, images)  # type: ignore[arg-type]  # it has what is called


def applies(network: nn.Module, images: Tensor) -> bool:
    """Return whether a call needs nothing but values: no gradients, no traces, no other types.

    Under autocast, `torch.compile`, `torch.func`, in forward mode, or a mode that watches operations, the
    definition runs; it does on the device `meta` too.
    """
    return not (
        torch.compiler.is_compiling()
        or network.training
        or torch.is_grad_enabled()
        or type(images) is not Tensor
        or images.is_meta
        or torch.is_autocast_enabled(images.device.type)
        or is_in_torch_dispatch_mode()
        or runs_as_defined(images)
    )


def runs_as_defined(images: Tensor) -> bool:
    """Return whether only the definition runs: by `torch.func`, in forward mode, traced, or on no images."""
    return (
        not len(images)
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def _kind(tensors: Sequence[Tensor]) -> tuple[torch.dtype, Device] | None:
    """Return the type and device of all tensors, None if they differ or edits of them are not counted."""
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
    return kinds.pop() if len(kinds) == 1 and not any(t.is_inference() for t in tensors) else None


def _name(program: Program, value: int) -> str:
    op = program.op(value)
    word = op.aggregate.ref.name if op.aggregate else op.kinds[0]
    return re.sub(r"\W", "_", f"{word}{value}")


def _emit(program: Program, reads: Reads) -> Emitted:
    """Return the code that runs what is named by each value on what it reads."""
    graph = fx.Graph()
    values = {0: graph.placeholder("images")}
    for value, operands in reads.items():
        values[value] = graph.call_module(_name(program, value), tuple(values[read] for read in operands))
    graph.output(tuple(values[value] for _, value in program.outputs))
    return compiled(graph, program.name)
