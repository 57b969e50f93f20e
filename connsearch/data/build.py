"""From files to a data set: read, split, decode into a cache, open the cache.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from connsearch.data.cache import About, DataWarning, Entry, cached
from connsearch.data.content import content_key
from connsearch.data.dataset import Augment, Dataset, Split
from connsearch.data.decode import Decoder, Pixels
from connsearch.data.fill import fill, statistics
from connsearch.data.found import Found, Pair, Part, Picture, Source, numbered, without_unlabelled
from connsearch.data.masks import PairDecoder, numbers_of
from connsearch.data.options import Options
from connsearch.data.splits import Rows, choose_rows
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
        about.void,
        way_out=_WAY_OUT + ("; classes and void say what labels stand for" if labels.ndim == 3 else ""),
    )


_WAY_OUT = "or set height, width and channels of the data set, and its images are brought to them"


def _decoded(source: Source, options: Options, folder: Path) -> About:
    """Write images and labels of a source into a folder."""
    found = source.read()
    parts, hidden = without_unlabelled(found.parts)
    for split in hidden:
        warnings.warn(
            f"{source.root}: {split} has no labels (all are -1): not used", DataWarning, stacklevel=2
        )
    found = replace(found, parts=parts)
    if found.void is not None:
        return _decoded_pairs(found, found.void, options, folder, source.root)
    names, labels = numbered(found, source.root)
    rows = choose_rows(
        labels, share=options.val, seed=options.split_seed, names=names, place=str(source.root)
    )
    decoder = _decoder(found.parts["train"], options, source.root)
    chosen = np.concatenate([labels[split][index] for split, index in rows.values()])
    np.save(folder / "labels.npy", chosen)
    shape = _alone(decoder, _first(found.parts["train"])).shape
    images = _room(folder / "images.npy", (len(chosen), *shape), source.root)
    histogram = fill(images, None, found, rows, partial(_alone, decoder), source.root)
    return _about(source.root, rows, names, histogram)


def _decoded_pairs(found: Found, void: int, options: Options, folder: Path, root: Path) -> About:
    """Write images and label maps into a folder."""
    counted = {split: part.labels for split, part in found.parts.items()}
    for split, labels in counted.items():
        if len(labels) == 0:
            raise DataError(f"{root}: {split}: holds no images")
    rows = choose_rows(counted, share=options.val, seed=options.split_seed, names=("",), place=str(root))
    train = found.parts["train"]
    decoder = PairDecoder(_decoder(train, options, root), void, len(found.class_names))
    try:
        shape = decoder(_first(train)).shape
    except DataError as error:
        raise DataError(f"{root}: train: {train.place(0)}: {error}") from None
    n_images = sum(len(index) for _, index in rows.values())
    images = _room(folder / "images.npy", (n_images, shape[0] - 1, *shape[1:]), root)
    maps = _room(folder / "labels.npy", (n_images, *shape[1:]), root)
    histogram = fill(images, maps, found, rows, decoder, root)
    names = found.class_names or numbers_of(maps, void)
    if len(names) < 2:
        raise DataError(f"{root}: label maps hold {len(names)} class besides {void}, at least 2 are needed")
    return _about(root, rows, names, histogram, void)


def _about(
    root: Path, rows: Rows, names: tuple[str, ...], histogram: npt.NDArray[np.int64], void: int = -1
) -> About:
    mean, std = statistics(histogram, root)
    counts = [len(index) for _, index in rows.values()]
    return About(str(root), (counts[0], counts[1], counts[2]), names, mean, std, void)


def _alone(decoder: Decoder, picture: Picture | Pair) -> Pixels:
    assert not isinstance(picture, tuple)
    return decoder(picture)


def _first(part: Part) -> Picture | Pair:
    with part.opened() as pictures:
        return next(pictures)


def _decoder(train: Part, options: Options, root: Path) -> Decoder:
    """Return a decoder that makes every image what the first training image is, where options do not say."""
    free = Decoder(options.channels, options.size, options.fit)
    first = _first(train)
    try:
        channels = len(free(first[0] if isinstance(first, tuple) else first))
    except DataError as error:
        raise DataError(f"{root}: train: {train.place(0)}: {error}") from None
    return Decoder(channels, options.size, options.fit, keep_colour=not options.channels)


def _room(file: Path, shape: tuple[int, ...], root: Path) -> npt.NDArray[np.uint8]:
    """Return a file of that many pixels, mapped."""
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(file.parent).free
    if needed > free:
        told = f"{needed / 1e9:.1f} GB in {file.parent.parent}, where {free / 1e9:.1f} GB are free"
        raise DataError(
            f"{root}: its decoded images take {told}: set the environment variable CONNSEARCH_CACHE to "
            "another folder, or a smaller height"
        )
    mapped: npt.NDArray[np.uint8] = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a disk that fills up is an error here, not a crash later
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
    return mapped
