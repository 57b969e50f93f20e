"""The command that lets networks leave: a specification, plain PyTorch, torch.export, ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connsearch.cli.application import Json, read_network
from connsearch.cli.studies import Storage

if TYPE_CHECKING:
    from torch import Tensor

    from connsearch.spec.network import NetworkSpec
    from connsearch.train.result import EpochRecord


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="NET|DIR", help="A preset, a NetworkSpec TOML file, or a study's directory."),
    ],
    trial: Annotated[
        int | None, typer.Argument(metavar="[TRIAL]", min=0, help="Of a study: the trial's number.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The directory to write.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="toml, python, torch or onnx; may be repeated [toml, python, torch]."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE.safetensors",
            help="Weights, or a checkpoint [a trial's own, trained again exactly; of NET initial ones].",
        ),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold norms into what they read, for inference.")
    ] = False,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Take a trial's weights though its curve is another one here.")
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="Where a trial is trained again [as it was].")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write a network as files that need no connsearch, each verified against the network."""
    from connsearch.export.write import check_formats, export_network

    if trial is None and Path(source).is_dir():
        raise typer.BadParameter(f"{source} is a directory: which TRIAL of the study?")
    if trial is None and (inexact or device or storage):
        raise typer.BadParameter("--inexact, --device and --storage are for a TRIAL of a study")
    asked = check_formats(formats or [])
    if trial is None:
        spec, state, origin = _network(source, weights)
    else:
        spec, state, origin = _trial(source, trial, weights, device, storage, inexact=inexact)
    found = export_network(spec, output, state=state, formats=asked, folded=fold, origin=origin)
    typer.echo(json.dumps({**found.to_dict(), "origin": origin}) if as_json else f"{found}\n{origin}")


Network = tuple["NetworkSpec", "dict[str, Tensor] | None", str]


def _network(net: str, weights: Path | None) -> Network:
    """Return a network, its weights and where they are from."""
    spec = read_network(net)
    if weights is None:
        return spec, None, f"{net}, initial weights, not trained"
    from connsearch.export.trained import model_state

    return spec, model_state(weights), f"{net}, weights of {weights}"


def _trial(
    directory: str,
    number: int,
    weights: Path | None,
    device: str | None,
    storage: str | None,
    *,
    inexact: bool,
) -> Network:
    """Return a trial's network, its weights and where they are from."""
    from connsearch.export.trained import model_state, trial_of, trial_weights
    from connsearch.search.study import Study

    study = Study.load(directory, storage)
    trial = trial_of(study, number)
    if weights is not None:
        return trial.spec, model_state(weights), f"{trial.about}, weights of {weights}"
    typer.echo(f"training trial {number} again: a study keeps no weights", err=True)
    try:
        state = trial_weights(study, number, device=device, inexact=inexact, on_epoch=_tell)
    except KeyboardInterrupt:
        typer.echo("Stopped. Run the same command again to go on with the training.", err=True)
        raise typer.Exit(130) from None
    return trial.spec, state, trial.about


def _tell(record: EpochRecord) -> None:
    """Print an epoch."""
    typer.echo(f"epoch {record.epoch}: validation error {100 * record.val_error:.1f} %", err=True)
