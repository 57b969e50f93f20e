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
            help="Weights, or a checkpoint [of a trial as --retrained says; of NET initial ones].",
        ),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold norms into what they read, for inference.")
    ] = False,
    inexact: Annotated[
        bool, typer.Option("--inexact", help="Take a trial's weights though its curve is another one here.")
    ] = False,
    retrained: Annotated[
        bool | None,
        typer.Option(
            "--retrained/--as-studied",
            help="Of a trial: the weights of `connsearch retrain`, or those that the study had reached "
            "[retrained, where they are there].",
        ),
    ] = None,
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
    if trial is None and (inexact or device or storage or retrained is not None):
        raise typer.BadParameter("--inexact, --retrained, --device and --storage are for a TRIAL of a study")
    if retrained and (inexact or device or weights):
        raise typer.BadParameter("--retrained names the weights: leave out --weights, --inexact and --device")
    if weights and (inexact or device):
        raise typer.BadParameter("--weights names the weights: leave out --inexact and --device")
    asked = check_formats(formats or [])
    if trial is None:
        spec, state, origin = _network(source, weights)
    else:
        wanted = False if inexact or device else retrained
        spec, state, origin = _trial(source, trial, weights, device, storage, wanted, inexact=inexact)
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
    retrained: bool | None,
    *,
    inexact: bool,
) -> Network:
    """Return a trial's network, its weights and where they are from."""
    from connsearch.errors import StudyError
    from connsearch.export.trained import model_state, retrained_weights, trial_of, trial_weights
    from connsearch.search.study import Study

    study = Study.load(directory, storage)
    trial = trial_of(study, number)
    if weights is not None:
        return trial.spec, model_state(weights), f"trial {number} of {directory}, weights of {weights}"
    found = None if retrained is False else retrained_weights(study, number)
    if found is not None:
        return trial.spec, found.state, f"trial {number} of {directory}, {found.about}"
    if retrained:
        raise StudyError(
            f"{directory}: trial {number} is not retrained there: `connsearch retrain {directory} {number}` "
            "does that, --weights names a file elsewhere"
        )
    typer.echo(f"training trial {number} again: a study keeps no weights", err=True)
    try:
        state, differs = trial_weights(study, number, device=device, inexact=inexact, on_epoch=_tell)
    except KeyboardInterrupt:
        typer.echo("Stopped. Run the same command again to go on with the training.", err=True)
        raise typer.Exit(130) from None
    origin = f"trial {number} of {directory}, trained again to other weights than it had: it {differs}"
    return trial.spec, state, origin if differs else trial.about


def _tell(record: EpochRecord) -> None:
    """Print an epoch."""
    typer.echo(f"epoch {record.epoch}: validation error {100 * record.validated_error:.1f} %", err=True)
