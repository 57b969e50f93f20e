"""connsearch: search neural architectures over cross-layer connectivity, at equal compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.cost import (
        Budget as Budget,
    )
    from connsearch.cost import (
        Cost as Cost,
    )
    from connsearch.cost import (
        CostModel as CostModel,
    )
    from connsearch.cost import (
        edge_costs as edge_costs,
    )
    from connsearch.cost import (
        fit_width as fit_width,
    )
    from connsearch.cost import (
        network_cost as network_cost,
    )
    from connsearch.cost import (
        node_costs as node_costs,
    )
    from connsearch.data import (
        list_datasets as list_datasets,
    )
    from connsearch.data import (
        load_dataset as load_dataset,
    )
    from connsearch.data import (
        register_dataset as register_dataset,
    )
    from connsearch.errors import (
        BudgetError as BudgetError,
    )
    from connsearch.errors import (
        ConnsearchError as ConnsearchError,
    )
    from connsearch.errors import (
        SpecError as SpecError,
    )
    from connsearch.errors import (
        StudyError as StudyError,
    )
    from connsearch.graph import (
        ConnectivityGraph as ConnectivityGraph,
    )
    from connsearch.graph import (
        list_topologies as list_topologies,
    )
    from connsearch.graph import (
        register_topology as register_topology,
    )
    from connsearch.nn import Network as Network
    from connsearch.nn import implement_aggregation as implement_aggregation
    from connsearch.plots import (
        pareto_html as pareto_html,
    )
    from connsearch.plots import (
        plot_connectivity as plot_connectivity,
    )
    from connsearch.plots import (
        plot_graph as plot_graph,
    )
    from connsearch.plots import (
        plot_history as plot_history,
    )
    from connsearch.plots import (
        plot_pareto as plot_pareto,
    )
    from connsearch.search import (
        ParetoFront as ParetoFront,
    )
    from connsearch.search import (
        SearchSpace as SearchSpace,
    )
    from connsearch.search import (
        Study as Study,
    )
    from connsearch.search import (
        StudyConfig as StudyConfig,
    )
    from connsearch.spec import (
        Aggregation as Aggregation,
    )
    from connsearch.spec import (
        NetworkSpec as NetworkSpec,
    )
    from connsearch.spec import (
        list_aggregations as list_aggregations,
    )
    from connsearch.spec import (
        list_units as list_units,
    )
    from connsearch.spec import (
        register_aggregation as register_aggregation,
    )
    from connsearch.spec import (
        register_unit as register_unit,
    )
    from connsearch.spec.presets import list_presets as list_presets
    from connsearch.spec.presets import preset as preset
    from connsearch.train import TrainConfig as TrainConfig
    from connsearch.train import train as train

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ["Budget", "Cost", "CostModel", "edge_costs", "fit_width", "network_cost", "node_costs"],
        "connsearch.cost",
    ),
    **dict.fromkeys(["list_datasets", "load_dataset", "register_dataset"], "connsearch.data"),
    **dict.fromkeys(["BudgetError", "ConnsearchError", "SpecError", "StudyError"], "connsearch.errors"),
    **dict.fromkeys(["ConnectivityGraph", "list_topologies", "register_topology"], "connsearch.graph"),
    **dict.fromkeys(["Network", "implement_aggregation"], "connsearch.nn"),
    **dict.fromkeys(
        ["pareto_html", "plot_connectivity", "plot_graph", "plot_history", "plot_pareto"], "connsearch.plots"
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
    **dict.fromkeys(["TrainConfig", "train"], "connsearch.train"),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
