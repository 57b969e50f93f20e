"""Pictures: data in, a matplotlib Figure out; nothing here reads a study or trains a network.

Names are loaded when they are first used, so that importing this package does not import matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "history_frame",
    "pareto_html",
    "plot_connectivity",
    "plot_graph",
    "plot_history",
    "plot_pareto",
    "save",
]

_HOME = {
    "ArcLayout": "layout",
    "arc_layout": "layout",
    "history_frame": "history",
    "pareto_html": "html",
    "plot_connectivity": "heat",
    "plot_graph": "graph",
    "plot_history": "history",
    "plot_pareto": "pareto",
    "save": "style",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
