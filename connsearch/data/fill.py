"""Every image of a data set decoded once, to where it belongs, and counted on the way.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from connsearch.data.decode import Decoder, Pixels
from connsearch.data.found import Found, Labels, Part, Picture, listed
from connsearch.data.splits import Rows
from connsearch.errors import DataError

CHUNK = 1024
"""Images that are in memory at once."""
TASK = 64
"""Of these a thread decodes so many at a time: small images take no longer than to hand them over."""


def fill(
    images: npt.NDArray[np.uint8], found: Found, rows: Rows, decoder: Decoder, root: Path
) -> npt.NDArray[np.int64]:
    """Decode images to their rows of train, val and test.

    Args:
        images: Where to: N C H W.
        found: What there is.
        rows: Which image is of which split.
        decoder: Makes pixels of it.
        root: For messages.

    Returns:
        How often each channel has each value in train: C 256.

    Raises:
        DataError: if an image is damaged or of another size.
    """
    histogram = np.zeros((images.shape[1], 256), np.int64)
    n_train = len(rows["train"][1])
    for split, part in found.parts.items():
        target, done = _targets(rows, split, len(part.labels)), 0
        with closing(_decoded(part, decoder, f"{root}: {split}", images.shape[1:])) as chunks:
            for chunk in chunks:
                to = target[done : done + len(chunk)]
                done += len(chunk)
                pixels_NCHW = np.stack(chunk)[: len(to)]
                images[to[to >= 0]] = pixels_NCHW[to >= 0]
                histogram += _histogram(pixels_NCHW[(to >= 0) & (to < n_train)])
        if done != len(part.labels):
            raise DataError(
                f"{root}: {split}: {done} images for {len(part.labels)} labels: a file is damaged"
            )
    return histogram


def statistics(histogram: npt.NDArray[np.int64], root: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, exact but for the last rounding.

    Args:
        histogram: As `fill` returns it.
        root: For messages.

    Raises:
        DataError: if a channel has one value only.
    """
    value, count_C = np.arange(256), histogram.sum(1)
    mean_C = histogram @ value / count_C
    var_C = (histogram * (value - mean_C[:, None]) ** 2).sum(1) / count_C
    if not (var_C > 0).all():
        raise DataError(f"{root}: all training images are of one and the same colour: nothing can be learned")
    return tuple(mean_C.tolist()), tuple(np.sqrt(var_C).tolist())


def _histogram(pixels_NCHW: Pixels) -> npt.NDArray[np.int64]:
    """Return C 256."""
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in pixels_NCHW.swapaxes(0, 1)])


def _targets(rows: Rows, split: str, count: int) -> Labels:
    """Return for each image of a split on disk its row among all; -1 for none."""
    target, start = np.full(count, -1, np.int64), 0
    for name, index in rows.values():
        if name == split:
            target[index] = np.arange(start, start + len(index))
        start += len(index)
    return target


def _decoded(
    part: Part, decoder: Decoder, place: str, shape: tuple[int, ...]
) -> Generator[list[Pixels], None, None]:
    """Yield the images of a part in order, some at a time, decoded by all cores."""

    def decode(pictures: list[Picture]) -> list[Pixels | DataError]:
        return [_tried(decoder, picture) for picture in pictures]

    done = 0
    with part.opened() as pictures, ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in _chunks(pictures, CHUNK):
            good: list[Pixels] = []
            for pixels in chain.from_iterable(pool.map(decode, _chunks(chunk, TASK))):
                if isinstance(pixels, DataError):
                    raise DataError(f"{place}: {part.place(done + len(good))}: {pixels}")
                good.append(pixels)
            _check_sizes(good, shape, part, done, place)
            yield good
            done += len(good)


def _tried(decoder: Decoder, picture: Picture) -> Pixels | DataError:
    try:
        return decoder(picture)
    except DataError as error:
        return error


def _chunks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    iterator = iter(pictures)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _check_sizes(images: list[Pixels], shape: tuple[int, ...], part: Part, before: int, place: str) -> None:
    """Make sure that images are C H W as expected; `before` is the index of the first one."""
    other = next((index for index, pixels in enumerate(images) if pixels.shape != shape), None)
    if other is None:
        return
    _, height, width = shape
    sizes = Counter(_size(pixels) for pixels in images)
    sizes[f"{height} x {width}"] += 0
    found = listed([size for size, _ in sizes.most_common()])
    raise DataError(
        f"{place}: {part.place(before + other)} is {_size(images[other])} pixels, the first training image "
        f"{height} x {width} (sizes found: {found}): set height and width of the data set, and all images "
        "are brought to them"
    )


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[2]}"
