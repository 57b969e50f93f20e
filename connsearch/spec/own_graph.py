"""How a file holds a connectivity graph of one's own: a table of nodes and edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph, Node
from connsearch.graph.convert import inferred_scale


def _read_graph(data: object) -> ConnectivityGraph | None:
    if data is None or isinstance(data, ConnectivityGraph):
        return data
    if not isinstance(data, Mapping):
        raise SpecError(f"a graph is a table with nodes and edges, got {data!r}")
    for key in data:
        if key not in ("nodes", "edges"):
            raise SpecError(f"unknown key {key!r}. {did_you_mean(str(key), ('nodes', 'edges'))}")
    for key in ("nodes", "edges"):
        if not isinstance(data.get(key), list | tuple):
            raise SpecError(f"a graph needs a list of {key}, got {data.get(key)!r}")
    try:
        import networkx as nx

        graph: nx.DiGraph[Any] = nx.DiGraph()
        for node in data["nodes"]:
            table = {"name": node} if isinstance(node, str) else dict(node)
            name = table.pop("name")
            if name in graph:
                raise SpecError(f"node {name!r} is listed twice: remove one")
            graph.add_node(name)
            graph.nodes[name].update(table)
        for edge in data["edges"]:
            if not isinstance(edge, list | tuple) or len(edge) != 2:
                raise SpecError(f"an edge is a list of two names, source and target, got {edge!r}")
            source, target = edge
            if source not in graph or target not in graph:
                raise SpecError(f"edge ({source!r}, {target!r}) joins a node that is not listed")
            if graph.has_edge(source, target):
                raise SpecError(f"edge ({source!r}, {target!r}) is given twice: remove one")
            graph.add_edge(source, target)
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"nodes are names or tables with a name, got one without {error}") from None
    return ConnectivityGraph.from_networkx(graph)


def _write_graph(graph: ConnectivityGraph | None) -> dict[str, Any] | None:
    if graph is None:
        return None
    default = Node("")
    nodes = [
        {"name": node.name, "kind": node.kind}
        | {k: getattr(node, k) for k in ("block", "path", "part") if getattr(node, k) != getattr(default, k)}
        | ({"scale": node.scale} if node.scale != inferred_scale(graph, index) else {})
        for index, node in enumerate(graph.nodes)
    ]
    return {
        "nodes": nodes,
        "edges": [[graph.nodes[s].name, graph.nodes[t].name] for s, t in graph.edges()],
    }


GraphField = Annotated[
    ConnectivityGraph | None,
    PlainValidator(_read_graph),
    PlainSerializer(_write_graph),
    WithJsonSchema(
        {
            "type": "object",
            "required": ["nodes", "edges"],
            "properties": {
                "nodes": {"type": "array", "items": {"type": ["string", "object"]}},
                "edges": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            },
        }
    ),
]
