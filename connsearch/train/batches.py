"""Which images a step sees, and how they are changed.

Shapes: N training images, B images of a batch, C channels, H W pixels, S = 2 shift + 1 places per
direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from connsearch.data.dataset import Augment, Dataset


class Batches:
    """The training split in random batches, a new order and new changes every epoch.

    The split lies on the device once. Random numbers are drawn on the CPU, once per epoch, so that
    every device sees the same batches.

    Args:
        dataset: Whose training split it is.
        batch_size: Largest batch.
        augment: Whether to make the changes that the data set allows.
        device: Where the batches are wanted.
        seeds: One for the order, one for the changes.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        augment: bool,
        device: torch.device,
        seeds: tuple[int, int],
    ) -> None:
        images, self.labels = dataset.train.images.to(device), dataset.train.labels.to(device)
        self.augment = dataset.augment if augment else Augment()
        self.n_steps = steps_per_epoch(len(images), batch_size)
        self.order, self.changes = (Generator().manual_seed(seed) for seed in seeds)
        self.windows_NCSSHW = _windows(images, self.augment.shift, dataset.black)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images B C H W and labels B, until every image was seen once."""
        labels, device = self.labels, self.labels.device
        order_N = torch.randperm(len(labels), generator=self.order)
        place_N2, flip_N = self._draw(len(labels))
        drawn = (order_N.to(device), place_N2.to(device), flip_N.to(device))
        for index_B, place_B2, flip_B in zip(*(x.tensor_split(self.n_steps) for x in drawn), strict=True):
            yield self._images(index_B, place_B2, flip_B), labels[index_B]

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return for each image of an epoch where its window lies (N 2) and whether it is mirrored (N)."""
        places = 2 * self.augment.shift + 1
        place_N2 = torch.randint(places, (count, 2), generator=self.changes)
        return place_N2, torch.rand(count, generator=self.changes) < 0.5

    def _images(self, index_B: Tensor, place_B2: Tensor, flip_B: Tensor) -> Tensor:
        down_B, right_B = place_B2.unbind(1)
        images = self.windows_NCSSHW[index_B, :, down_B, right_B].contiguous()
        if self.augment.flip:
            images = torch.where(flip_B[:, None, None, None], images.flip(3), images)
        return images


def steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Return how many batches an epoch has; they are equal up to one image, none has just one image.

    An even split uses every image and leaves no small last batch with noisy statistics. Only
    `batch_size` 2 and an odd number of images give a batch above `batch_size`: one of 3.

    >>> steps_per_epoch(1077, 64)  # 6 batches of 64 and 11 of 63
    17
    """
    return max(1, min(math.ceil(n_images / batch_size), n_images // 2))


def _windows(images_NCHW: Tensor, shift: int, fill: tuple[float, ...]) -> Tensor:
    """Return N C S S H W: a view of each image at every place it may move to.

    The image is surrounded by `shift` pixels of `fill` (C numbers), and window (r, c) of it starts
    r pixels below and c pixels right of the corner: window (shift, shift) is the image itself.
    """
    count, channels, height, width = images_NCHW.shape
    fill_C11 = images_NCHW.new_tensor(fill)[:, None, None]
    padded = fill_C11.expand(count, channels, height + 2 * shift, width + 2 * shift).clone()
    padded[:, :, shift : shift + height, shift : shift + width] = images_NCHW
    return padded.unfold(2, height, 1).unfold(3, width, 1)
