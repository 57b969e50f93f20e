"""Tiny data sets on disk in every format that is read, all with the same images."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
OLD = 1_600_000_000


def random_images(count: int, *, height: int = 8, width: int = 8, channels: int = 3, seed: int = 0) -> Pixels:
    """Return N H W C."""
    shape = (count, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    """Return H W C (C 1 or 3) as a file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    root: Path,
    splits: dict[str, tuple[Any, Any]],
    *,
    names: tuple[str, ...] | None = ("cat", "dog"),
    columns: tuple[str, str] = ("img", "label"),
) -> Path:
    """Write (images, labels) of each split as the `datasets` library does; without names, as anyone does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image, label = columns
    root.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        cells = [
            {"bytes": x if isinstance(x, bytes) else png(x), "path": f"{i}.png"} for i, x in enumerate(images)
        ]
        table = pa.table({image: cells, label: list(labels)})
        if names is not None:
            import datasets

            features = datasets.Features(
                {image: datasets.Image(), label: datasets.ClassLabel(names=list(names))}
            )
            table = table.cast(features.arrow_schema)
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
    return root


def write_idx(root: Path, splits: dict[str, tuple[Pixels, Any]], *, zipped: bool) -> Path:
    """Write images N H W and labels."""
    root.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        for what, values in (("images-idx3", images), ("labels-idx1", np.asarray(labels, np.uint8))):
            header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            content = header + values.tobytes()
            file = root / f"{split}-{what}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(content) if zipped else content)
    return root


def write_cifar10(root: Path, images: Pixels, labels: Any) -> Path:
    """Write N 32 32 3: the last fifth as test batch, the others as two training batches."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    ]
    test = len(records) * 4 // 5
    (folder / "data_batch_1.bin").write_bytes(b"".join(records[: test // 2]))
    (folder / "data_batch_2.bin").write_bytes(b"".join(records[test // 2 : test]))
    (folder / "test_batch.bin").write_bytes(b"".join(records[test:]))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta.txt").write_text("\n".join(words) + "\n\n")
    return root


def write_tar(root: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for file in sorted(root.iterdir()):
            archive.add(file, arcname=file.name)
    return target


def write_folders(root: Path, images: Pixels, classes: list[str]) -> Path:
    for index, (image, name) in enumerate(zip(images, classes, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{index:03}.png").write_bytes(png(image))
    return root


def settle(root: Path) -> None:
    """Make files look as if they had been there for long."""
    for file in root.rglob("*"):
        os.utime(file, (OLD, OLD))
