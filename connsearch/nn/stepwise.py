"""What runs step by step although a program fuses it: modules that are no longer what kernels stand for."""

from __future__ import annotations

from torch import nn

from connsearch.ir.program import Aggregate, Program, Step
from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.folding import is_constant
from connsearch.nn.plain import is_plain, is_plain_conv, is_training_norm
from connsearch.spec.ops import Act, Conv, Norm


def not_fused(network: nn.Module, program: Program) -> list[str]:
    """Return the modules whose operations a program fuses, but not with what the modules are now.

    Args:
        network: The network; whether it is training decides what norms are to be.
        program: What it runs in that mode.
    """
    steps = [step for op in program.ops for step in op.steps if step.at and _may_fuse(step, len(op.steps))]
    return [step.at for step in steps if not _fits(network.get_submodule(step.at), step, network.training)]


def _may_fuse(step: Step, n_steps: int) -> bool:
    what = step.what
    if isinstance(what, Norm):
        return what.kind == "batch"
    if isinstance(what, Act):
        return what.kind == "relu" and n_steps > 1
    return isinstance(what, Aggregate | Conv)


def _fits(module: nn.Module, step: Step, training: bool) -> bool:
    if isinstance(step.what, Norm):
        return is_training_norm(module) if training else is_constant(module)
    if isinstance(step.what, Act):
        return is_plain(module, nn.ReLU)
    if isinstance(step.what, Conv):
        return is_plain_conv(module)
    return not isinstance(module, NormalizedDepthwise) or module.training == training


def noted(code: str, modules: list[str]) -> str:
    """Return code, with a comment before it that names modules, if there are any."""
    names = ", ".join(modules)
    return f"# run one by one, as these were changed: {names}\n{code}" if modules else code
