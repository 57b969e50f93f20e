"""connsearch: search neural architectures over cross-layer connectivity, at equal compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.cost import (
        Budget as Budget,
        Cost as Cost,
        CostModel as CostModel,
        edge_costs as edge_costs,
        fit_width as fit_width,
        network_cost as network_cost,
        node_costs as node_costs,
    )
    from connsearch.data import (
        list_datasets as list_datasets,
        load_dataset as load_dataset,
        register_dataset as register_dataset,
    )
    from connsearch.errors import (
        BudgetError as BudgetError,
        ConnsearchError as ConnsearchError,
        SpecError as SpecError,
        StudyError as StudyError,
    )
    from connsearch.graph import (
        ConnectivityGraph as ConnectivityGraph,
        list_topologies as list_topologies,
        register_topology as register_topology,
    )
    from connsearch.ir import lower as lower, optimize as optimize
    from connsearch.nn import (
        Network as Network,
        build as build,
        implement_aggregation as implement_aggregation,
    )
    from connsearch.plots import (
        plot_connectivity as plot_connectivity,
        plot_graph as plot_graph,
        plot_history as plot_history,
        plot_importance as plot_importance,
        plot_pareto as plot_pareto,
    )
    from connsearch.report import (
        pareto_html as pareto_html,
        report_of as report_of,
        write_report as write_report,
    )
    from connsearch.search import (
        ParetoFront as ParetoFront,
        SearchSpace as SearchSpace,
        Study as Study,
        StudyConfig as StudyConfig,
    )
    from connsearch.spec import (
        Aggregation as Aggregation,
        NetworkSpec as NetworkSpec,
        list_aggregations as list_aggregations,
        list_units as list_units,
        register_aggregation as register_aggregation,
        register_unit as register_unit,
    )
    from connsearch.spec.presets import list_presets as list_presets, preset as preset
    from connsearch.train import TrainConfig as TrainConfig

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ["Budget", "Cost", "CostModel", "edge_costs", "fit_width", "network_cost", "node_costs"],
        "connsearch.cost",
    ),
    **dict.fromkeys(["list_datasets", "load_dataset", "register_dataset"], "connsearch.data"),
    **dict.fromkeys(["BudgetError", "ConnsearchError", "SpecError", "StudyError"], "connsearch.errors"),
    **dict.fromkeys(["ConnectivityGraph", "list_topologies", "register_topology"], "connsearch.graph"),
    **dict.fromkeys(["lower", "optimize"], "connsearch.ir"),
    **dict.fromkeys(["Network", "build", "implement_aggregation"], "connsearch.nn"),
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
