"""Graphs to and from networkx, node-link JSON and GraphML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph.graph import ConnectivityGraph
from connsearch.graph.node import Node

if TYPE_CHECKING:
    import networkx as nx

_DEFAULTS: dict[str, Any] = {"kind": "unit", "block": 1, "scale": 0, "path": 0, "part": ""}
_EDGE_ATTRIBUTES = ("kind",)


def to_networkx(graph: ConnectivityGraph) -> nx.DiGraph[Any]:
    """Return a fresh directed graph with documented node and edge attributes."""
    import networkx as nx

    result: nx.DiGraph[Any] = nx.DiGraph()
    for node in graph.nodes:
        part = {"part": node.part} if node.part else {}
        result.add_node(node.name, kind=node.kind, block=node.block, scale=node.scale, path=node.path, **part)
    for source, target in graph.edges():
        kind = graph.edge_kind(source, target)
        result.add_edge(graph.nodes[source].name, graph.nodes[target].name, kind=kind)
    return result


def from_networkx(graph: nx.Graph[Any]) -> ConnectivityGraph:
    """Return the checked value of a directed graph (see `ConnectivityGraph.from_networkx`)."""
    import networkx as nx

    if not graph.is_directed():
        raise SpecError("the graph is undirected: orient it, for example by node order, as nx.DiGraph")
    if graph.is_multigraph():
        raise SpecError("the graph is a multigraph: parallel edges have no meaning here, use nx.DiGraph")
    if len(graph) == 0:
        raise SpecError("the graph has no nodes")
    assert isinstance(graph, nx.DiGraph)
    _check_roots(graph)
    order = _topological_order(graph)
    index = {key: i for i, key in enumerate(order)}
    nodes: list[Node] = []
    for key in order:
        before = [nodes[index[p]].scale for p in graph.predecessors(key)]
        nodes.append(_node(graph, key, max(before, default=0)))
    result = ConnectivityGraph(
        tuple(nodes), tuple(tuple(sorted(index[p] for p in graph.predecessors(key))) for key in order)
    )
    _check_edge_attributes(graph, result, index)
    return result


def _check_roots(graph: nx.DiGraph[Any]) -> None:
    """Refuse several nodes that read nothing where none says its kind."""
    roots = [key for key in graph if graph.in_degree(key) == 0]
    if len(roots) > 1 and not any("kind" in graph.nodes[key] for key in roots):
        names = ", ".join(repr(str(key)) for key in roots)
        raise SpecError(
            f"{len(roots)} nodes read nothing ({names}): one of them can be the stem; connect or remove the "
            "others, or give each kind='stem'"
        )


def inferred_scale(graph: ConnectivityGraph, index: int) -> int:
    """Return the scale that a node has where none is given: see `ConnectivityGraph.from_networkx`."""
    node = graph.nodes[index]
    before = max((graph.nodes[source].scale for source in graph.sources[index]), default=0)
    return before + (node.kind in ("transition", "carry"))


def from_edges(edges: Iterable[tuple[object, object]]) -> ConnectivityGraph:
    """Return the graph of pairs; a pair that repeats is an error."""
    import networkx as nx

    graph: nx.DiGraph[Any] = nx.DiGraph()
    for source, target in edges:
        if graph.has_edge(source, target):
            raise SpecError(f"edge ({source!r}, {target!r}) is given twice: remove one")
        graph.add_edge(source, target)
    return from_networkx(graph)


def _topological_order(graph: nx.DiGraph[Any]) -> list[Any]:
    """Return the topological order that stays closest to the order of insertion."""
    import networkx as nx

    inserted = {key: i for i, key in enumerate(graph)}
    try:
        return list(nx.lexicographical_topological_sort(graph, key=inserted.__getitem__))
    except nx.NetworkXUnfeasible:
        edges = nx.find_cycle(graph)
        path = " -> ".join(str(edge[0]) for edge in edges)
        raise SpecError(f"the graph has a cycle: {path} -> {edges[-1][1]}; remove one of its edges") from None


def _node(graph: nx.DiGraph[Any], key: object, scale: int) -> Node:
    """Return a node; what it does not say is inferred, `scale` from that of the nodes it reads."""
    attributes: Mapping[str, Any] = graph.nodes[key]
    for name, value in attributes.items():
        if name not in _DEFAULTS:
            raise SpecError(
                f"node {str(key)!r}: unknown attribute {name!r}. {did_you_mean(str(name), _DEFAULTS)}"
            )
        if type(value) is not type(_DEFAULTS[name]):
            expected = type(_DEFAULTS[name]).__name__
            raise SpecError(f"node {str(key)!r}: attribute {name!r} must be {expected}, got {value!r}")
    kind = attributes.get("kind", _inferred_kind(graph, key))
    inferred = {"kind": kind, "scale": scale + (kind in ("transition", "carry"))}
    return Node(str(key), **(_DEFAULTS | inferred | dict(attributes)))


def _inferred_kind(graph: nx.DiGraph[Any], key: object) -> str:
    """Return stem for the graph's only root, head for its only leaf, else unit."""
    if graph.in_degree(key) == 0 and sum(graph.in_degree(k) == 0 for k in graph) == 1:
        return "stem"
    if graph.out_degree(key) == 0 and sum(graph.out_degree(k) == 0 for k in graph) == 1:
        return "head"
    return "unit"


def _check_edge_attributes(
    graph: nx.DiGraph[Any], result: ConnectivityGraph, index: Mapping[Any, int]
) -> None:
    for source, target, attributes in graph.edges(data=True):
        place = f"edge ({str(source)!r}, {str(target)!r})"
        for name, value in attributes.items():
            if name not in _EDGE_ATTRIBUTES:
                raise SpecError(
                    f"{place}: unknown attribute {name!r}. {did_you_mean(str(name), _EDGE_ATTRIBUTES)}"
                )
            kind = result.edge_kind(index[source], index[target])
            if value != kind:
                raise SpecError(
                    f"{place}: kind is {kind!r} by its nodes, but {value!r} is given: leave it out"
                )


def to_json(graph: ConnectivityGraph) -> str:
    """Return node-link JSON in one line."""
    import networkx as nx

    return json.dumps(nx.node_link_data(to_networkx(graph), edges="edges"))


def from_json(text: str) -> ConnectivityGraph:
    """Read node-link JSON.

    Raises:
        SpecError: if the text is no node-link JSON, or describes no valid graph.
    """
    import networkx as nx

    try:
        graph = nx.node_link_graph(json.loads(text), edges="edges")
    except (ValueError, KeyError, TypeError, AttributeError, nx.NetworkXError) as error:
        raise SpecError(f"this is no node-link JSON: {error}") from None
    return from_networkx(graph)


def to_graphml(graph: ConnectivityGraph) -> str:
    """Return GraphML text."""
    import networkx as nx

    return "\n".join(nx.generate_graphml(to_networkx(graph)))


def from_graphml(text: str) -> ConnectivityGraph:
    """Read GraphML.

    Raises:
        SpecError: if the text is no GraphML, or describes no valid graph.
    """
    import networkx as nx

    try:
        graph = nx.parse_graphml(text)
    except Exception as error:  # XML parsers raise types of their own, by installation
        raise SpecError(f"this is no GraphML: {error}") from None
    return from_networkx(graph)
