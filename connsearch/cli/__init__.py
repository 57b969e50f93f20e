"""The command line: parses, calls, prints."""

from __future__ import annotations

import sys

from connsearch.cli import (
    compiler,
    connectivity,
    evaluate,
    export,
    networks,
    proxies,
    reading,
    report,
    studies,
    tournament,
    training,
)
from connsearch.cli.application import app
from connsearch.memory import keep_freed

__all__ = ["app", "run_app"]

COMMANDS = (  # in the order that --help shows
    networks.list_names,
    networks.show,
    networks.draw,
    networks.cost,
    compiler.verify,
    compiler.bench,
    training.train,
    evaluate.evaluate,
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
    report.report,
    tournament.tournament,
    tournament.replicate,
    proxies.proxies,
    training.retrain,
    export.export,
    connectivity.connectivity,
    connectivity.prune,
)
for command in COMMANDS:
    app.command(command.__name__.removesuffix("_names"))(command)


def run_app() -> None:
    """Enter from the command line, in a process of our own; a closed pipe is no error."""
    keep_freed()
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
