"""Build: a network as an ordinary module that runs compiled code, with the state dict of the definition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, device as Device, nn  # noqa: N812  # a class

from connsearch.errors import SpecError
from connsearch.ir import Program, optimize
from connsearch.ir.lower import lower
from connsearch.ir.pipelines import INFERENCE
from connsearch.nn import tracing
from connsearch.nn.emit import Emitted, emit
from connsearch.nn.inference import Inference, applies
from connsearch.nn.network import Network, check_images
from connsearch.nn.plain import PlainAggregations
from connsearch.nn.statistics import statistics_moved_at_the_end
from connsearch.spec.network import NetworkSpec


def build(
    spec: NetworkSpec | Network, *, pipeline: str = "fused", device: str | Device | None = None
) -> CompiledNetwork:
    """Return a network that computes what its definition does, fused for speed and memory.

    Args:
        spec: A specification, or a network whose modules, hence weights, are then shared.
        pipeline: How to compile: "fused", "default" (without recomputation) or "none" (step by step).
        device: Where the parameters are to be; None leaves them where they are.

    Raises:
        SpecError: if the specification describes no network, or there is no such pipeline.
    """
    network = spec if isinstance(spec, Network) else Network(spec)
    compiled = CompiledNetwork(network, pipeline)
    return compiled if device is None else compiled.to(device)


def code_of(spec: NetworkSpec, pipeline: str) -> str:
    """Return the Python code that a pipeline makes of a network; of "inference" with its initial constants.

    Raises:
        SpecError: if the specification describes no network, or there is no such pipeline.
    """
    if pipeline != INFERENCE:
        return emit(optimize(lower(spec), pipeline)).code
    with torch.no_grad():
        return build(spec).eval().code


class CompiledNetwork(nn.Module):
    """A compiled network: images B C H W in, logits B K (of a head per pixel B K H W) out.

    In training it runs the program that the pipeline made, in evaluation what the definition does; without
    gradients (under `torch.no_grad` or `torch.inference_mode`) it folds what is constant then, at the first
    call and again when parameters or buffers have changed. Changes that torch does not count, such as edits
    of `parameter.data`, are seen after `eval()`. With an aggregation that was replaced, or has hooks, the
    whole network runs as in the definition. Training on a CPU lays maps out with channels last, which its
    convolutions need not reorder.

    Attributes:
        program: What it runs in training.
        heads: The names of the heads; the last is the network's own.
        emitted: What it runs with gradients, by whether it is training.
    """

    def __init__(self, network: Network, pipeline: str) -> None:
        super().__init__()
        self._spec = network.spec
        self.training = network.training
        if pipeline == INFERENCE:
            raise SpecError(f"pipeline {INFERENCE!r} has no gradients: evaluation runs it by itself")
        self.program: Program = optimize(lower(network.spec), pipeline)
        self.heads = network.heads
        self.emitted = self._emit()
        self._folds = pipeline != "none"
        self._channels_last = self._folds and not _draws(self.program)
        self._inference: Inference | None = None
        for name, child in network.named_children():
            self.add_module(name, child)
        self._aggregations = self._plain()

    def _plain(self) -> PlainAggregations:
        return PlainAggregations(self, lower(self.spec))

    def _emit(self) -> dict[bool, Emitted]:
        """Return what it runs with gradients, by whether it is training."""
        return {True: emit(self.program), False: emit(lower(self.spec))}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "emitted": None, "_aggregations": None, "_inference": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch has no types there
        self.emitted, self._aggregations = self._emit(), self._plain()

    @property
    def spec(self) -> NetworkSpec:
        """The specification that this network was built from."""
        return self._spec

    @property
    def code(self) -> str:
        """What a forward pass runs in the mode that the network is in, as Python."""
        folded = self._folds and not self.training and not torch.is_grad_enabled()
        return (self._folded().code if folded else None) or self._now.code

    @property
    def _now(self) -> Emitted:
        return self.emitted[self.training and not torch.compiler.is_compiling()]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the network's own head.

        Raises:
            SpecError: if the images are not of the shape that the specification names.
        """
        return self._outputs(images)[-1]

    def logits_by_head(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of every head by name, the network's own last.

        Raises:
            SpecError: if the images are not of the shape that the specification names.
        """
        return dict(zip(self.heads, self._outputs(images), strict=True))

    def _outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        check_images(images, self.program.image)
        if not self._aggregations.remain():
            return self.emitted[False].forward(self, images)
        if self._folds and applies(self, images):
            inference = self._folded()
            if inference.takes(images):
                return inference.run(images)
        if tracing.keeps_kernels(self):
            tracing.guard(self)
            return tracing.run(self, images)
        if self._channels_last and self.training and images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        with statistics_moved_at_the_end():
            return self._now.forward(self, images)

    def _folded(self) -> Inference:
        """Return the network on constants, made again if something has changed since."""
        inference = self._inference  # another thread may forget it meanwhile
        if inference is None or not inference.is_current():
            inference = self._inference = Inference(self, optimize(lower(self.spec), INFERENCE))
        return inference

    def train(self, mode: bool = True) -> CompiledNetwork:
        """Set training or evaluation; constants of earlier evaluation are forgotten."""
        self._inference = None
        super().train(mode)
        return self


def _draws(program: Program) -> bool:
    """Return whether training draws numbers for maps, which it does in the order in which they lie."""
    return any(op.aggregate is not None and op.aggregate.drops for op in program.ops)
