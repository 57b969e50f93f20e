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
    target = check_front_path(path)
    if target.suffix.lower() != ".html":
        return save(plot_pareto(front), target)
    pareto_html(front, target)
    return target


def check_front_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a picture that is to be made, if one can be made there.

    Raises:
        ConnsearchError: if the suffix is not one of a picture's, or there is no such directory.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (*SUFFIXES, ".html"):
        known = did_you_mean(suffix, [*SUFFIXES, ".html"])
        raise ConnsearchError(f"{target}: cannot draw to a file ending in {suffix!r}. {known}")
    if not target.parent.is_dir():
        raise ConnsearchError(f"{target}: there is no directory {target.parent}: make it first")
    return target
