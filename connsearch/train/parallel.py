"""What does each of several processes do in a step? Its part of every batch, by DistributedDataParallel.

A single process does all of it, in the same words.

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from connsearch.errors import TrainError
from connsearch.nn import CompiledNetwork, Network
from connsearch.train.config import TrainConfig
from connsearch.train.processes import Processes
from connsearch.train.stepping import parts
from connsearch.train.synced_norms import has_batch_statistics, synced_norms
from connsearch.train.tasks import Task

Heads = Callable[[Tensor], Sequence[Tensor]]
"""From images B C H W to the logits of every head, the model's own last."""


class OwnPart:
    """A process's part of each step.

    Args:
        model: The model, on its device; several processes get the first one's weights and buffers.
        config: How to train.
        processes: Which process this is.
        least_images: The fewest images of a batch that a process has.

    Attributes:
        heads: What to call; gradients are averaged over the processes.

    Raises:
        TrainError: if these are too few, or a norm cannot be synchronised.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, processes: Processes, least_images: int
    ) -> None:
        self._model, self._n_parts = model, config.accumulate
        self._several = processes.size > 1
        self._syncs = self._several and config.sync_norms
        self.heads: Heads = AllHeads(model)
        if not self._several:
            return
        self._n_parts = min(config.accumulate, max(1, least_images // 2))  # the same in all processes
        _check_images(model, config, processes.size, least_images)
        with self.norms():  # tells now what cannot be
            pass
        self.heads = cast(Heads, _in_parallel(model))

    def close(self) -> None:
        """Let go of the model, which is an ordinary one again; to be called while the group still is.

        What averages gradients must not outlive the group: it waits for threads that wait for it.
        """
        self.heads = AllHeads(self._model)

    def norms(self) -> AbstractContextManager[None]:
        """Return the context of training steps: in it, norms are of whole batches if that is asked for."""
        return synced_norms(self._model) if self._syncs else nullcontext()

    def parts(
        self, images_BCHW: Tensor, targets: Tensor, task: Task
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
        """Yield parts as `connsearch.train.stepping.parts`; gradients are averaged with those of the last."""
        *first, last = parts(images_BCHW, targets, self._n_parts, task)
        for part in first:
            with self._unaveraged():
                yield part
        yield last

    def _unaveraged(self) -> AbstractContextManager[None]:
        if isinstance(self.heads, DistributedDataParallel):
            return cast(AbstractContextManager[None], self.heads.no_sync())
        return nullcontext()


class AllHeads(nn.Module):
    """A model, called for the logits of all its heads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of every head, the model's own last."""
        if isinstance(self.model, Network | CompiledNetwork) and len(self.model.heads) > 1:
            return tuple(self.model.logits_by_head(images).values())
        return (self.model(images),)


def _in_parallel(model: nn.Module) -> DistributedDataParallel:
    return DistributedDataParallel(
        AllHeads(model), find_unused_parameters=not uses_all_parameters(model), gradient_as_bucket_view=True
    )


def uses_all_parameters(model: nn.Module) -> bool:
    """Return whether every step is known to give every parameter a gradient.

    Networks of this package do, and so do torch's modules; what others do is not known.
    """
    return all(type(module).__module__.split(".")[0] in ("connsearch", "torch") for module in model.modules())


def _check_images(model: nn.Module, config: TrainConfig, size: int, least_images: int) -> None:
    alone = has_batch_statistics(model) and not config.sync_norms
    needed = 2 if alone else 1
    if least_images < needed:
        why = " where norms are of each process's images" if alone else ""
        raise TrainError(
            f"batch_size = {config.batch_size} leaves {least_images} of a batch's images to some of {size} "
            f"processes, which need {needed}{why}: set batch_size to at least {needed * size + 1}, or start "
            f"fewer processes{', or set sync_norms = true' if alone else ''}"
        )
