"""Pictures: data in, a matplotlib Figure out; nothing here reads a study or trains a network.

Names are loaded when they are first used, so that importing this package does not import matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.plots.confirmed import plot_confirmed
    from connsearch.plots.confusion import plot_confusion
    from connsearch.plots.graph import plot_graph
    from connsearch.plots.heat import plot_connectivity
    from connsearch.plots.history import history_frame, plot_history
    from connsearch.plots.importance import plot_importance
    from connsearch.plots.layout import ArcLayout, arc_layout
    from connsearch.plots.pareto import plot_pareto
    from connsearch.plots.retrained import plot_retrained
    from connsearch.plots.segmentation import plot_segmentation
    from connsearch.plots.strengths import plot_shares_by_class, plot_strengths
    from connsearch.plots.style import save
    from connsearch.plots.tournament import plot_tournament, plot_tournament_matrix

__all__ = [
    "ArcLayout",
    "arc_layout",
    "history_frame",
    "plot_confirmed",
    "plot_confusion",
    "plot_connectivity",
    "plot_graph",
    "plot_history",
    "plot_importance",
    "plot_pareto",
    "plot_retrained",
    "plot_segmentation",
    "plot_shares_by_class",
    "plot_strengths",
    "plot_tournament",
    "plot_tournament_matrix",
    "save",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ArcLayout": "connsearch.plots.layout",
        "arc_layout": "connsearch.plots.layout",
        "history_frame": "connsearch.plots.history",
        "plot_confirmed": "connsearch.plots.confirmed",
        "plot_confusion": "connsearch.plots.confusion",
        "plot_connectivity": "connsearch.plots.heat",
        "plot_graph": "connsearch.plots.graph",
        "plot_history": "connsearch.plots.history",
        "plot_importance": "connsearch.plots.importance",
        "plot_pareto": "connsearch.plots.pareto",
        "plot_retrained": "connsearch.plots.retrained",
        "plot_segmentation": "connsearch.plots.segmentation",
        "plot_shares_by_class": "connsearch.plots.strengths",
        "plot_strengths": "connsearch.plots.strengths",
        "plot_tournament": "connsearch.plots.tournament",
        "plot_tournament_matrix": "connsearch.plots.tournament",
        "save": "connsearch.plots.style",
    },
)
