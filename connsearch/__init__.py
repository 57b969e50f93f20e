"""connsearch: search neural architectures over cross-layer connectivity, at equal compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.cost import Budget, Cost, CostModel, edge_costs, fit_width, network_cost, node_costs
    from connsearch.data import list_datasets, load_dataset, register_dataset
    from connsearch.errors import (
        BudgetError,
        ConnsearchError,
        DataError,
        KernelError,
        SpecError,
        StudyError,
        TrainError,
        VerifyError,
    )
    from connsearch.graph import ConnectivityGraph, list_topologies, register_topology
    from connsearch.ir import lower, optimize
    from connsearch.nn import Network, build, graphed, implement_aggregation
    from connsearch.plots import plot_connectivity, plot_graph, plot_history, plot_importance, plot_pareto
    from connsearch.report import pareto_html, report_of, write_report
    from connsearch.search import ParetoFront, SearchSpace, Study, StudyConfig
    from connsearch.spec import (
        Aggregation,
        NetworkSpec,
        list_aggregations,
        list_units,
        register_aggregation,
        register_unit,
    )
    from connsearch.spec.presets import list_presets, preset
    from connsearch.train import TrainConfig

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "Budget",
    "BudgetError",
    "ConnectivityGraph",
    "ConnsearchError",
    "Cost",
    "CostModel",
    "DataError",
    "KernelError",
    "Network",
    "NetworkSpec",
    "ParetoFront",
    "SearchSpace",
    "SpecError",
    "Study",
    "StudyConfig",
    "StudyError",
    "TrainConfig",
    "TrainError",
    "VerifyError",
    "__version__",
    "build",
    "edge_costs",
    "fit_width",
    "graphed",
    "implement_aggregation",
    "list_aggregations",
    "list_datasets",
    "list_presets",
    "list_topologies",
    "list_units",
    "load_dataset",
    "lower",
    "network_cost",
    "node_costs",
    "optimize",
    "pareto_html",
    "plot_connectivity",
    "plot_graph",
    "plot_history",
    "plot_importance",
    "plot_pareto",
    "preset",
    "register_aggregation",
    "register_dataset",
    "register_topology",
    "register_unit",
    "report_of",
    "write_report",
]

_HOMES = {
    **dict.fromkeys(
        ["Budget", "Cost", "CostModel", "edge_costs", "fit_width", "network_cost", "node_costs"],
        "connsearch.cost",
    ),
    **dict.fromkeys(["list_datasets", "load_dataset", "register_dataset"], "connsearch.data"),
    **dict.fromkeys(
        [
            "BudgetError",
            "ConnsearchError",
            "DataError",
            "KernelError",
            "SpecError",
            "StudyError",
            "TrainError",
            "VerifyError",
        ],
        "connsearch.errors",
    ),
    **dict.fromkeys(["ConnectivityGraph", "list_topologies", "register_topology"], "connsearch.graph"),
    **dict.fromkeys(["lower", "optimize"], "connsearch.ir"),
    **dict.fromkeys(["Network", "build", "graphed", "implement_aggregation"], "connsearch.nn"),
    **dict.fromkeys(
        ["plot_connectivity", "plot_graph", "plot_history", "plot_importance", "plot_pareto"],
        "connsearch.plots",
    ),
    **dict.fromkeys(["ParetoFront", "SearchSpace", "Study", "StudyConfig"], "connsearch.search"),
    **dict.fromkeys(
        [
            "Aggregation",
            "NetworkSpec",
            "list_aggregations",
            "list_units",
            "register_aggregation",
            "register_unit",
        ],
        "connsearch.spec",
    ),
    **dict.fromkeys(["list_presets", "preset"], "connsearch.spec.presets"),
    "TrainConfig": "connsearch.train",
    **dict.fromkeys(["pareto_html", "report_of", "write_report"], "connsearch.report"),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
