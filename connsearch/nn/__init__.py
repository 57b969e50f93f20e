"""Networks as PyTorch modules: the definition that everything faster is compared with."""

from connsearch.nn.aggregations import implement_aggregation
from connsearch.nn.network import Network

__all__ = ["Network", "implement_aggregation"]
