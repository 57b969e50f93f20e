"""Drops: what training does at random to edges between nodes, as torch-free rules.

A rule says, for each edge into a node that adds or averages its sources, how the source is weakened while
training and by what it is scaled in evaluation; `connsearch.nn.drops` does it. Other edges are left alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.registry import Ref, Registry

Edge = tuple[int, int]


class EdgeDrop(NamedTuple):
    """What happens to one edge.

    Attributes:
        kind: `source`: the source counts wholly or not at all, for all its readers alike, drawn once for
            each batch. `element`: each element counts or not. `path`: of the edges into a node some are
            kept, at least one, and their mean is taken.
        survival: Probability of counting; evaluation multiplies by it, except for `path`.
        global_share: For `path`: how often one column is kept throughout the network instead.
        column: For `path`: the column (the source's `path`) that the edge belongs to.
    """

    kind: Literal["source", "element", "path"]
    survival: float
    global_share: float = 0.0
    column: int = 0


class Drop(ABC):
    """A rule. Parameters are dataclass fields with defaults."""

    @abstractmethod
    def edges(self, graph: ConnectivityGraph, readers: Collection[int]) -> dict[Edge, EdgeDrop]:
        """Return what happens to edges into `readers`, the nodes that add or average several sources."""


DROPS: Registry[Callable[..., Drop]] = Registry("drop")


def drop_rule(ref: Ref) -> Drop:
    """Return the rule of a reference.

    Raises:
        SpecError: if a parameter has a value that the rule does not take.
    """
    params: dict[str, Any] = DROPS.bind(ref)
    return DROPS[ref.name](**params)


def _probability(rule: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise SpecError(f"drop {rule!r}: {name} must lie between 0 and 1, got {value}")


def _depth_of_units(graph: ConnectivityGraph) -> dict[int, float]:
    """Return l / L for the l-th of L units."""
    units = [index for index, node in enumerate(graph.nodes) if node.kind == "unit"]
    return {index: number / len(units) for number, index in enumerate(units, start=1)}


def _decayed(survival: float, depth: float) -> float:
    return 1 - depth * (1 - survival)


@DROPS.register("stochastic_depth")
@dataclass(frozen=True, kw_only=True)
class StochasticDepth(Drop):
    """h_l = skip + b_l F_l, b_l ~ Bernoulli(p_l), p_l = 1 - l/L (1 - survival); p_l F_l in evaluation.

    Huang et al., arXiv 1603.09382. The last unit's survival of 0.5 is recalled, not confirmed.
    """

    survival: float = 0.5

    def __post_init__(self) -> None:
        _probability("stochastic_depth", survival=self.survival)

    def edges(self, graph: ConnectivityGraph, readers: Collection[int]) -> dict[Edge, EdgeDrop]:
        """Every edge from a unit."""
        depths = _depth_of_units(graph)
        return {
            (source, reader): EdgeDrop("source", _decayed(self.survival, depths[source]))
            for reader in readers
            for source in graph.sources[reader]
            if source in depths
        }


@DROPS.register("swapout")
@dataclass(frozen=True, kw_only=True)
class Swapout(Drop):
    """h_l = T_1 * x_l + T_2 * F_l(x_l), every element of T_1 and T_2 Bernoulli(p_l), its mean in evaluation.

    p_l = 1 - l/L (1 - survival). Singh et al., arXiv 1605.06465; recalled, not confirmed.
    """

    survival: float = 0.5

    def __post_init__(self) -> None:
        _probability("swapout", survival=self.survival)

    def edges(self, graph: ConnectivityGraph, readers: Collection[int]) -> dict[Edge, EdgeDrop]:
        """Every edge, as deep as the deepest unit that its reader reads."""
        depths = _depth_of_units(graph)
        found = {}
        for reader in readers:
            depth = max((depths.get(source, 0.0) for source in graph.sources[reader]), default=0.0)
            drop = EdgeDrop("element", _decayed(self.survival, depth))
            found.update({(source, reader): drop for source in graph.sources[reader]})
        return found


@DROPS.register("drop_path")
@dataclass(frozen=True, kw_only=True)
class DropPath(Drop):
    """Mean of the branches that survive, never none; nothing is dropped in evaluation.

    Local: each branch is dropped with probability `rate`. Global, in a share of the batches: one column
    is kept throughout the network. FractalNet (Larsson et al., arXiv 1605.07648).
    """

    rate: float = 0.15
    global_share: float = 0.5

    def __post_init__(self) -> None:
        _probability("drop_path", rate=self.rate, global_share=self.global_share)

    def edges(self, graph: ConnectivityGraph, readers: Collection[int]) -> dict[Edge, EdgeDrop]:
        """Every edge, in the column of its source."""
        return {
            (source, reader): EdgeDrop("path", 1 - self.rate, self.global_share, graph.nodes[source].path)
            for reader in readers
            for source in graph.sources[reader]
        }
