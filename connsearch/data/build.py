"""From files to a data set: read, split, decode into a cache, open the cache.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from connsearch.data.cache import About, DataWarning, Entry, cached
from connsearch.data.content import content_key
from connsearch.data.dataset import Augment, Dataset, Split
from connsearch.data.decode import Decoder
from connsearch.data.fill import fill, statistics
from connsearch.data.found import Found, Part, Picture, Source, numbered, without_unlabelled
from connsearch.data.options import Options
from connsearch.data.splits import choose_rows
from connsearch.errors import DataError


def load_images(source: Source, options: Options) -> Dataset:
    """Return the data set of a source, decoded now if no cache holds it.

    Raises:
        DataError: if files are damaged, labels missing, sizes different or the cache cannot be written.
    """
    parameters = {**source.reading, **options.decoding()}
    key = content_key(source.root, source.files, parameters)
    name = re.sub(r"[^\w.-]+", "_", source.name)[:40]
    return _dataset(source, options, cached(name, key, lambda folder: _decoded(source, options, folder)))


def _dataset(source: Source, options: Options, entry: Entry) -> Dataset:
    """Return a data set whose images stay in the file."""
    about, images, labels = entry.about, torch.from_numpy(entry.images), torch.from_numpy(entry.labels)
    splits, start = {}, 0
    for name, count in zip(("train", "val", "test"), about.counts, strict=True):
        rows = slice(start, start := start + count)
        splits[name] = Split(images[rows], labels[rows], about.mean, about.std, f"{entry.digest} {name}")
    height, width = images.shape[2:]
    shift = min(height, width) // 8 if options.shift < 0 else options.shift
    return Dataset(
        source.name,
        about.class_names,
        splits["train"],
        splits["val"],
        splits["test"],
        Augment(flip=options.flip, shift=shift),
        about.mean,
        about.std,
        way_out="or set height, width and channels of the data set, and its images are brought to them",
    )


def _decoded(source: Source, options: Options, folder: Path) -> About:
    """Write images and labels of a source into a folder."""
    found = source.read()
    parts, hidden = without_unlabelled(found.parts)
    for split in hidden:
        warnings.warn(
            f"{source.root}: {split} has no labels (all are -1): not used", DataWarning, stacklevel=2
        )
    found = Found(parts, found.class_names)
    names, labels = numbered(found, source.root)
    rows = choose_rows(
        labels, share=options.val, seed=options.split_seed, names=names, place=str(source.root)
    )
    decoder = _decoder(found.parts["train"], options, source.root)
    chosen = np.concatenate([labels[split][index] for split, index in rows.values()])
    np.save(folder / "labels.npy", chosen)
    shape = decoder(_first(found.parts["train"])).shape
    images = _room(folder, (len(chosen), *shape), source.root)
    histogram = fill(images, found, rows, decoder, source.root)
    mean, std = statistics(histogram, source.root)
    counts = [len(index) for _, index in rows.values()]
    return About(str(source.root), (counts[0], counts[1], counts[2]), names, mean, std)


def _first(part: Part) -> Picture:
    with part.opened() as pictures:
        return next(pictures)


def _decoder(train: Part, options: Options, root: Path) -> Decoder:
    """Return a decoder that makes every image what the first training image is, where options do not say."""
    free = Decoder(options.channels, options.size, options.fit)
    try:
        channels = len(free(_first(train)))
    except DataError as error:
        raise DataError(f"{root}: train: {train.place(0)}: {error}") from None
    return Decoder(channels, options.size, options.fit, keep_colour=not options.channels)


def _room(folder: Path, shape: tuple[int, ...], root: Path) -> npt.NDArray[np.uint8]:
    """Return a file of that many pixels, mapped."""
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
    if needed > free:
        told = f"{needed / 1e9:.1f} GB in {folder.parent}, where {free / 1e9:.1f} GB are free"
        raise DataError(
            f"{root}: its decoded images take {told}: set the environment variable CONNSEARCH_CACHE to "
            "another folder, or a smaller height"
        )
    mapped: npt.NDArray[np.uint8] = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    if hasattr(os, "posix_fallocate"):  # a disk that fills up is an error here, not a crash later
        with (folder / "images.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return mapped
