"""Deep supervision: heads at earlier layers, whose losses training adds to that of the network's own head.

Lee et al., arXiv 1409.5185; recalled, not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph.build import GraphBuilder
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import resnets

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def with_heads(spec: NetworkSpec, nodes: Collection[str]) -> NetworkSpec:
    """Return a network with a further head behind each of some nodes, of the network's own kind.

    Raises:
        SpecError: if the network's graph is not given, or has no such node.
    """
    graph = spec.own_graph
    if graph is None:
        raise SpecError("further heads need a given graph: write the network with its graph first")
    names = [node.name for node in graph.nodes]
    for name in nodes:
        if name not in names:
            raise SpecError(f"no node {name!r}. {did_you_mean(name, names)}")
    builder = GraphBuilder()
    for node, sources in zip(graph.nodes, graph.sources, strict=True):
        reads = [graph.nodes[source].name for source in sources]
        builder.add_node(node, reads)
        if node.name in nodes:
            builder.add_node(replace(node, name=f"{node.name}_head", kind="head", part=""), [node.name])
    return spec.model_copy(update={"own_graph": builder.graph()})


def _resnet(depth: int) -> NetworkSpec:
    """ResNet-v1 for small images, with a head behind each of the first two blocks."""
    last = (depth - 2) // 6
    spec = resnets.PRESETS[f"resnet-{depth}"]()
    return with_heads(spec, [f"block{block}.unit{last}_sum" for block in (1, 2)])


PRESETS["supervised-resnet-20"] = partial(_resnet, 20)
