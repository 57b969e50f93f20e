"""What is left during a backward pass, for each pass by itself: two may go through one graph at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

_under_way: set[int] = set()
"""Backward passes that have left something and are not at their end."""


def _this_pass() -> int:
    """Return the number of the backward pass that runs this; one inside another has its own."""
    task = torch._C._current_graph_task_id()
    if task >= 0 and task not in _under_way:
        _under_way.add(task)
        engine = torch.autograd.Variable._execution_engine
        engine.queue_callback(lambda: _under_way.discard(task))
    return task


class PerPass(Generic[T]):
    """What each backward pass leaves until it takes it.

    What a pass never came to take, because it was asked for some gradients only, is forgotten when the next
    one leaves something.

    Args:
        begin: Makes what a pass has when it has left nothing.
    """

    def __init__(self, begin: Callable[[], T]) -> None:
        self._begin = begin
        self._by_pass: dict[int, T] = {}

    def now(self) -> T:
        """Return what this pass has left, to be added to."""
        number = _this_pass()
        if number not in self._by_pass:
            for other in list(self._by_pass):  # another thread may add to them meanwhile
                if other not in _under_way:
                    self._by_pass.pop(other, None)
            self._by_pass[number] = self._begin()
        return self._by_pass[number]

    def take(self) -> T:
        """Return what this pass has left; it has then left nothing."""
        found = self._by_pass.pop(_this_pass(), None)
        return self._begin() if found is None else found
