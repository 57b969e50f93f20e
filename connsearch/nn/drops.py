"""Drops as torch does them: the factor of each source of a node, drawn anew for each forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from connsearch.spec.drops import EdgeDrop


class Draws:
    """The random decisions of one forward pass, made when they are first asked for.

    Whole sources, paths and columns are drawn from the CPU's random state, elements from the device's.

    Args:
        n_columns: How many columns the network has.
        training: In evaluation nothing is drawn: a source is multiplied by its probability of counting.
    """

    def __init__(self, n_columns: int, *, training: bool) -> None:
        self._n_columns = n_columns
        self._training = training
        self._sources: dict[int, float] = {}
        self._column: int | None = None
        self._drawn_column = False

    def weaken(
        self, drops: Sequence[EdgeDrop | None], names: Sequence[int], sources: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the sources of a node, B C H W each, as its drops leave them.

        Args:
            drops: What is done to each source.
            names: A number for each source, the same for every node that reads it.
            sources: The sources.
        """
        if not self._training:
            return [
                h if drop is None or drop.kind == "path" or drop.survival == 1 else h * drop.survival
                for h, drop in zip(sources, drops, strict=True)
            ]
        if any(drop is not None and drop.kind == "path" for drop in drops):
            factors = self._paths([drop for drop in drops if drop is not None])
            return [h if f == 1 else h * f for h, f in zip(sources, factors, strict=True)]
        return [
            h if drop is None or drop.survival == 1 else self._weakened(h, drop, name)
            for h, drop, name in zip(sources, drops, names, strict=True)
        ]

    def _weakened(self, h: Tensor, drop: EdgeDrop, source: int) -> Tensor:
        if drop.kind == "element":
            return h * torch.empty_like(h).bernoulli_(drop.survival)
        if source not in self._sources:
            self._sources[source] = 1.0 if torch.rand(()).item() < drop.survival else 0.0
        return h * self._sources[source]

    def _paths(self, drops: Sequence[EdgeDrop]) -> list[float]:
        """Return factors that turn the mean over all branches into the mean over those that survive."""
        column = self._one_column(drops[0].global_share)
        kept = [drop.column == column for drop in drops]
        if column is None:
            kept = [bool(torch.rand(()).item() < drop.survival) for drop in drops]
            if not any(kept):
                kept[int(torch.randint(len(drops), ()).item())] = True
        elif not any(kept):  # no branch of that column meets here: only other columns read this node
            kept = [True] * len(drops)
        return [len(drops) / sum(kept) if keep else 0.0 for keep in kept]

    def _one_column(self, share: float) -> int | None:
        """Return the column that is kept throughout this pass, or None if each node draws for itself."""
        if not self._drawn_column:
            self._drawn_column = True
            if torch.rand(()).item() < share:
                self._column = int(torch.randint(self._n_columns, ()).item())
        return self._column
