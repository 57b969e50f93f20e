"""A command about zero-cost proxies: are they worth anything on a study of one's own?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from connsearch.cli.application import Json, checked, wrote
from connsearch.cli.studies import Directory, Storage


def proxies(
    directory: Directory,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy", metavar="NAME", help="naswot, synflow, grad_norm or snip; may be repeated [all]."
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the proxies of all trials.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say how zero-cost proxies order a study's errors, beside MACs and parameters."""
    from rich.console import Console

    from connsearch.search.objective import training_device
    from connsearch.search.proxies.report import compare_proxies
    from connsearch.search.proxies.scores import PROXIES
    from connsearch.search.study import Study

    files = checked(None, csv)
    where, study = training_device(device), Study.load(directory, storage)
    chosen = list(dict.fromkeys(names or PROXIES))
    console = Console(stderr=True)
    with console.status("proxies") as status:
        found = compare_proxies(
            study,
            chosen,
            device=where,
            on_trial=lambda done, total: status.update(f"proxies of {done} of {total} trials"),
        )
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(*files)
