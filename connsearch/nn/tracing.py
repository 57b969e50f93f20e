"""How `torch.compile` takes a compiled network in training: fused operations stay what they are.

Dynamo cannot read how readers leave gradients at the ports of sources. It need not: it calls the forward pass
as one function, and AOTAutograd then runs that, and the backward pass, on tensors without values, and sees
the kernels as operators (`connsearch.kernels.operators`).

`run` is made at its first use, which is Dynamo's: to import Dynamo takes longer than all the rest.

What is exported is the definition: where it is to run, there may be no kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from connsearch.ir.program import Program
from connsearch.nn.statistics import statistics_moved_at_the_end

if TYPE_CHECKING:
    from connsearch.nn.compiled import CompiledNetwork

    run: Callable[[CompiledNetwork, Tensor], tuple[Tensor, ...]]

TAKES_MODULES = TorchVersion(torch.__version__) >= "2.13"
"""Whether Dynamo passes a module on to a function that it does not read; it reads the definition if not."""


def draws_sources(program: Program) -> bool:
    """Return whether training draws whole sources or paths, each a decision that the CPU takes."""
    drops = (drop for op in program.ops if op.aggregate is not None for drop in op.aggregate.drops)
    return any(drop is not None and drop.kind != "element" and drop.survival != 1 for drop in drops)


def keeps_kernels(network: CompiledNetwork) -> bool:
    """Return whether `torch.compile` is at work and the kernels are to stay what they are.

    In evaluation there is nothing to keep: the definition is what Inductor fuses best. Where training draws
    whole sources or paths, Dynamo's graph breaks: the definition is what it had better break.
    """
    return (
        TAKES_MODULES
        and not draws_sources(network.program)
        and network.training
        and torch.compiler.is_dynamo_compiling()
        and not torch.compiler.is_exporting()
    )


SETTINGS = ("training", "eps", "momentum")


def guard(network: CompiledNetwork) -> None:
    """Have Dynamo look at settings that `run` reads, so that it compiles anew if one has changed."""
    for module in network.modules():
        for name in SETTINGS:
            if getattr(module, name, None):  # it guards what is asked whether it is true
                continue


def _run(network: CompiledNetwork, images: Tensor) -> tuple[Tensor, ...]:
    with statistics_moved_at_the_end():
        return network.emitted[True].forward(network, images)


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = torch._dynamo.nonstrict_trace(_run)
    globals()[name] = made
    return made
