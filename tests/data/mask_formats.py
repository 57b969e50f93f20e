"""Tiny data sets of images with label maps, in every layout that is read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from disk_formats import png
from PIL import Image

Pixels = npt.NDArray[np.uint8]
SPLITS = {"train": 6, "val": 3, "test": 2}


def pair(seed: int, *, height: int = 8, width: int = 12, n_classes: int = 3) -> tuple[Pixels, Pixels]:
    """Return an image, H W 3, whose red tells its labels, H W, 0 up to `n_classes` (which is void)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes + 1, (height, width), dtype=np.uint8)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 0] = 40 * labels
    return image, labels


def splits(**size: int) -> dict[str, list[tuple[Pixels, Pixels]]]:
    """Return pairs of each split, all different."""
    return {
        name: [pair(100 * index + i, **size) for i in range(count)]
        for index, (name, count) in enumerate(SPLITS.items())
    }


def grey(labels: Pixels) -> bytes:
    return png(labels[..., None])


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_pairs(
    root: Path,
    data: Mapping[str, list[tuple[Any, Any]]],
    *,
    columns: tuple[str, str] = ("image", "annotation"),
    described: bool = True,
) -> Path:
    """Write a Parquet file for each split, as the `datasets` library does; or without its schema."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    for split, pairs in data.items():
        cells = [[_cell(x) for x in column] for column in zip(*pairs, strict=True)]
        table = pa.table(dict(zip(columns, cells, strict=True)))
        if described:
            features = datasets.Features(dict.fromkeys(columns, datasets.Image()))
            table = table.cast(features.arrow_schema)
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
    return root


def _cell(x: Any) -> dict[str, Any] | None:
    if x is None:
        return None
    content = x if isinstance(x, bytes) else png(x) if x.ndim == 3 else grey(x)
    return {"bytes": content, "path": "x.png"}


def write_files(data: list[tuple[Pixels, Pixels]], images: Path, masks: Path, start: int = 0) -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for index, (image, labels) in enumerate(data, start=start):
        (images / f"{index:03}.png").write_bytes(png(image))
        (masks / f"{index:03}.png").write_bytes(grey(labels))
