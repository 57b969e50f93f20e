"""Commands that train with several seeds: the tournament of all pairs, replicates of a front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from connsearch.cli.application import Json, checked, wrote
from connsearch.cli.studies import Directory, Overrides, Storage, StudyFile, read_study

Plots = Annotated[list[Path] | None, typer.Option("--plot", help=".svg, .png or .pdf; may be repeated.")]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Processes on this host; other hosts may join.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda [cuda if there is one].")]
NoRun = Annotated[bool, typer.Option("--no-run", help="Train nothing: print what there is.")]


def tournament(
    study_file: StudyFile,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where it lives [runs/<its file's name>-tournament].")
    ] = None,
    macs: Annotated[
        int | None,
        typer.Option("--macs", min=1, help="Budget of every network [the file's; else the space's middle]."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Trainings of every network; more may follow [5].")
    ] = None,
    workers: Workers = 1,
    storage: Storage = None,
    device: Device = None,
    plots: Plots = None,
    matrix: Annotated[
        Path | None, typer.Option("--matrix", help="Draw mean errors, topologies x aggregations.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a line for each training.")] = None,
    no_run: NoRun = False,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Train every topology x aggregation of a space at equal MACs with the same seeds, and say who wins."""
    from connsearch.plots.style import save
    from connsearch.plots.tournament import plot_tournament, plot_tournament_matrix
    from connsearch.search.tournament.contestants import tournament_of
    from connsearch.search.tournament.session import read_tournament, run_tournament

    files = checked([*(plots or []), matrix], csv)
    given = [f"tournament.{name}={value}" for name, value in (("macs", macs), ("seeds", seeds)) if value]
    config = tournament_of(read_study(study_file, [*(overrides or []), *given]))
    where = directory or _directory(study_file)
    try:
        if no_run:
            found = read_tournament(where, config, storage)
        else:
            found = run_tournament(where, config, device, workers=workers, storage=storage)
    except KeyboardInterrupt:
        _stopped(where)
    for path in plots or []:
        save(plot_tournament(found), path)
    if matrix is not None:
        save(plot_tournament_matrix(found), matrix)
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(*files)


def replicate(
    directory: Directory,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Trainings at most, earlier ones included [5 a candidate]."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            min=0,
            max=1,
            help="Error above the front that is still near, 0.01 is 1 % [one "
            "standard error, by the number of validation images].",
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, help="Trials to repeat at most [20].")
    ] = None,
    workers: Workers = 1,
    storage: Storage = None,
    device: Device = None,
    plots: Plots = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a line for each candidate.")] = None,
    no_run: NoRun = False,
    as_json: Json = False,
) -> None:
    """Repeat the trials near a study's front with fresh seeds until their ranks separate, below DIR."""
    from connsearch.plots.confirmed import plot_confirmed
    from connsearch.plots.style import save
    from connsearch.search.replicates.session import begin_replicates, read_replicates, run_replicates

    files = checked(plots, csv)
    try:
        if no_run:
            found = read_replicates(directory, storage)
        else:
            study, note = begin_replicates(directory, storage, margin=margin, most=candidates)
            if note:
                typer.echo(note, err=True)
            found = run_replicates(study, trials, device, workers=workers, storage=storage)
    except KeyboardInterrupt:
        _stopped(directory)
    for path in plots or []:
        save(plot_confirmed(found), path)
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(*files)


def _directory(study_file: Path) -> Path:
    name = study_file.stem
    return Path("runs") / (name if name.endswith("tournament") else f"{name}-tournament")


def _stopped(where: Path) -> None:
    typer.echo(
        f"Stopped. Run the same command again to go on with {where}; --no-run prints what there is.", err=True
    )
    raise typer.Exit(130) from None
