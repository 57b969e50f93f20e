"""The moving average of a network's weights: what it is after a step, and who holds it when.

While steps are made the network holds what the optimizer moves. Between epochs it holds the average, so
that whatever looks at it then (evaluation, a callback, a checkpoint, the caller in the end) sees the
weights that the validation error belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

PREFIX = "unaveraged/"
"""Of the tensors that a checkpoint holds beside the average: what the optimizer moves, by name."""


def decay_at(step: int, decay: float) -> float:
    """Return how much of the average a step keeps: min(decay, (1 + step) / (10 + step)), steps from 0.

    So that the initial weights are forgotten soon, and a short training is averaged over about its last
    tenth (TensorFlow, `tf.train.ExponentialMovingAverage` with `num_updates`).

    >>> [round(decay_at(step, 0.99), 3) for step in (0, 10, 100, 889, 890, 5000)]
    [0.1, 0.55, 0.918, 0.99, 0.99, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """average = d * average + (1 - d) * value, after each step, with d as `decay_at` says.

    Of all parameters and of all buffers with fractions, such as the running statistics of norms, in a state
    dict or not; other buffers, such as counts, are those of the last step. It starts as the initial values.

    Args:
        model: The network; its tensors are exchanged in place.
        decay: The most that a step keeps; 0 for no average, which costs nothing.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        named = [*model.named_parameters(), *model.named_buffers()] if decay else []
        kept = {n: x.detach() for n, x in named if x.is_floating_point() or x.is_complex()}
        self._names, self._held = list(kept), list(kept.values())
        self._aside = [x.clone(memory_format=torch.preserve_format) for x in self._held]

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Let the network hold what the optimizer moves; at the end, whatever happens, the average again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def update(self, step: int) -> None:
        """Take in the network's values after a step, counted from 0."""
        if self._held:
            update = get_ema_multi_avg_fn(decay_at(step, self.decay))  # type: ignore[no-untyped-call]
            update(self._aside, self._held, step)

    def capture(self) -> dict[str, Tensor]:
        """Return what the optimizer moves, by name, on the CPU; the network holds the average."""
        pairs = zip(self._names, self._aside, strict=True)
        return {
            f"{PREFIX}{name}": x.to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, x in pairs
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `capture` returned, when the network has its average back.

        Raises:
            KeyError: if a tensor is missing.
        """
        for name, aside in zip(self._names, self._aside, strict=True):
            aside.copy_(tensors[f"{PREFIX}{name}"])

    def _exchange(self) -> None:
        with torch.no_grad():
            for held, aside in zip(self._held, self._aside, strict=True):
                before = held.clone()
                held.copy_(aside)
                aside.copy_(before)
