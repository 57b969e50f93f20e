"""Watch: is a module still what constants were made of?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from operator import attrgetter, contains, eq, getitem, is_
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

SETTINGS = ("training", "eps")  # of modules; what else they are set to is not meant to change
UNREAD = ("num_batches_tracked",)

_version = attrgetter("_version")
_steps = itertools.count(1)
_last_step = [0]


def _stepped(*_: Any) -> None:
    _last_step[0] = next(_steps)


# Fused optimizers edit parameters without torch counting it: every step of any optimizer counts as a change.
register_optimizer_step_post_hook(_stepped)


class Watch:
    """What a module consists of at one moment: its modules, parameters, buffers, and their values.

    A change is noticed where a tensor or a module was replaced, a tensor's memory was, a tensor was edited
    in place, a module was set to training, given a hook or a `forward` of its own, or an optimizer made a
    step. An edit that torch does not count, through `tensor.data` or numpy, or of a tensor made in
    `torch.inference_mode`, is not noticed.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = [*module.modules()]
        slots = [slot for part in parts for slot in _slots(part)]
        self._holders: list[Mapping[str, Any]] = [holder for holder, _ in slots]
        self._keys = [key for _, key in slots]
        self._found = list(map(getitem, self._holders, self._keys))
        self.tensors = [found for found in self._found if isinstance(found, Tensor)]
        self._memory = list(map(Tensor.data_ptr, self.tensors))
        self._counted = [tensor for tensor in self.tensors if not tensor.is_inference()]
        self._versions = list(map(_version, self._counted))
        self._hooks = [hooks for part in parts for hooks in (part._forward_pre_hooks, part._forward_hooks)]
        self._n_hooks = list(map(len, self._hooks))
        self._own = list(map(vars, parts))
        self._n_replaced = self._replaced()
        self._step = _last_step[0]

    def _replaced(self) -> int:
        """Return of how many modules `forward` was replaced."""
        return sum(map(contains, self._own, itertools.repeat("forward")))

    def unchanged(self) -> bool:
        """Return whether everything is as it was."""
        if self._step != _last_step[0]:
            return False
        try:
            if not all(map(is_, map(getitem, self._holders, self._keys), self._found)):
                return False
        except KeyError:
            return False
        if list(map(len, self._hooks)) != self._n_hooks or self._replaced() != self._n_replaced:
            return False
        memory = map(eq, map(Tensor.data_ptr, self.tensors), self._memory)
        return all(map(eq, map(_version, self._counted), self._versions)) and all(memory)


def _slots(module: nn.Module) -> list[tuple[Mapping[str, Any], str]]:
    """Return where the parts of a module are: in which mapping, under which name."""
    holders = (module._modules, module._parameters, module._buffers)
    parts = [(holder, name) for holder in holders for name in holder if name not in UNREAD]
    return [*parts, *((vars(module), name) for name in SETTINGS if name in vars(module))]
