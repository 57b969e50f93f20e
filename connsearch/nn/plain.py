"""Whether a module is still what the network was built with: something faster may then run in its place."""

from __future__ import annotations

from torch import nn

from connsearch.ir.program import Program
from connsearch.nn import aggregations

REWRITTEN: dict[str, tuple[type[nn.Module], ...]] = {
    "sum": (aggregations.Sum,),
    "mean": (aggregations.Mean,),
    "concat": (aggregations.Concat,),
    "weighted": (aggregations.Weighted,),
    "depthwise": (aggregations.Depthwise, aggregations.NormalizedDepthwise),
    "routed": (aggregations.Routed,),
}
"""What aggregations are that passes rewrite, by name."""


def is_plain(module: nn.Module | None, *sorts: type[nn.Module]) -> bool:
    """Return whether a module is of one of the sorts, no subclass of it, and has no hooks."""
    return (
        module is not None
        and type(module) in sorts
        and not (
            module._forward_pre_hooks
            or module._forward_hooks
            or module._backward_pre_hooks
            or module._backward_hooks
        )
    )


def is_plain_conv(module: nn.Module | None) -> bool:
    """Return whether a module is a convolution with zeros around its input and nothing added to it."""
    return (
        is_plain(module, nn.Conv2d)
        and isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class PlainAggregations:
    """Whether a network's aggregations are still what passes may rewrite; looked at in every forward pass.

    Args:
        network: The network.
        program: Its program as lowered.
    """

    def __init__(self, network: nn.Module, program: Program) -> None:
        self._slots = []
        for op in program.ops:
            if op.aggregate is None or op.aggregate.ref.name not in REWRITTEN or not op.steps[0].at:
                continue
            parent, _, name = op.steps[0].at.rpartition(".")
            sorts = REWRITTEN[op.aggregate.ref.name]
            self._slots.append((network.get_submodule(parent)._modules, name, sorts))

    def remain(self) -> bool:
        """Return whether none was replaced or given a hook."""
        return all(is_plain(modules.get(name), *sorts) for modules, name, sorts in self._slots)
