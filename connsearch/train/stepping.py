"""How is a step computed: in which precision, in which layout, in how many parts?

Shapes: B images of a batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from connsearch.train.config import TrainConfig
from connsearch.train.tasks import Task


class Numerics:
    """Precision and layout of a training on a device.

    Args:
        config: Its `precision` and `layout`.
        device: Where.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.device_type = device.type
        self.bfloat16 = config.in_bfloat16(device.type)
        self.channels_last = config.in_channels_last(device.type)

    def lay_out(self, model: nn.Module) -> None:
        """Lay the weights of convolutions out as the maps will be."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs

    def images(self, images_BCHW: Tensor) -> Tensor:
        """Return images as the network is to see them."""
        last = torch.channels_last
        return images_BCHW.contiguous(memory_format=last) if self.channels_last else images_BCHW

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device_type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()


def parts(
    images_BCHW: Tensor, targets: Tensor, count: int, task: Task
) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
    """Yield a batch in parts: images, targets, and the share of the batch's loss that is the part's.

    Losses times shares add up to the loss of the whole batch. Parts are equal up to one image; there are
    fewer than `count` where one would have a single image, of which norms learn nothing.
    """
    n_parts = max(1, min(count, len(images_BCHW) // 2))
    if n_parts == 1:
        yield images_BCHW, targets, 1.0
        return
    whole = task.amount(targets)
    whole = whole.clamp(min=1e-6) if isinstance(whole, Tensor) else whole  # a batch without any label
    for images, own in zip(images_BCHW.tensor_split(n_parts), targets.tensor_split(n_parts), strict=True):
        yield images, own, task.amount(own) / whole
