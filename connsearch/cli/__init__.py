"""The command line: parses, calls, prints."""

from __future__ import annotations

import sys

from connsearch.cli import compiler, connectivity, export, networks, proxies, reading, studies, tournament
from connsearch.cli.application import app

__all__ = ["app", "run_app"]

COMMANDS = (  # in the order that --help shows
    networks.list_names,
    networks.show,
    networks.draw,
    networks.cost,
    compiler.verify,
    compiler.bench,
    studies.sample,
    studies.plan,
    studies.run,
    studies.submit,
    studies.status,
    studies.front,
    reading.trials,
    reading.history,
    reading.importance,
    reading.log,
    tournament.tournament,
    tournament.replicate,
    proxies.proxies,
    studies.retrain,
    export.export,
    connectivity.connectivity,
    connectivity.prune,
)
for command in COMMANDS:
    app.command(command.__name__.removesuffix("_names"))(command)


def run_app() -> None:
    """Enter from the command line; a closed pipe is no error."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
