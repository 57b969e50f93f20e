"""Networks as PyTorch modules: the definition that everything faster is compared with."""

from connsearch.nn.aggregations import implement_aggregation
from connsearch.nn.compiled import CompiledNetwork, build
from connsearch.nn.network import Network

__all__ = ["CompiledNetwork", "Network", "build", "implement_aggregation"]
