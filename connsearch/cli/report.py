"""The command that writes a study as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connsearch.cli.application import checked, waiting, wrote
from connsearch.cli.studies import Directory, Storage


def report(
    directory: Directory,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.html", help="The page; replaced if it is there.")
    ] = Path("report.html"),
    tournament: Annotated[
        Path | None,
        typer.Option(
            "--tournament",
            metavar="DIR",
            help="A tournament to show with it [the study itself if it is one, else DIR-tournament].",
        ),
    ] = None,
    importance: Annotated[
        bool, typer.Option(help="Estimate which knobs matter, where there are enough trials; takes seconds.")
    ] = True,
    storage: Storage = None,
) -> None:
    """Write a study as one page that works offline: front, networks, costs, curves, what failed."""
    from connsearch.report import report_of, write_report
    from connsearch.search.study import Study

    files = checked(None, output)
    with waiting(f"reading {directory}") as show:
        study = Study.load(directory, storage)
        show("estimating which knobs matter" if importance else "describing the networks")
        found = report_of(study, tournament=tournament, with_importance=importance)
        show("writing the page")
        write_report(found, output)
    typer.echo(found.state)
    wrote(*files)
