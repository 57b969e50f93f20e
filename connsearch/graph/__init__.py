"""Connectivity graphs: topologies, the graph of a whole network, its metrics."""

from connsearch.graph.graph import ConnectivityGraph
from connsearch.graph.node import Node
from connsearch.graph.topologies import TOPOLOGIES, list_topologies, predecessors, register_topology

__all__ = ["TOPOLOGIES", "ConnectivityGraph", "Node", "list_topologies", "predecessors", "register_topology"]
