"""Whether a module is still what the network was built with: something faster may then run in its place."""

from __future__ import annotations

from torch import nn


def is_plain(module: nn.Module | None, sort: type[nn.Module]) -> bool:
    """Return whether a module is of a sort, no subclass of it, and has no hooks."""
    return type(module) is sort and not module._forward_pre_hooks and not module._forward_hooks


def is_plain_conv(module: nn.Module | None) -> bool:
    """Return whether a module is a convolution with zeros around its input and nothing added to it."""
    return (
        is_plain(module, nn.Conv2d)
        and isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
