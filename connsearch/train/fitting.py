"""A preset for the images at hand: the same shape, another image size and number of classes."""

from __future__ import annotations

from connsearch.data.dataset import Dataset
from connsearch.errors import SpecError
from connsearch.spec.network import InputConfig, NetworkSpec
from connsearch.spec.resolve import resolve


def fitted(spec: NetworkSpec, dataset: Dataset) -> tuple[NetworkSpec, str]:
    """Return a network for a data set's images and classes, and what was changed, in words; empty if nothing.

    Raises:
        SpecError: if the network cannot take images of that size.
    """
    size = InputConfig(channels=dataset.channels, height=dataset.height, width=dataset.width)
    changes = []
    if spec.input != size:
        changes.append(f"{size.channels} x {size.height} x {size.width} images")
    if spec.n_classes != dataset.n_classes:
        changes.append(f"{dataset.n_classes} classes")
    if not changes:
        return spec, ""
    try:
        changed = spec.model_copy(update={"input": size, "n_classes": dataset.n_classes})
        resolve(changed)
    except SpecError as error:
        raise SpecError(f"{spec.name} with {' and '.join(changes)} of {dataset.name!r}: {error}") from None
    return changed, f"{spec.name}: with {' and '.join(changes)}, as {dataset.name!r} has"
