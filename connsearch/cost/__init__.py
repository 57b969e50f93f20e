"""Exact cost, in integers, before anything is built; budgets met by construction."""

from connsearch.cost.budget import Budget
from connsearch.cost.cost import CONVENTIONS, Cost, NetworkCost
from connsearch.cost.fit import fit_width
from connsearch.cost.model import CostModel, edge_costs, network_cost, node_costs

__all__ = [
    "CONVENTIONS",
    "Budget",
    "Cost",
    "CostModel",
    "NetworkCost",
    "edge_costs",
    "fit_width",
    "network_cost",
    "node_costs",
]
