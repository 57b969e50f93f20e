"""A front alone as a page: the same chart and tables as in a report, of trials without a study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from connsearch.files import write_whole
from connsearch.plots.files import check_path, check_picture_path, drawn_columns
from connsearch.plots.pareto import drawing_of, plot_pareto
from connsearch.plots.style import SUFFIXES, save
from connsearch.report.charts import front_panel, keys
from connsearch.report.data import Report, in_direction
from connsearch.report.page import page_of
from connsearch.report.trials import facts, front_columns, shown_columns
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.reading.plain import records_of


def save_front(front: ParetoFront, path: str | os.PathLike[str]) -> Path:
    """Draw a front in its own objectives to .png, .svg, .pdf or .html and return the path.

    Raises:
        ConnsearchError: if the suffix is another, or the file cannot be written.
        StudyError: if there is no complete trial.
    """
    target = check_front_path(path)
    x, y = drawn_columns(front)
    if target.suffix.lower() != ".html":
        return save(plot_pareto(front, x=x, y=y), target)
    pareto_html(front, target, x=x, y=y)
    return target


def check_front_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a picture or page of a front that is to be made, if one can be made there.

    Raises:
        ConnsearchError: if the suffix is another than those of `save_front`, or no file can be written
            there.
    """
    if Path(path).suffix.lower() != ".html":
        return check_picture_path(path, (*SUFFIXES, ".html"))
    return check_path(path)


def pareto_html(
    front: ParetoFront,
    path: str | os.PathLike[str] | None = None,
    *,
    x: str = "macs",
    y: str = "val_error",
    title: str | None = None,
) -> str:
    """Return the front as the text of an HTML page that carries all it needs, and write it if asked.

    Colours, markers and columns are those of `plot_pareto`; a click on a mark shows what is known of a trial.

    Args:
        front: The trials.
        path: Where to write the page.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        title: Of the page.

    Raises:
        StudyError: if there is no complete trial or no such column of numbers.
        ConnsearchError: if the file cannot be written.
    """
    drawn = drawing_of(front, x, y)
    plane = drawn.front
    rows: dict[int, dict[str, Any]] = {row["trial"]: row for row in records_of(plane.trials)}
    columns = shown_columns(list(rows.values()), plane.objectives)
    page = page_of(
        Report(
            question=title or f"Pareto front: {len(plane.points)} of {len(plane.trials)} trials",
            objectives=tuple(map(in_direction, plane.objectives, plane.directions)),
            rows=rows,
            columns=columns,
            front_columns=front_columns(columns, list(rows.values()), plane.objectives),
            front=plane.points["trial"].tolist(),
            knee=plane.knee(),
            panels=[front_panel(drawn)],
            keys=keys(plane),
            details={
                number: {"facts": facts(row, plane.objectives), "knobs": [], "notes": []}
                for number, row in rows.items()
            },
        )
    )
    if path is not None:
        write_whole(Path(path), page.encode())
    return page
