"""Cost: parameters, multiply-accumulates, FLOPs by convention, activation memory; all exact integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

from connsearch.errors import SpecError, did_you_mean
from connsearch.text import si, table

CONVENTIONS = ("2mac", "delugenet", "sparsenet")
NOTE = (
    "For one image. FLOPs = 2 (conv + linear). Memory: activations in float32, peak in inference, kept in "
    "training."
)


@dataclass(frozen=True)
class Cost:
    """Cost of a network or a part of one, for one image and one forward pass. Costs add.

    Attributes:
        params: Trainable scalars.
        conv_macs: Multiply-accumulates in convolutions.
        linear_macs: Multiply-accumulates in linear layers.
        aggregation_macs: Multiply-accumulates of weighted aggregations: one for each source element.
        norm_elements: Elements normalised in units, transitions and heads.
        source_elements: Elements weighted by an aggregation.
        add_elements: Elements written by plain addition (residual sums, one running addition each).
    """

    params: int = 0
    conv_macs: int = 0
    linear_macs: int = 0
    aggregation_macs: int = 0
    norm_elements: int = 0
    source_elements: int = 0
    add_elements: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions, linear layers and weighted aggregations."""
        return self.conv_macs + self.linear_macs + self.aggregation_macs

    def flops(self, convention: str = "2mac") -> int:
        """Return FLOPs in a named convention.

        `2mac`: 2 (conv + linear). `delugenet`: that, 2 for each normalised element, 3 for each
        cross-layer source element, 2 for each added element (DelugeNets, arXiv 1611.05552, Tables 2
        and 3). `sparsenet`: 2mac and 2 for each normalised element (SparseNet, arXiv 1801.05895).

        Raises:
            SpecError: if the convention is unknown.
        """
        base = 2 * (self.conv_macs + self.linear_macs)
        if convention == "2mac":
            return base
        if convention == "sparsenet":
            return base + 2 * self.norm_elements
        if convention == "delugenet":
            return base + 2 * self.norm_elements + 3 * self.source_elements + 2 * self.add_elements
        raise SpecError(f"unknown FLOP convention {convention!r}. {did_you_mean(convention, CONVENTIONS)}")

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """Return the sum of costs."""
        return sum(costs, start=cls())


@dataclass(frozen=True)
class NetworkCost(Cost):
    """Cost of a whole network.

    Attributes:
        inference_bytes: Most bytes of activations alive at once in evaluation, for one float32 image, the
            image included; a tensor dies with its last reader.
        training_bytes: Bytes of activations kept for backward at the end of a forward pass in training.
        n_layers: Number of units.
        n_edges: Number of connections.
    """

    inference_bytes: int = 0
    training_bytes: int = 0
    n_layers: int = 0
    n_edges: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return plain data, the unit of each number in its key."""
        return {
            "params": self.params,
            "macs": self.macs,
            "macs_by": {
                "conv": self.conv_macs,
                "linear": self.linear_macs,
                "aggregation": self.aggregation_macs,
            },
            "flops": {name: self.flops(name) for name in CONVENTIONS},
            "peak_activation_bytes": {"inference": self.inference_bytes, "training": self.training_bytes},
            "n_layers": self.n_layers,
            "n_edges": self.n_edges,
        }

    def row(self) -> dict[str, str]:
        """Return what a table of costs says, by the column's name."""
        counts = {
            "params": self.params,
            "MACs": self.macs,
            "conv": self.conv_macs,
            "linear": self.linear_macs,
            "aggregation": self.aggregation_macs,
            "FLOPs": self.flops(),
        }
        memory = {"inference": self.inference_bytes, "training": self.training_bytes}
        sizes = {"layers": str(self.n_layers), "edges": str(self.n_edges)}
        written = {name: si(count) for name, count in counts.items()}
        return written | {name: f"{si(size)}B" for name, size in memory.items()} | sizes

    def __str__(self) -> str:
        row = self.row()
        return f"{table([*row], [[*row.values()]])}\n{NOTE}"

    @classmethod
    def of(cls, additive: Cost, **rest: int) -> Self:
        """Return the cost of a network from the sum over its parts and what does not add."""
        return cls(**vars(additive), **rest)
