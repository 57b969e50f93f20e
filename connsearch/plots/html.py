"""The Pareto front as one HTML file that works offline; pointing at a trial says what it is."""

from __future__ import annotations

import os
from math import log10
from pathlib import Path
from typing import Any

import pandas as pd

from connsearch.errors import ConnsearchError
from connsearch.files import write_whole
from connsearch.plots.pareto import Drawing, drawing_of, names_in
from connsearch.plots.scales import Scale
from connsearch.plots.style import FAINT, INK, QUIET
from connsearch.search.reading.pareto import ParetoFront
from connsearch.text import human

_SHOWN = {
    "topology": "topology",
    "aggregation": "aggregation",
    "n_layers": "layers",
    "widths": "widths",
    "macs": "MACs",
    "params": "parameters",
    "val_error": "validation error",
}


def pareto_html(
    front: ParetoFront,
    path: str | os.PathLike[str] | None = None,
    *,
    x: str = "macs",
    y: str = "val_error",
    title: str | None = None,
) -> str:
    """Return the front as the text of an HTML page that carries all it needs, and write it if asked.

    Colours, markers and columns are those of `plot_pareto`; the page weighs about 5 MB.

    Args:
        front: The trials.
        path: Where to write the page.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        title: Of the page, written above the picture.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
        ConnsearchError: if plotly is not installed or the file cannot be written.
    """
    require_plotly()
    from plotly import graph_objects, io

    drawn = drawing_of(front, x, y)
    figure = graph_objects.Figure(data=_traces(drawn), layout=_layout(drawn, title))
    page = str(
        io.to_html(figure, include_plotlyjs=True, full_html=True, div_id="pareto-front", validate=True)
    )
    if path is not None:
        write_whole(Path(path), page.encode())
    return page


def require_plotly() -> None:
    """Raise `ConnsearchError` if plotly is not installed."""
    try:
        import plotly  # noqa: F401  # only whether it is there
    except ImportError:
        raise ConnsearchError("an HTML page needs plotly: pip install 'connsearch[html]'") from None


def _traces(drawn: Drawing) -> list[dict[str, Any]]:
    """Return the staircase, the other trials, the front, and the entries of the legends."""
    knee = drawn.front.points[drawn.front.points["trial"] == drawn.front.knee()]
    xy = drawn.steps()
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "name": "front",
        "line": {"shape": "hv", "color": INK, "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    ring = _marks(
        drawn, knee, "knee", {"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 1.5}}
    )
    return [
        line,
        _trials(drawn, drawn.front.dominated, "other", size=8, opacity=0.3),
        _trials(drawn, drawn.front.points, "front", size=11, opacity=1.0),
        {**ring, "hoverinfo": "skip", "hovertemplate": None},
        *_legend(drawn),
    ]


def _trials(drawn: Drawing, rows: pd.DataFrame, name: str, *, size: int, opacity: float) -> dict[str, Any]:
    markers = [drawn.markers[topology] for topology in names_in(rows, "topology")]
    marker = {
        "symbol": [marker.plotly for marker in markers],
        "color": [drawn.colors[aggregation] for aggregation in names_in(rows, "aggregation")],
        "size": size,
        "opacity": opacity,
        "line": {"width": 0.5, "color": "white"},
    }
    return _marks(drawn, rows, name, marker)


def _marks(drawn: Drawing, rows: pd.DataFrame, name: str, marker: dict[str, Any]) -> dict[str, Any]:
    xy = drawn.xy(rows)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "name": name,
        "marker": marker,
        "showlegend": False,
        "text": [hover_text(row) for _, row in rows.iterrows()],
        "hovertemplate": "%{text}<extra></extra>",
    }


def hover_text(row: pd.Series) -> str:
    """Return what the page says of one trial: its number, then what is known of it, a line each."""
    lines = [f"<b>trial {int(row['trial'])}</b>"]
    for column, word in _SHOWN.items():
        if column in row.index and not pd.isna(row[column]):
            lines.append(f"{word}: {human(column, row[column])}")
    return "<br>".join(lines)


def _legend(drawn: Drawing) -> list[dict[str, Any]]:
    """Return traces without points that explain colours and markers."""
    colors = [
        ("aggregation", name, {"symbol": "square", "color": color}) for name, color in drawn.colors.items()
    ]
    shapes = [("topology", name, {"symbol": m.plotly, "color": QUIET}) for name, m in drawn.markers.items()]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [None],
            "y": [None],
            "name": name,
            "hoverinfo": "skip",
            "marker": {**marker, "size": 10},
            "legendgroup": group,
            "legendgrouptitle": {"text": group},
        }
        for group, name, marker in colors + shapes
        if name
    ]


def _layout(drawn: Drawing, title: str | None) -> dict[str, Any]:
    n_points, n_trials = len(drawn.front.points), len(drawn.front.trials)
    return {
        "title": {"text": title or f"Pareto front: {n_points} of {n_trials} trials"},
        "template": "plotly_white",
        "hovermode": "closest",
        "xaxis": _axis(drawn.x),
        "yaxis": _axis(drawn.y),
        "font": {"color": INK},
        "legend": {"itemclick": False, "itemdoubleclick": False},
    }


def _axis(scale: Scale) -> dict[str, Any]:
    """Return plotly's words for an axis; its ranges of logarithmic axes are exponents."""
    ends = [scale.low, scale.high]
    return {
        "title": {"text": scale.label},
        "type": "log" if scale.log else "linear",
        "linecolor": FAINT,
        "ticks": "outside",
        "range": [log10(end) for end in ends] if scale.log else ends,
        "tickvals": list(scale.ticks),
        "ticktext": list(scale.tick_labels),
        "zeroline": False,
    }
