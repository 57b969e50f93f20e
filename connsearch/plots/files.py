"""A front as a file: a picture or a page, by the file's name."""

from __future__ import annotations

import os
from pathlib import Path

from connsearch.errors import ConnsearchError, did_you_mean
from connsearch.plots.html import pareto_html
from connsearch.plots.pareto import plot_pareto
from connsearch.plots.style import SUFFIXES, save
from connsearch.search.pareto import ParetoFront


def save_front(front: ParetoFront, path: str | os.PathLike[str]) -> Path:
    """Draw a front to .png, .svg, .pdf or .html and return the path.

    Raises:
        ConnsearchError: if the suffix is another, plotly is missing for .html, or the file cannot be
            written.
        StudyError: if there is no complete trial.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".html":
        pareto_html(front, target)
        return target
    if suffix not in SUFFIXES:
        known = did_you_mean(suffix, [*SUFFIXES, ".html"])
        raise ConnsearchError(f"{target}: cannot draw to a file ending in {suffix!r}. {known}")
    return save(plot_pareto(front), target)
