"""Which data sets exist, and what parameters they take: answered without importing torch.

An entry is a function whose keyword-only arguments, all with defaults, are the data set's
parameters; it returns a `Dataset`. The built-in entries import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from connsearch.data import on_disk
from connsearch.data.paths import PathRegistry
from connsearch.errors import DataError
from connsearch.registry import Ref, Scalar

if TYPE_CHECKING:
    from connsearch.data.dataset import Dataset

Loader = Callable[..., "Dataset"]

DATASETS = PathRegistry("dataset")


def register_dataset(name: str) -> Callable[[Loader], Loader]:
    """Return a decorator that registers a function as the data set `name`.

    Raises:
        SpecError: if the name is taken, or a keyword-only argument has no default.
    """
    return DATASETS.register(name)


def list_datasets() -> list[str]:
    """Return the registered names, sorted.

    >>> {"digits", "synthetic"} <= set(list_datasets())
    True
    """
    return sorted(DATASETS)


def load_dataset(ref: Ref | str | Mapping[str, Scalar]) -> Dataset:
    """Return a data set; asked again for the same name and parameters, the same object.

    Args:
        ref: A name ("digits"), a label ("synthetic(noise=0.5)"), the path of a folder, a `Ref`, or what a
            study file holds.

    Raises:
        SpecError: if the name or a parameter is unknown.
        DataError: if the data are missing, damaged or impossible.
    """
    checked = DATASETS.parse(ref)
    return _load(DATASETS[checked.name], checked)


@lru_cache(maxsize=8)
def _load(loader: Loader, ref: Ref) -> Dataset:
    """Call the loader; the loader is part of the key, so that a name registered anew is loaded anew."""
    from connsearch.data.dataset import Dataset

    dataset = loader(**DATASETS.bind(ref))
    if not isinstance(dataset, Dataset):
        raise DataError(f"dataset {ref.name!r}: its function returned {dataset!r}, not a Dataset")
    return dataset


@register_dataset("digits")
def digits() -> Dataset:
    """1,797 grey 8 x 8 images of handwritten digits; installed with scikit-learn, nothing to download."""
    from connsearch.data.digits import load_digits

    return load_digits()


@register_dataset("synthetic")
def synthetic(
    *,
    n_train: int = 512,
    n_val: int = 256,
    n_test: int = 256,
    channels: int = 3,
    height: int = 16,
    width: int = 16,
    n_classes: int = 10,
    noise: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """Images made up in memory, of any size: one smooth pattern per class, shifted and under noise."""
    from connsearch.data.synthetic import make_synthetic

    return make_synthetic(
        sizes=(n_train, n_val, n_test),
        shape=(channels, height, width),
        n_classes=n_classes,
        noise=noise,
        seed=seed,
    )


for _entry in (
    on_disk.parquet,
    on_disk.hub,
    on_disk.image_folder,
    on_disk.mask_folder,
    on_disk.idx,
    on_disk.cifar_binary,
):
    register_dataset(_entry.__name__)(_entry)
