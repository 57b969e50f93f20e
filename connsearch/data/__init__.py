"""Classification data sets as tensors: the names need no torch, the images do.

`connsearch.data.registry` lists and checks data sets without importing torch; everything that holds
tensors is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy
from connsearch.data.registry import DATASETS, list_datasets, load_dataset, register_dataset

if TYPE_CHECKING:
    from connsearch.data.dataset import Augment, Dataset, Split, check_matches
    from connsearch.data.joining import joined

__all__ = [
    "DATASETS",
    "Augment",
    "Dataset",
    "Split",
    "check_matches",
    "joined",
    "list_datasets",
    "load_dataset",
    "register_dataset",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        **dict.fromkeys(["Augment", "Dataset", "Split", "check_matches"], "connsearch.data.dataset"),
        "joined": "connsearch.data.joining",
    },
)
