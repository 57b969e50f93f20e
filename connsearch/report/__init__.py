"""Reports: a study as one page that explains itself, opens offline, and lets one look into each trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy

if TYPE_CHECKING:
    from connsearch.report.data import Report, report_of
    from connsearch.report.front import check_front_path, pareto_html, save_front
    from connsearch.report.page import page_of, write_report

__all__ = [
    "Report",
    "check_front_path",
    "page_of",
    "pareto_html",
    "report_of",
    "save_front",
    "write_report",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Report": "connsearch.report.data",
        "check_front_path": "connsearch.report.front",
        "page_of": "connsearch.report.page",
        "pareto_html": "connsearch.report.front",
        "report_of": "connsearch.report.data",
        "save_front": "connsearch.report.front",
        "write_report": "connsearch.report.page",
    },
)
