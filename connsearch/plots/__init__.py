"""Pictures: data in, a matplotlib Figure out; nothing here reads a study or trains a network.

Names are loaded when they are first used, so that importing this package does not import matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.plots.files import check_front_path, save_front
    from connsearch.plots.graph import plot_graph
    from connsearch.plots.heat import plot_connectivity
    from connsearch.plots.history import history_frame, plot_history
    from connsearch.plots.html import pareto_html
    from connsearch.plots.layout import ArcLayout, arc_layout
    from connsearch.plots.pareto import plot_pareto
    from connsearch.plots.style import save

__all__ = [
    "ArcLayout",
    "arc_layout",
    "check_front_path",
    "history_frame",
    "pareto_html",
    "plot_connectivity",
    "plot_graph",
    "plot_history",
    "plot_pareto",
    "save",
    "save_front",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ArcLayout": "connsearch.plots.layout",
        "arc_layout": "connsearch.plots.layout",
        "history_frame": "connsearch.plots.history",
        "pareto_html": "connsearch.plots.html",
        "plot_connectivity": "connsearch.plots.heat",
        "plot_graph": "connsearch.plots.graph",
        "plot_history": "connsearch.plots.history",
        "plot_pareto": "connsearch.plots.pareto",
        "save": "connsearch.plots.style",
        "check_front_path": "connsearch.plots.files",
        "save_front": "connsearch.plots.files",
    },
)
