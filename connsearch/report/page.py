"""A report as one HTML page: all that it needs is in it, it asks nothing of a network, and nothing runs in it
but its own script."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from connsearch.files import write_whole
from connsearch.report.words import TO_LEFT, in_words, name_of

if TYPE_CHECKING:
    from connsearch.report.data import Report

_ASSETS = files("connsearch.report") / "assets"
_SCRIPTS = ("svg.js", "chart.js", "front.js", "graph.js", "tables.js", "detail.js", "main.js")


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write a report as a page, in one step, and return the path.

    Raises:
        ConnsearchError: if the file cannot be written.
    """
    return write_whole(path, page_of(report).encode())


def page_of(report: Report) -> str:
    """Return a report as the text of an HTML page; the same report gives the same text."""
    style, script = _asset("page.css"), "".join(map(_asset, _SCRIPTS))
    script = f'"use strict";(() => {{\n{script}}})();\n'
    return _template().render(
        report=report,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        style=style,
        script=script,
        data=_data(report),
    )


def _data(report: Report) -> dict[str, Any]:
    """Return what the script reads."""
    return {
        "front": report.front,
        "knee": report.knee,
        "panels": report.panels,
        "keys": report.keys,
        "layouts": report.layouts,
        "details": report.details,
        "history": report.history,
        "standings": report.standings,
        "importance": report.importance,
    }


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["words"] = lambda value, column: in_words(column, value)
    environment.filters["name"] = name_of
    environment.filters["left"] = lambda column: column in TO_LEFT
    environment.filters["percent"] = lambda value, digits=2: f"{100 * value:.{digits}f}"
    return environment.from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return what a content security policy calls a text that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
