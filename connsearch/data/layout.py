"""In which layout is a data set on disk? Looked at by names, not by content."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from connsearch.data.cifar import cifar_folder
from connsearch.data.folders import SUFFIXES, holds_image_folders
from connsearch.data.found import listed
from connsearch.data.idx import idx_files
from connsearch.data.mask_folders import holds_masks
from connsearch.data.parquet_rows import parquet_files
from connsearch.errors import DataError


def layout(path: str) -> str:
    """Return the name of the registered data set that reads a folder or an archive.

    Raises:
        DataError: if there is nothing, or nothing that is known; with what there is.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such file or folder: give the path of a data set")
    if root.is_file():
        if root.name.endswith((".tar.gz", ".tgz", ".tar")):
            return "cifar_binary"
        raise DataError(f"{root}: a file, no folder and no archive of CIFAR: give the folder that it lies in")
    if next(parquet_files(root), None) is not None:
        return "parquet"
    if idx_files(root):
        return "idx"
    if cifar_folder(root) is not None:
        return "cifar_binary"
    if holds_masks(root):
        return "mask_folder"
    if holds_image_folders(root):
        return "image_folder"
    raise DataError(f"{root}: no data set: {_held(root)}; {_KNOWN}")


_KNOWN = (
    "what can be read: Parquet files, IDX files (train-images-idx3-ubyte), the binary version of CIFAR, "
    "a folder of images for each class, or folders images/ and masks/"
)


def _held(root: Path) -> str:
    """Return what a folder holds, for a message."""
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    if not entries:
        return "the folder is empty"
    kinds = Counter("folder" if entry.is_dir() else (entry.suffix or entry.name) for entry in entries)
    counted = listed([f"{count} x {kind}" for kind, count in kinds.most_common()])
    if any(kind.lower() in SUFFIXES for kind in kinds):
        return f"its images lie in no folders, so they have no labels (found {counted})"
    return f"found {counted}"
