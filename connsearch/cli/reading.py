"""Commands that read a study's record: tables, history, importance of knobs, logs for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from connsearch.cli.application import Json, checked, wrote
from connsearch.cli.studies import Directory, Storage

Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the whole table.")]
Plots = Annotated[
    list[Path] | None, typer.Option("--plot", metavar="FILE", help=".svg, .png or .pdf; may be repeated.")
]


def trials(
    directory: Directory,
    csv: Csv = None,
    curves: Annotated[
        Path | None,
        typer.Option("--curves", metavar="FILE", help="Write a row for each epoch of the chosen trials."),
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="complete, failed, pruned, waiting, unfinished, diverged; repeatable."),
    ] = None,
    sort: Annotated[str | None, typer.Option("--sort", metavar="COLUMN", help="[trial]")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The greatest first.")] = False,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only so many, from the top.")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the trials of a study; --csv and --json have all that is recorded of them."""
    from connsearch.search.reading.plain import records_of
    from connsearch.search.reading.tables import chosen, trials_text, write_csv
    from connsearch.search.study import Study

    files = checked(None, csv, curves)
    study = Study.load(directory, storage)
    objectives = study.config.objectives
    frame = chosen(
        study.trials_frame(), states=states or [], sort=sort, reverse=reverse, objectives=objectives, n=n
    )
    if csv is not None:
        write_csv(frame, csv)
    if curves is not None:
        epochs = study.curves_frame()
        write_csv(epochs[epochs["trial"].isin(frame["trial"])], curves)
    if as_json:
        typer.echo(json.dumps({"objectives": list(objectives), "trials": records_of(frame)}))
    else:
        typer.echo(trials_text(frame, first=sort))
    wrote(*files)


def history(
    directory: Directory,
    plots: Plots = None,
    csv: Csv = None,
    y: Annotated[
        str, typer.Option("--y", metavar="COLUMN", help="Whose best so far is shown.")
    ] = "val_error",
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="NAME=VALUE",
            help="Measure the hypervolume from here; for every objective, e.g. val_error=0.1 [the study's].",
        ),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print hypervolume, best so far and size of the front against the number of finished trials."""
    from connsearch.plots.history import plot_history
    from connsearch.plots.style import save
    from connsearch.search.reading.history import (
        finished_in_order,
        history_dict,
        history_frame,
        history_text,
        with_reference,
    )
    from connsearch.search.reading.tables import write_csv
    from connsearch.search.study import Study

    files = checked(plots, csv)
    study = Study.load(directory, storage)
    front, finished = with_reference(study.pareto_front(), reference or []), finished_in_order(study.trials())
    frame = history_frame(front, y, finished=finished)
    for path in plots or []:
        save(plot_history(front, y=y, finished=finished), path)
    if csv is not None:
        write_csv(frame, csv)
    plain = history_dict(frame, front.reference)
    typer.echo(json.dumps(plain) if as_json else history_text(frame, front, y))
    wrote(*files)


def importance(
    directory: Directory,
    objective: Annotated[str, typer.Option("--objective", metavar="NAME")] = "val_error",
    at_equal_macs: Annotated[
        bool, typer.Option("--at-equal-macs", help="Take out what the MACs of a network explain.")
    ] = False,
    method: Annotated[
        str, typer.Option("--method", help="fanova, or ped-anova: what the best fifth has in common.")
    ] = "fanova",
    resamples: Annotated[
        int, typer.Option("--resamples", min=2, help="Bootstraps over trials, and random deals.")
    ] = 40,
    plots: Plots = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say which knobs an objective depends on, how sure that is, and what chance would give."""
    from connsearch.plots.importance import plot_importance
    from connsearch.plots.style import save
    from connsearch.search.reading.importance import importance_of
    from connsearch.search.study import Study

    files = checked(plots)
    study = Study.load(directory, storage)
    found = importance_of(
        study.trials(),
        study.config,
        objective,
        at_equal_macs=at_equal_macs,
        method=method,
        n_resamples=resamples,
    )
    for path in files:
        save(plot_importance(found), path)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(*files)


def log(
    directory: Directory,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="OUT", help="Directory for tensorboard --logdir.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", metavar="URI", help="Tracking store: http://HOST:PORT or sqlite:///FILE."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="NAME", help="Of MLflow [the name of the study's directory]."),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write finished trials for TensorBoard or MLflow; called again, it adds those that are new."""
    from connsearch.search.study import Study

    if tensorboard is None and mlflow is None:
        raise typer.BadParameter("give --tensorboard OUT or --mlflow URI, or both")
    study = Study.load(directory, storage)
    if tensorboard is not None:
        from connsearch.search.tracking.tensorboard import log_tensorboard

        typer.echo(f"{tensorboard}: {log_tensorboard(study, tensorboard)} new runs")
    if mlflow is not None:
        from connsearch.search.tracking.mlflow import log_mlflow

        typer.echo(f"{mlflow}: {log_mlflow(study, mlflow, experiment)} new runs")
