"""What did a network learn to read? A number for each connection whose strength is learned.

Which number depends on how the reader merges its sources; `kind` says it:

- `l2_norm` (weighted, depthwise): the L2 norm of the weights that the source is multiplied by, over its
  channels, as DelugeNets plot it layer by layer (Kuen et al., arXiv 1611.05552, Figure 3). In the
  normalized form these weigh sources of variance one. Of sigmoids, the value of the sigmoid.
- `mean_abs_weight` (concat): the mean absolute weight with which the first convolution or linear layer
  after the concatenation reads the source's channels, as DenseNets plot it (Huang et al., arXiv 1608.06993,
  Figure 5). A layer that reads a single source of a block that concatenates has this number too.
- `mean_gate` (gated, routed): the share of the source in what is read, the mean over images; see
  `connsearch.nn.shares`.

Numbers of different kinds, and of readers with different numbers of channels, do not compare: `relative` is
a number over the largest of its reader's, between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from connsearch.errors import SpecError
from connsearch.nn.network import Network
from connsearch.nn.shares import Images, has_gates, source_shares
from connsearch.spec.plan import NetworkPlan, NodePlan
from connsearch.spec.pruned import Edge
from connsearch.spec.reading import reading_of
from connsearch.spec.resolve import resolve

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("source", "reader", "block", "offset", "aggregation", "kind", "value", "spread", "relative")


class _Found(NamedTuple):
    kind: str
    value: float
    spread: float = float("nan")


def connection_strengths(network: Network, images: Images | None = None) -> pd.DataFrame:
    """Return a row for each connection whose strength is learned.

    Columns: `source` and `reader`, names of nodes; `block`, from 1, that is read (of a transition and a
    carry the one that they leave); `offset`, how many nodes earlier the source stands; `aggregation`;
    `kind` and `value` as the module says; `spread`, of gates, the standard deviation over images, otherwise
    nan; `relative`, the value over the largest of its reader's, 0 if all are 0.

    Args:
        network: Weights and modes stay as they are.
        images: N C H W, or batches; needed if the network has gates, otherwise not looked at.

    Raises:
        SpecError: if no connection has a strength, or the network has gates and there are no images.
    """
    import pandas as pd

    shares: dict[Edge, Tensor] = {}
    if has_gates(network):
        if images is None:
            raise SpecError(f"{network.spec.name!r} has gates, whose values follow from images: give images")
        shares = source_shares(network, images)
    plan = resolve(network.spec)
    rows: list[tuple[object, ...]] = []
    for index, node in enumerate(plan.nodes):
        name, block = merging(network, plan, node), block_read(plan, node)
        found = _strengths(network, plan, node, shares)
        largest = max((f.value for f in found), default=0.0)
        for source, (kind, value, spread) in zip(node.sources, found, strict=bool(found)):
            edge = (plan.nodes[source].node.name, node.node.name, block, index - source)
            rows.append((*edge, name, kind, value, spread, value / largest if largest else 0.0))
    if not rows:
        used = sorted({merging(network, plan, node) for node in plan.nodes if node.aggregation is not None})
        raise SpecError(
            f"{network.spec.name!r} has nothing learned between layers: they read "
            f"{'by ' + ' and '.join(used) + ', without weights, or ' if used else ''}a single source each"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def block_read(plan: NetworkPlan, node: NodePlan) -> int:
    """Return the block that a node reads: its own, or for a transition or a carry the one that it leaves."""
    leaves = node.node.kind in ("transition", "carry") and node.sources
    return plan.nodes[node.sources[-1]].node.block if leaves else node.node.block


def merging(network: Network, plan: NetworkPlan, node: NodePlan) -> str:
    """Return by which aggregation a node reads, also where it has a single source and so needs none."""
    if node.aggregation is not None:
        return node.aggregation.name
    for part in network.spec.node_parts:
        if part.name == node.node.part and part.aggregation is not None:
            return part.aggregation.name
    return network.spec.blocks[block_read(plan, node) - 1].aggregation.name


def _strengths(
    network: Network, plan: NetworkPlan, node: NodePlan, shares: dict[Edge, Tensor]
) -> list[_Found]:
    """Return what is learned about each source of a node; nothing if nothing is."""
    name = node.node.name
    edges = [(plan.nodes[source].node.name, name) for source in node.sources]
    gates = [shares[edge] for edge in edges if edge in shares]
    if gates:
        return [_Found("mean_gate", g.mean().item(), g.std(correction=0).item()) for g in gates]
    weights: Callable[[], Tensor] | None
    weights = getattr(network.node(name).aggregation, "source_weights", None)
    if weights is not None:
        return [
            _Found("l2_norm", norm) for norm in weights().detach().double().flatten(1).norm(dim=1).tolist()
        ]
    reads_one = node.aggregation is None and node.node.kind == "unit" and node.sources
    if (node.aggregation is not None or reads_one) and merging(network, plan, node) == "concat":
        return _read_by_convolution(network, node)
    return []


def _read_by_convolution(network: Network, node: NodePlan) -> list[_Found]:
    """Return how strongly the first convolution after a concatenation reads each source."""
    reading = reading_of(node.chain, node.in_shape.channels)
    if reading is None:
        return []
    mixer = network.node(node.node.name).get_submodule(reading.mixer)
    weight = mixer.get_parameter("weight").detach().double().transpose(0, reading.axis)
    sizes = [channels * reading.per_channel for channels in node.source_channels]
    return [_Found("mean_abs_weight", part.abs().mean().item()) for part in torch.split(weight, sizes)]
