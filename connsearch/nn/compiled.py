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
from connsearch.nn.inference import Inference, applies, runs_as_defined
from connsearch.nn.network import Network, check_images
from connsearch.nn.plain import PlainAggregations, found
from connsearch.nn.statistics import statistics_moved_at_the_end
from connsearch.nn.stepwise import not_fused, noted
from connsearch.spec.given import check_network
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Norm


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

    >>> from connsearch.spec.presets import preset
    >>> model = build(preset("resnet-20", n_classes=100))
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """
    if not isinstance(spec, Network):
        check_network(spec)
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
    whole network runs as in the definition; so does training under `torch.func`, in forward mode, traced, and
    on no images. Training on a CPU lays maps out with channels last, which its convolutions need not reorder,
    except with group norms.

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
        lowered = lower(self.spec)
        self._aggregations = PlainAggregations(lowered)
        steps = [step for op in lowered.ops for step in op.steps]
        self._norms = [step.at.split(".") for step in steps if isinstance(step.what, Norm)]

    def _emit(self) -> dict[bool, Emitted]:
        """Return what it runs with gradients, by whether it is training."""
        return {True: emit(self.program), False: emit(lower(self.spec))}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "emitted": None, "_inference": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch has no types there
        self.emitted = self._emit()

    @property
    def spec(self) -> NetworkSpec:
        """The specification that this network was built from."""
        return self._spec

    @property
    def code(self) -> str:
        """What a forward pass runs in the mode that the network is in, as Python.

        A comment before it names the modules that were changed such that they run one by one.
        """
        images = next(self.parameters()).new_empty((1, *self.program.image))
        if self._runs_as_defined(images):
            return f"# as defined: an aggregation was changed, or torch looks on\n{self.emitted[False].code}"
        if self._folds and applies(self, images):
            inference = self._folded()
            if inference.code is not None:
                return noted(inference.code, not_fused(self, inference.program))
        return noted(self._now.code, not_fused(self, self.program) if self.training and self._folds else [])

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
        if self._runs_as_defined(images):
            return self.emitted[False].forward(self, images)
        if self._folds and applies(self, images):
            inference = self._folded()
            if inference.takes(images):
                return inference.run(images)
        if tracing.keeps_kernels(self):
            tracing.guard(self)
            return tracing.run(self, images)
        if self._lays_channels_last(images):
            images = images.contiguous(memory_format=torch.channels_last)
        with statistics_moved_at_the_end():
            return self._now.forward(self, images)

    def _runs_as_defined(self, images: Tensor) -> bool:
        if not self._aggregations.remain(self):
            return True
        return self.training and not torch.compiler.is_compiling() and runs_as_defined(images)

    def _lays_channels_last(self, images: Tensor) -> bool:
        if not (self._channels_last and self.training and images.device.type == "cpu"):
            return False
        # With channels last, torch 2.13 crashes where the input of a group norm needs no gradient.
        return not any(isinstance(found(self, path), nn.GroupNorm) for path in self._norms)

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
