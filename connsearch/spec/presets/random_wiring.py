"""Randomly wired networks (Xie et al., arXiv 1904.01569): stages are random graphs, oriented by node order.

A node computes x = ReLU(sum_j sigmoid(w_j) h_j) - separable 3x3 - batch norm over its in-edges. Nodes without
in-edges read the stage before with stride 2; the mean of the nodes without out-edges is the stage's output.
Source: github.com/seungwonpark/RandWireNN. The generators' parameters are those of the paper, recalled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets.inputs import LARGE

if TYPE_CHECKING:
    import networkx as nx

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def randomly_wired(
    graphs: nx.Graph[Any] | Sequence[nx.Graph[Any]], *, width: int = 32, large: bool = False, **settings: Any
) -> NetworkSpec:
    """Return a network whose stages are given graphs, each at half the resolution of the one before.

    Args:
        graphs: One for each stage. Edges of an undirected graph lead from earlier to later nodes.
        width: Channels of the first stage; they double from stage to stage.
        large: For large images: the stem halves the resolution twice, and a 1x1 convolution to 1280
            channels precedes the classifier. Otherwise the stem is one convolution.
        **settings: Other fields, such as `n_classes` and `input`.

    Raises:
        SpecError: if a graph is empty or has a cycle, or a setting is wrong.

    >>> import networkx as nx
    >>> graph = nx.watts_strogatz_graph(8, 4, 0.75, seed=1)
    >>> spec = randomly_wired(graph, width=16, n_classes=5)
    >>> spec.graph()
    ConnectivityGraph(10 nodes, 20 edges)
    """
    stages = list(graphs) if isinstance(graphs, Sequence) else [graphs]
    if not stages:
        raise SpecError("graphs: a network needs one stage at least")
    node = {
        "aggregation": "weighted(activation=sigmoid, newest=0.0, single=true)",
        "unit": "act_separable",
    }
    blocks: list[dict[str, Any]] = [node | {"width": width * 2**number} for number in range(len(stages))]
    parts: list[dict[str, Any]] = [
        {"name": "entry", "unit": "act_separable(stride=2)"},
        {"name": "average", "aggregation": "mean"},
    ]
    if large:
        halved = {"name": "projection", "kernel": 3, "stride": 2, "norm": "batch"}
        parts.append({"name": "half", "line": halved | {"activation": "relu"}, "ratio": 0.5})
        parts.append({"name": "whole", "line": halved})
        blocks.append({"unit": "conv(kernel=1, norm=none)", "width": 1280})
    return NetworkSpec.from_dict(
        {
            "graph": wired_graph(stages, large=large),
            "blocks": tuple(blocks),
            "parts": tuple(parts),
            "stem": "conv(norm=batch)",
            "head": "pool(activation=none)" if large else "pool(norm=none)",
            **settings,
        }
    )


def wired_graph(stages: Sequence[nx.Graph[Any]], *, large: bool = False) -> ConnectivityGraph:
    """Return the graph of a network whose stages are given graphs; see `randomly_wired`.

    Raises:
        SpecError: if a graph is empty or has a cycle.
    """
    builder = GraphBuilder()
    last = builder.add("stem", "stem", part="half" if large else "")
    if large:
        last = builder.add("conv2", reads=[last], scale=1, part="whole")
    for number, stage in enumerate(stages, start=1):
        last = _stage(builder, last, stage, number, scale=number + large)
    end: dict[str, Any] = {"block": len(stages) + large, "scale": len(stages) + large}
    if large:
        last = builder.add("conv_last", reads=[last], **end)
    builder.add("head", "head", reads=[last], part="average", **end)
    return builder.graph()


def _stage(builder: GraphBuilder, entry: str, stage: nx.Graph[Any], number: int, *, scale: int) -> str:
    """Add a stage whose input nodes read `entry`, and return the name of its output."""
    sources = _oriented(stage, number)
    names: list[str] = []
    for index, reads in enumerate(sources):
        name = builder.add(
            f"stage{number}.node{index + 1}",
            reads=[names[source] for source in reads] or [entry],
            block=number,
            scale=scale,
            part="" if reads else "entry",
        )
        names.append(name)
    sinks = [name for index, name in enumerate(names) if index not in {s for reads in sources for s in reads}]
    if len(sinks) == 1:
        return sinks[0]
    return builder.add(
        f"stage{number}.average", "join", reads=sinks, block=number, scale=scale, part="average"
    )


def _oriented(stage: nx.Graph[Any], number: int) -> list[list[int]]:
    """Return, for each node in order, those that it reads."""
    import networkx as nx

    place = {node: index for index, node in enumerate(stage)}
    if not place:
        raise SpecError("it has no nodes", place=f"graphs[{number - 1}]")
    if stage.is_directed():
        try:
            order = nx.lexicographical_topological_sort(nx.DiGraph(stage), key=place.__getitem__)
            place = {node: index for index, node in enumerate(order)}
        except nx.NetworkXUnfeasible:
            raise SpecError(
                "it has a cycle: give an undirected graph, or remove an edge", place=f"graphs[{number - 1}]"
            ) from None
    sources: list[set[int]] = [set() for _ in place]
    for one, other in stage.edges():
        earlier, later = sorted((place[one], place[other]))
        if earlier == later:
            raise SpecError(f"node {one!r} is joined to itself", place=f"graphs[{number - 1}]")
        sources[later].add(earlier)
    return [sorted(reads) for reads in sources]


def _small_regime(generator: str, **parameters: float) -> NetworkSpec:
    """The paper's small regime: three stages of 32 nodes, 78 channels; seeds 1, 2, 3."""
    import networkx as nx

    make = getattr(nx, generator)
    stages = [make(32, **parameters, seed=seed) for seed in (1, 2, 3)]
    return randomly_wired(stages, width=78, large=True, input=LARGE, n_classes=1000)


PRESETS["randwire-ws-small"] = partial(_small_regime, "watts_strogatz_graph", k=4, p=0.75)
PRESETS["randwire-er-small"] = partial(_small_regime, "erdos_renyi_graph", p=0.2)
PRESETS["randwire-ba-small"] = partial(_small_regime, "barabasi_albert_graph", m=5)
