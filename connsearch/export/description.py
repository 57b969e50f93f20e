"""What is written down of a network: its layers in order, each with what it reads and computes.

It is the plan with the names of operations made explicit, so that a network whose norms are folded keeps the
names of what is left.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from connsearch.graph import Node
from connsearch.registry import Ref
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Chain, Op, Shape, op_names
from connsearch.spec.plan import NodePlan
from connsearch.spec.resolve import resolve

NamedOps = tuple[tuple[str, Op], ...]


class Layer(NamedTuple):
    """A node of a network.

    Attributes:
        name: The node's name, under which its parameters are kept.
        kind: The node's kind.
        title: What a class that computes it is called.
        sources: Indices of the layers that it reads, oldest first.
        source_channels: Their channels.
        in_shape: The shape that its operations read.
        aggregation: How several sources become one, None for a single one that is read as it is.
        ops: Its operations, by the names that they have in the state dict.
        gates: Operations from its output to the gates that routed aggregations read; empty if none.
        slots: Per source, the column of its gates that weights it, or None; empty if not routed.
        gated_by: Per source, the layer whose gates these are; empty if not routed.
        drops: Per source, what training does to it at random; empty if nothing.
        path: Which of several parallel paths it lies on.
    """

    name: str
    kind: str
    title: str
    sources: tuple[int, ...]
    source_channels: tuple[int, ...]
    in_shape: Shape
    aggregation: Ref | None
    ops: NamedOps
    gates: NamedOps
    slots: tuple[int | None, ...]
    gated_by: tuple[int, ...]
    drops: tuple[EdgeDrop | None, ...]
    path: int


class Description(NamedTuple):
    """A whole network: the shape of an image, its layers in topological order."""

    image: Shape
    layers: tuple[Layer, ...]

    @property
    def heads(self) -> tuple[int, ...]:
        """The heads; the last is the network's own."""
        return tuple(index for index, layer in enumerate(self.layers) if layer.kind == "head")


def describe(spec: NetworkSpec) -> Description:
    """Return the layers of a network.

    Raises:
        SpecError: if the specification describes no network.
    """
    plan = resolve(spec)
    return Description(plan.image, tuple(_layer(spec, node) for node in plan.nodes))


def _layer(spec: NetworkSpec, plan: NodePlan) -> Layer:
    return Layer(
        plan.node.name,
        plan.node.kind,
        _title(spec, plan.node),
        plan.sources,
        plan.source_channels,
        plan.in_shape,
        plan.aggregation,
        _named(plan.chain),
        _named(plan.gates),
        plan.slots,
        plan.gated_by,
        plan.drops,
        plan.node.path,
    )


def _named(chain: Chain) -> NamedOps:
    return tuple(zip(op_names(chain), chain, strict=True))


def _title(spec: NetworkSpec, node: Node) -> str:
    """Return a class name: of the registered unit or line that a node is, else of its kind."""
    part = next((part for part in spec.node_parts if part.name == node.part), None)
    if part is not None and part.line is not None:
        return camel(part.line.name)
    if part is not None and part.unit is not None:
        return camel(part.unit.name)
    if node.kind == "unit" or (part is not None and part.ratio):
        return camel(spec.blocks[node.block - 1].unit.name)
    return camel(node.kind)


def camel(name: str) -> str:
    """Return a registered name as a class is called.

    >>> camel("dense_bottleneck"), camel("3x3-unit")
    ('DenseBottleneck', 'Layer3x3Unit')
    """
    word = "".join(part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", name))
    return word if word[:1].isalpha() and word.isascii() else f"Layer{re.sub(r'[^0-9A-Za-z]', '', word)}"
