"""Sums begun ahead: several readers of the same sources have theirs begun in one pass over these.

Where each layer reads all earlier outputs, layer j and the three after it have j sources in common. When
layer j runs, one pass over them makes its sum and begins those of the other three, which add what is new when
they run. Sources are read a quarter as often, and nothing more is kept: what was begun becomes the sum.

Which readers begin together is decided when they run, not in the program: it pays for maps that no cache
holds, and their size depends on the batch. What it saves then is a formula, `ir.traffic.saved_ahead`. Where
torch looks on, as under `torch.compile`, each reader has its sum made by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from connsearch.ir.traffic import saved_ahead
from connsearch.kernels.fakes import sum_dtype
from connsearch.kernels.operators import is_watched
from connsearch.kernels.sums_ahead import begin_sums
from connsearch.nn.shared import Begun, Shared, Weights
from connsearch.nn.statistics import as_dtype

AT_ONCE = 4  # readers; more are not faster, and what they have begun waits longer
CACHE_BYTES = 1 << 24  # what readers have in common is found in a cache again if it is not larger


def begun_for(weights: Weights, sources: Sequence[Shared]) -> Begun | None:
    """Return what was begun of a reader's sum, maybe just now, together with those of readers to come.

    Args:
        weights: Of the reader, whose turn it is.
        sources: What it reads.
    """
    if weights.begun is None:
        _begin(weights, sources)
    begun, weights.begun = weights.begun, None
    if begun is None or _in_common(begun.keys, sources) < len(begun.keys):
        return None
    return begun


def _begin(weights: Weights, sources: Sequence[Shared]) -> None:
    first = sources[0].value
    if len(sources) * first.numel() * first.element_size() <= CACHE_BYTES or is_watched(first, (first,)):
        return
    readers, n = _together(weights, sources)
    if not readers:
        return
    weight_KLC = torch.stack([_coefficients(reader, sources[:n]) for reader in readers])
    sums = [torch.empty_like(first) for _ in readers]
    begin_sums([source.value for source in sources[:n]], weight_KLC, sums)
    keys = [source.port.key for source in sources[:n]]
    for reader, total in zip(readers, sums, strict=True):
        reader.begun = Begun(total, keys)


def _together(weights: Weights, sources: Sequence[Shared]) -> tuple[list[Weights], int]:
    """Return which readers, this one first, begin how many of its sources to the most gain; or none."""
    readers = sources[-1].port.readers
    at = next((i for i, reader in enumerate(readers) if reader is weights), len(readers))
    best, found, n = 0, 0, len(sources)
    common = n
    for k, reader in enumerate(readers[at : at + AT_ONCE], start=1):
        if reader.begun is not None or reader.module is None or not reader.module.training:
            break
        common = min(common, _in_common(reader.made, sources))
        if saved_ahead(common, k) > best:
            best, found, n = saved_ahead(common, k), k, common
    return list(readers[at : at + found]), n


def _in_common(keys: Sequence[object], sources: Sequence[Shared]) -> int:
    """Return how many of the first sources are those of the keys, in the same order."""
    same = (source.port.key is key for key, source in zip(keys, sources, strict=False))
    return sum(1 for _ in takewhile(bool, same))


def _coefficients(reader: Weights, sources: Sequence[Shared]) -> Tensor:
    """Return what a reader multiplies sources by, L C: where it normalises them, with 1 / deviation."""
    value = sources[0].value
    weight_LC = as_dtype(reader.tensor[: len(sources), 0], sum_dtype(value.dtype))
    if reader.normalized:
        rstd = [s.port.stats.rstd(reader.eps) for s in sources if s.port.stats is not None]
        weight_LC = weight_LC * torch.stack(rstd)
    return weight_LC.expand(-1, value.shape[1])
