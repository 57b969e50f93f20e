"""Specifications: networks as data, and the plan that follows from one."""

from connsearch.spec import ends, lines, units  # noqa: F401, I001  # they fill the registries, before all else

from connsearch.spec.aggregations import (
    AGGREGATIONS,
    Aggregation,
    list_aggregations,
    register_aggregation,
)
from connsearch.spec.chains import UNITS, list_units, register_unit
from connsearch.spec.network import BlockConfig, InputConfig, NetworkSpec, PartConfig
from connsearch.spec.plan import NetworkPlan, NodePlan
from connsearch.spec.resolve import resolve

__all__ = [
    "AGGREGATIONS",
    "UNITS",
    "Aggregation",
    "BlockConfig",
    "InputConfig",
    "NetworkPlan",
    "NetworkSpec",
    "NodePlan",
    "PartConfig",
    "list_aggregations",
    "list_units",
    "register_aggregation",
    "register_unit",
    "resolve",
]
