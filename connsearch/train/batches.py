"""Which images a step sees, and how they are changed.

Shapes: N training images, B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Augment, Dataset
from connsearch.errors import TrainError


class Batches:
    """The training split in random batches, a new order and new changes every epoch.

    The split lies on the device once, if it fits there; else on the host, from where batches are brought.
    Random numbers are drawn on the CPU, once per epoch, so that every device sees the same batches.

    Args:
        dataset: Whose training split it is.
        batch_size: Largest batch.
        augment: Whether to make the changes that the data set allows.
        device: Where the batches are wanted.
        seeds: One for the order, one for the changes.
        cutout: Side in pixels of a square, anywhere over an image, that is set to the mean; 0 for none.
        mixup: How much images are mixed with the one before them in the batch: by Beta(mixup, mixup);
            0 for not at all.
        part: Which part of each batch is wanted, of how many; parts are equal up to one image. Every part
            is what it is in the whole batch, changes and mixtures included.

    Raises:
        TrainError: if labels that are maps are to be mixed, or a cutout is larger than an image.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        augment: bool,
        device: torch.device,
        seeds: tuple[int, int],
        cutout: int = 0,
        mixup: float = 0.0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if mixup and dataset.train.dense:
            raise TrainError(f"mixup = {mixup:g} mixes labels of images, not label maps: set mixup = 0")
        if cutout > min(dataset.height, dataset.width):
            size = f"{dataset.height} x {dataset.width}"
            raise TrainError(
                f"cutout = {cutout} is more than images of {size} pixels have: set a smaller one"
            )
        self.split = dataset.train.near(device)
        self.device, self.n_classes, self.void = device, dataset.n_classes, dataset.void
        self.augment = dataset.augment if augment else Augment()
        self.cutout, self.mixup, self.part = cutout, mixup, part
        self.black = (0.0,) * dataset.channels if self.split.raw else dataset.black
        self.n_steps = steps_per_epoch(len(self.split), batch_size)
        self.order, self.changes = (Generator().manual_seed(seed) for seed in seeds)

    @property
    def labels(self) -> Tensor:
        """The labels of the whole split."""
        return self.split.labels

    @property
    def least_images(self) -> int:
        """How many images the smallest part of a batch has."""
        return len(self.split) // self.n_steps // self.part[1]

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images B C H W and their targets, until every image was seen once, in one part or another.

        Targets are labels, B (of label maps, B H W, with void where an image was moved away); of mixed
        images shares of the classes, B K.
        """
        order_N = torch.randperm(len(self.split), generator=self.order).to(self.split.images.device)
        drawn = _Drawn(*(x.to(self.device) for x in self._draw(len(self.split))))
        parts = (x.tensor_split(self.n_steps) for x in (order_N, *drawn))
        for index_B, *changes in zip(*parts, strict=True):
            index_B, *changes = (self._own(x) for x in (index_B, *changes))
            images = self.split.images[index_B].to(self.device, non_blocking=True)
            labels = self.split.labels[index_B].to(self.device, non_blocking=True)
            yield self._changed(images, labels, _Drawn(*changes))

    def _own(self, whole_B: Tensor) -> Tensor:
        """Return this part of a batch; to be mixed, behind the last one of the part before it."""
        which, count = self.part
        if count == 1:
            return whole_B
        parts = whole_B.tensor_split(count)
        return torch.cat([parts[which - 1][-1:], parts[which]]) if self.mixup else parts[which]

    def _draw(self, count: int) -> _Drawn:
        """Return the random numbers of an epoch; what is not asked for draws none."""
        generator = self.changes
        place_N2 = torch.randint(2 * self.augment.shift + 1, (count, 2), generator=generator)
        flip_N = torch.rand(count, generator=generator) < 0.5
        hole_N2, share_N = torch.zeros(count, 2), torch.ones(count)
        if self.cutout:
            hole_N2 = torch.rand(count, 2, generator=generator)
        if self.mixup:
            seed = int(torch.randint(2**63 - 1, (), generator=generator))
            share_N = torch.from_numpy(
                np.random.default_rng(seed).beta(self.mixup, self.mixup, count)
            ).float()
        return _Drawn(place_N2, flip_N, hole_N2, share_N)

    def _changed(self, images_BCHW: Tensor, labels: Tensor, drawn: _Drawn) -> tuple[Tensor, Tensor]:
        """Return a batch as a step sees it."""
        images_BCHW = self._moved(images_BCHW, self.black, drawn)
        if labels.ndim > 1:
            labels = labels if self.void >= 0 else labels.short()  # in which there is room for -1
            labels = self._moved(labels[:, None], (self.void,), drawn)[:, 0].long()
        images_BCHW = self.split.inputs(images_BCHW)
        if self.cutout:
            images_BCHW = _cut(images_BCHW, drawn.hole, self.cutout)
        return self._mixed(images_BCHW, labels, drawn.share) if self.mixup else (images_BCHW, labels)

    def _moved(self, maps_BCHW: Tensor, fill: tuple[float, ...], drawn: _Drawn) -> Tensor:
        flip_B = drawn.flip if self.augment.flip else None
        return moved(maps_BCHW, drawn.place, flip_B, shift=self.augment.shift, fill=fill)

    def _mixed(self, images_BCHW: Tensor, labels_B: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mix each image with the one before it: the order is random, so any other may be that one."""
        hot_BK = F.one_hot(labels_B, self.n_classes).to(images_BCHW.dtype)
        share_B111 = share_B[:, None, None, None]
        images = share_B111 * images_BCHW + (1 - share_B111) * images_BCHW.roll(1, 0)
        targets = share_B[:, None] * hot_BK + (1 - share_B[:, None]) * hot_BK.roll(1, 0)
        return (images, targets) if self.part[1] == 1 else (images[1:], targets[1:])


class _Drawn(NamedTuple):
    """Random numbers for some images.

    Attributes:
        place: Where the window of each begins in the image with its margins, rows and columns: B 2.
        flip: Whether it is mirrored: B.
        hole: Where the middle of its cutout lies, in [0, 1) of height and width: B 2.
        share: Its own share where it is mixed: B.
    """

    place: Tensor
    flip: Tensor
    hole: Tensor
    share: Tensor


def hard_labels(targets: Tensor) -> Tensor:
    """Return the label of each target: itself, or of shares (B K, mixed images) the class with the most."""
    return targets.argmax(1) if targets.is_floating_point() else targets


def steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Return how many batches an epoch has; they are equal up to one image, none has just one image.

    An even split uses every image and leaves no small last batch with noisy statistics. Only
    `batch_size` 2 and an odd number of images give a batch above `batch_size`: one of 3.

    >>> steps_per_epoch(1077, 64)  # 6 batches of 64 and 11 of 63
    17
    """
    return max(1, min(math.ceil(n_images / batch_size), n_images // 2))


def moved(
    maps_BCHW: Tensor, place_B2: Tensor, flip_B: Tensor | None, *, shift: int, fill: tuple[float, ...]
) -> Tensor:
    """Return each map as its window of H x W shows it, then mirrored where `flip_B` says so.

    A map is surrounded by `shift` pixels of `fill` (C numbers), and the window at place (r, c) starts r
    pixels below and c pixels right of the corner: (shift, shift) is the map itself.
    """
    if not shift and flip_B is None:
        return maps_BCHW
    height, width = maps_BCHW.shape[2:]
    framed = _framed(maps_BCHW, shift, fill) if shift else maps_BCHW
    device = maps_BCHW.device
    rows_BH = place_B2[:, :1] + torch.arange(height, device=device)
    columns_BW = torch.arange(width, device=device).expand(len(maps_BCHW), -1)
    if flip_B is not None:
        columns_BW = torch.where(flip_B[:, None], columns_BW.flip(1), columns_BW)
    columns_BW = place_B2[:, 1:] + columns_BW
    pixels_BP = (rows_BH[:, :, None] * framed.shape[3] + columns_BW[:, None, :]).flatten(1)
    seen_BCP = framed.flatten(2).gather(2, pixels_BP[:, None].expand(-1, framed.shape[1], -1))
    return seen_BCP.reshape(maps_BCHW.shape)


def _framed(maps_BCHW: Tensor, margin: int, fill: tuple[float, ...]) -> Tensor:
    """Return maps with a margin of `fill` on all sides."""
    count, channels, height, width = maps_BCHW.shape
    fill_C11 = maps_BCHW.new_tensor(fill)[:, None, None]
    framed = fill_C11.expand(count, channels, height + 2 * margin, width + 2 * margin).clone()
    framed[:, :, margin : margin + height, margin : margin + width] = maps_BCHW
    return framed


def _cut(images_BCHW: Tensor, hole_B2: Tensor, side: int) -> Tensor:
    """Set a square of `side` pixels of each image to 0, the mean, in place; its middle lies in the image."""
    inside = []
    for where_B, size in zip(hole_B2.unbind(1), images_BCHW.shape[2:], strict=True):
        first_B = (where_B * size).long().clamp(max=size - 1) - side // 2
        pixels = torch.arange(size, device=images_BCHW.device)
        inside.append((pixels >= first_B[:, None]) & (pixels < first_B[:, None] + side))
    hole_BHW = inside[0][:, :, None] & inside[1][:, None, :]
    return images_BCHW.masked_fill_(hole_BHW[:, None], 0.0)
