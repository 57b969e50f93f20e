"""The registered data sets that are files: each says where they are and how they are read.

Besides its own parameters each takes those of `Options`. Nothing is opened, and no reader imported, before a
data set is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any

from connsearch.data.options import Options
from connsearch.errors import DataError

if TYPE_CHECKING:
    from connsearch.data.dataset import Dataset
    from connsearch.data.found import Source


def _with_options(**other_defaults: Any) -> Callable[[Callable[..., Source]], Callable[..., Dataset]]:
    """Return a decorator that makes a data set of a source, and adds the parameters of `Options`."""
    defaults = {field.name: field.default for field in fields(Options)} | other_defaults

    def decorate(find: Callable[..., Source]) -> Callable[..., Dataset]:
        @wraps(find)
        def load(**given: Any) -> Dataset:
            from connsearch.data.build import load_images

            chosen = {name: given.pop(name, default) for name, default in defaults.items()}
            try:
                options = Options(**chosen)
            except DataError as error:
                raise DataError(f"dataset {find.__name__!r}: {error}") from None
            return load_images(find(**given), options)

        own = inspect.signature(find).parameters.values()
        added = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in defaults.items()]
        load.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # what inspect reads
        return load

    return decorate


@_with_options()
def parquet(
    *,
    path: str = "",
    image_column: str = "",
    label_column: str = "",
    mask_column: str = "",
    classes: str = "",
    void: int = -1,
    config: str = "",
) -> Source:
    """A folder of Parquet files as the Hugging Face hub has them."""
    from connsearch.data.parquet import Columns, parquet_source

    columns = Columns(image_column, label_column, mask_column, classes, void)
    return parquet_source(_given(path, "parquet"), columns, config=config)


@_with_options()
def hub(
    *,
    repo: str = "",
    image_column: str = "",
    label_column: str = "",
    mask_column: str = "",
    classes: str = "",
    void: int = -1,
    config: str = "",
    revision: str = "",
) -> Source:
    """A data set of the Hugging Face hub, downloaded when it is first asked for."""
    from connsearch.data.parquet import Columns, hub_source

    if not repo:
        raise DataError("dataset 'hub': repo is missing: hub(repo=uoft-cs/cifar10)")
    columns = Columns(image_column, label_column, mask_column, classes, void)
    return hub_source(repo, columns, config=config, revision=revision)


@_with_options()
def image_folder(*, path: str = "") -> Source:
    """Images in a folder for each class, perhaps in folders train, val and test."""
    from connsearch.data.folders import folder_source

    return folder_source(_given(path, "image_folder"))


@_with_options()
def mask_folder(*, path: str = "", classes: str = "", void: int = -1) -> Source:
    """Images and, in a folder beside them, a label map of the same name for each."""
    from connsearch.data.mask_folders import mask_folder_source

    return mask_folder_source(_given(path, "mask_folder"), classes=classes, void=void)


@_with_options(flip=False)
def idx(*, path: str = "") -> Source:
    """MNIST, Fashion-MNIST and others in IDX files, with .gz or without; not mirrored."""
    from connsearch.data.idx import idx_source

    return idx_source(_given(path, "idx"))


@_with_options()
def cifar_binary(*, path: str = "", labels: str = "fine") -> Source:
    """CIFAR-10 or CIFAR-100, the binary version: the tar.gz or the folder it holds."""
    from connsearch.data.cifar import cifar_source

    return cifar_source(_given(path, "cifar_binary"), labels=labels)


def _given(path: str, name: str) -> str:
    if not path:
        raise DataError(f"dataset {name!r}: path is missing: {name}(path=<folder>)")
    return path
