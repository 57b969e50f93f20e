"""Classification data sets as tensors: the names need no torch, the images do.

`connsearch.data.registry` lists and checks data sets without importing torch; everything that holds
tensors is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from connsearch.data.registry import DATASETS, list_datasets, load_dataset, register_dataset

if TYPE_CHECKING:
    from connsearch.data.dataset import Augment, Dataset, Split, check_matches

__all__ = [
    "DATASETS",
    "Augment",
    "Dataset",
    "Split",
    "check_matches",
    "list_datasets",
    "load_dataset",
    "register_dataset",
]

_LAZY = {"Augment", "Dataset", "Split", "check_matches"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module("connsearch.data.dataset"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
