"""Whether a module is still what the network was built with: something faster may then run in its place."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Return whether a module is of one of the sorts, no subclass, unhooked, with no `forward` of its own."""
    return (
        module is not None
        and type(module) in sorts
        and "forward" not in module.__dict__
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


def is_training_norm(module: nn.Module | None) -> bool:
    """Return whether a module is a batch norm that takes the statistics of a batch and moves its own."""
    return (
        is_plain(module, nn.BatchNorm2d)
        and isinstance(module, nn.BatchNorm2d)
        and module.training
        and module.affine
        and module.track_running_stats
        and module.momentum is not None
    )


class PlainAggregations:
    """Whether a network's aggregations are still what passes may rewrite; looked at in every forward pass.

    Args:
        program: The network's program as lowered.
    """

    def __init__(self, program: Program) -> None:
        self._slots = [
            (op.steps[0].at.split("."), REWRITTEN[op.aggregate.ref.name])
            for op in program.ops
            if op.aggregate is not None and op.aggregate.ref.name in REWRITTEN and op.steps[0].at
        ]

    def remain(self, network: nn.Module) -> bool:
        """Return whether none was replaced or given a hook."""
        return all(is_plain(found(network, path), *sorts) for path, sorts in self._slots)


def found(network: nn.Module, path: Sequence[str]) -> nn.Module | None:
    """Return the module that is at a path now, None if there is none."""
    module: nn.Module | None = network
    for name in path:
        module = None if module is None else module._modules.get(name)
    return module
