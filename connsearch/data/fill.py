"""Every image of a data set decoded once, to where it belongs, and counted on the way.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from connsearch.data.decode import Pixels
from connsearch.data.found import Found, Labels, Pair, Part, Picture, listed
from connsearch.data.splits import Rows
from connsearch.errors import DataError

CHUNK, CHUNK_BYTES = 1024, 1 << 27
"""Images that are in memory at once; fewer, of large ones."""
TASK = 64
"""Of these a thread decodes so many at a time: small images take no longer than to hand them over."""


Decode = Callable[[Picture | Pair], Pixels]


def fill(
    images: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.uint8] | None,
    found: Found,
    rows: Rows,
    decoder: Decode,
    root: Path,
) -> npt.NDArray[np.int64]:
    """Decode images to their rows of train, val and test.

    Args:
        images: Where to: N C H W.
        maps: Where their label maps go, N H W; None if there are none.
        found: What there is.
        rows: Which image is of which split.
        decoder: Makes pixels of it; of an image with a label map C + 1 H W, the labels last.
        root: For messages.

    Returns:
        How often each channel has each value in train: C 256.

    Raises:
        DataError: if an image is damaged or of another size.
    """
    n_channels = images.shape[1]
    histogram = np.zeros((n_channels, 256), np.int64)
    shape = (n_channels + (maps is not None), *images.shape[2:])
    n_train = len(rows["train"][1])
    for split, part in found.parts.items():
        target, done = _targets(rows, split, len(part.labels)), 0
        with closing(_decoded(part, decoder, f"{root}: {split}", shape)) as chunks:
            for chunk in chunks:
                to = target[done : done + len(chunk)]
                done += len(chunk)
                pixels_NCHW = np.stack(chunk)[: len(to)]
                images[to[to >= 0]] = pixels_NCHW[to >= 0, :n_channels]
                if maps is not None:
                    maps[to[to >= 0]] = pixels_NCHW[to >= 0, n_channels]
                histogram += _histogram(pixels_NCHW[(to >= 0) & (to < n_train), :n_channels])
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
    """Return C 256, of N C H W."""
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
    part: Part, decoder: Decode, place: str, shape: tuple[int, ...]
) -> Generator[list[Pixels], None, None]:
    """Yield the images of a part in order, some at a time, decoded by all cores."""

    def decode(pictures: list[Picture | Pair]) -> list[Pixels | DataError]:
        return [_tried(decoder, picture) for picture in pictures]

    done = 0
    at_once = max(1, min(CHUNK, CHUNK_BYTES // math.prod(shape)))
    task = min(TASK, -(-at_once // (os.cpu_count() or 1)))
    with part.opened() as pictures, ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in _chunks(pictures, at_once):
            good: list[Pixels] = []
            for pixels in chain.from_iterable(pool.map(decode, _chunks(chunk, task))):
                if isinstance(pixels, DataError):
                    raise DataError(f"{place}: {part.place(done + len(good))}: {pixels}")
                good.append(pixels)
            _check_sizes(good, shape, part, done, place)
            yield good
            done += len(good)


def _tried(decoder: Decode, picture: Picture | Pair) -> Pixels | DataError:
    try:
        return decoder(picture)
    except DataError as error:
        return error


def _chunks(pictures: Iterable[Picture | Pair], size: int) -> Iterator[list[Picture | Pair]]:
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
