"""Networks as PyTorch modules: the definition that everything faster is compared with."""

from connsearch.nn.aggregations import implement_aggregation
from connsearch.nn.compiled import CompiledNetwork, build
from connsearch.nn.connectivity import connection_strengths
from connsearch.nn.graphs import graphed
from connsearch.nn.network import Network
from connsearch.nn.pruned import pruned_network
from connsearch.nn.shares import shares_by_class

__all__ = [
    "CompiledNetwork",
    "Network",
    "build",
    "connection_strengths",
    "graphed",
    "implement_aggregation",
    "pruned_network",
    "shares_by_class",
]
