"""Watch: is a module still what constants were made of?"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter, getitem
from typing import Any

from torch import Tensor, nn

SETTINGS = ("training", "eps")  # of modules; what else they are set to is not meant to change
UNREAD = ("num_batches_tracked",)

_version = attrgetter("_version")


class Watch:
    """What a module consists of at one moment: its modules, parameters, buffers, and their values.

    A change is noticed where a tensor or a module was replaced, a tensor's memory was, a tensor was edited in
    place, or a module set to training. An edit that torch does not count, through `tensor.data` or numpy, is
    not noticed.
    """

    def __init__(self, module: nn.Module) -> None:
        slots = [slot for part in module.modules() for slot in _slots(part)]
        self._holders: list[Mapping[str, Any]] = [holder for holder, _ in slots]
        self._keys = [key for _, key in slots]
        self._found = list(map(getitem, self._holders, self._keys))  # kept: nothing else gets their ids
        self._ids = list(map(id, self._found))
        self.tensors = [found for found in self._found if isinstance(found, Tensor)]
        self._memory = list(map(Tensor.data_ptr, self.tensors))
        self._versions = list(map(_version, self.tensors))

    def unchanged(self) -> bool:
        """Return whether everything is as it was."""
        try:
            found = map(getitem, self._holders, self._keys)
            same = list(map(id, found)) == self._ids
        except KeyError:
            return False
        return (
            same
            and list(map(_version, self.tensors)) == self._versions
            and list(map(Tensor.data_ptr, self.tensors)) == self._memory
        )


def _slots(module: nn.Module) -> list[tuple[Mapping[str, Any], str]]:
    """Return where the parts of a module are: in which mapping, under which name."""
    holders = (module._modules, module._parameters, module._buffers)
    parts = [(holder, name) for holder in holders for name in holder if name not in UNREAD]
    return [*parts, *((vars(module), name) for name in SETTINGS if name in vars(module))]
