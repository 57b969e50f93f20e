"""Made images: a class is a smooth random pattern, an image is that pattern moved and under noise.

Learnable, as patterns differ; not trivial, as a pattern may lie anywhere: with the default
parameters a linear model misses about half, a small convolutional network next to nothing. Of any
size, so that tests and benchmarks need no data.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Augment, Dataset
from connsearch.errors import DataError

CELLS = 4
"""A pattern is drawn on a grid of CELLS x CELLS random values and interpolated."""

MOST_SEED = 2**64 - 1
MOST_NUMBERS = 2**32
"""Of one split; more is a slip, not a data set."""


def make_synthetic(
    *, sizes: tuple[int, int, int], shape: tuple[int, int, int], n_classes: int, noise: float, seed: int
) -> Dataset:
    """Return a data set without augmentation; equal arguments give equal images.

    Args:
        sizes: Images in train, val, test. Labels are balanced within each.
        shape: C, H, W.
        n_classes: At least 2.
        noise: Standard deviation of the noise; that of the patterns is 1.
        seed: Draws patterns, shifts and noise.

    Raises:
        DataError: if a value is out of its range, naming it.
    """
    _check(sizes, shape, n_classes, noise, seed)
    generator = Generator().manual_seed(seed)
    patterns_KCHW = _patterns(n_classes, shape, generator)
    train, val, test = (_draw(patterns_KCHW, size, noise, generator) for size in sizes)
    names = [f"pattern {k}" for k in range(n_classes)]
    return Dataset.normalised("synthetic", names, train=train, val=val, test=test, augment=Augment())


def _patterns(n_classes: int, shape: tuple[int, int, int], generator: Generator) -> Tensor:
    """Return K C H W: smooth fields of mean 0 and standard deviation 1 over the classes' pixels."""
    channels, height, width = shape
    grid = torch.randn(n_classes, channels, CELLS, CELLS, generator=generator)
    smooth = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    return (smooth - smooth.mean()) / smooth.std()


def _draw(patterns_KCHW: Tensor, size: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return images N C H W and labels N; a pattern lies anywhere, around the edges."""
    n_classes, _, height, width = patterns_KCHW.shape
    labels = torch.randperm(size, generator=generator) % n_classes
    rows_NH = _moved(size, height, generator)
    columns_NW = _moved(size, width, generator)
    images_NHWC = patterns_KCHW[labels[:, None, None], :, rows_NH[:, :, None], columns_NW[:, None, :]]
    images_NCHW = images_NHWC.permute(0, 3, 1, 2)
    return images_NCHW + noise * torch.randn(images_NCHW.shape, generator=generator), labels


def _moved(size: int, length: int, generator: Generator) -> Tensor:
    """Return N `length`: for each image, which pixel of the pattern each of its pixels shows."""
    offset_N = torch.randint(length, (size,), generator=generator)
    return (torch.arange(length) + offset_N[:, None]) % length


def _check(
    sizes: tuple[int, int, int], shape: tuple[int, int, int], n_classes: int, noise: float, seed: int
) -> None:
    lowest = dict.fromkeys(("n_train", "n_val", "n_test", "channels", "height", "width"), 1)
    lowest |= {"n_classes": 2, "seed": 0}
    values = (*sizes, *shape, n_classes, seed)
    for (name, low), value in zip(lowest.items(), values, strict=True):
        if value < low:
            raise DataError(f"dataset 'synthetic': {name} must be {low} or more, got {value}")
    if seed > MOST_SEED:
        raise DataError(f"dataset 'synthetic': seed must be at most {MOST_SEED}, got {seed}")
    if (numbers := max(*sizes, n_classes) * math.prod(shape)) > MOST_NUMBERS:
        raise DataError(
            f"dataset 'synthetic': {max(*sizes, n_classes)} images of {' x '.join(map(str, shape))} are "
            f"{numbers} numbers, more than {MOST_NUMBERS}: ask for fewer or smaller ones"
        )
    if not (math.isfinite(noise) and noise >= 0):
        raise DataError(f"dataset 'synthetic': noise must be finite and 0 or more, got {noise}")
