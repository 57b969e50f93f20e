"""Commands about what a trained network learned to read: look at it, prune it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connsearch.cli.application import Json, checked, read_network, wrote

if TYPE_CHECKING:
    from connsearch.train.trained import Trained

Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A training's checkpoint, or weights as safetensors.")
]
Of = Annotated[
    str | None,
    typer.Option("--net", metavar="NET", help="Whose weights they are, if the file does not say."),
]
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="Whose images gates are looked at with [the training's]."),
]
SplitName = Annotated[str, typer.Option("--split", help="Which of its images: train, val or test.")]


def connectivity(
    checkpoint: Checkpoint,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Heat maps, block by block: .svg, .png or .pdf."),
    ] = None,
    by_class: Annotated[
        Path | None,
        typer.Option(
            "--by-class", metavar="FILE", help="Mean gates of each class: .svg, .png, .pdf or .csv."
        ),
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="Draw each strength over the largest of its reader's.")
    ] = False,
    net: Of = None,
    dataset: DatasetName = None,
    split: SplitName = "val",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row for each connection.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how strongly each layer reads each earlier one, as learned: weights, gates; and draw it."""
    from connsearch.plots.files import check_picture_path
    from connsearch.plots.strengths import plot_shares_by_class, plot_strengths
    from connsearch.plots.style import SUFFIXES, save
    from connsearch.train import learned

    files = checked([output], csv)
    if by_class is not None:
        files.append(check_picture_path(by_class, (*SUFFIXES, ".csv")))
    trained = _load(checkpoint, net)
    spec = trained.network.spec
    frame = learned.learned_strengths(trained, dataset, split)
    classes = None
    if by_class is not None or (as_json and (frame["kind"] == "mean_gate").any()):
        classes = learned.learned_shares_by_class(trained, dataset, split)
    if output is not None:
        several = frame["kind"].nunique() > 1
        save(plot_strengths(spec.graph(), frame, relative=relative or several, title=spec.name), output)
    if by_class is not None and classes is not None:
        if by_class.suffix.lower() == ".csv":
            learned.write_csv(classes, by_class)
        else:
            save(plot_shares_by_class(classes, title=spec.name), by_class)
    if csv is not None:
        learned.write_csv(frame, csv)
    text = learned.strengths_text(spec.name, frame)
    typer.echo(json.dumps(learned.strengths_record(trained, frame, classes)) if as_json else text)
    wrote(*files)


def prune(
    checkpoint: Checkpoint,
    below: Annotated[
        float,
        typer.Option("--below", metavar="SHARE", help="Of the reader's strongest connection, in (0, 1]."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.toml", help="The network that is left.")
    ],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Its weights [FILE.safetensors beside it]."),
    ] = None,
    net: Of = None,
    dataset: DatasetName = None,
    split: SplitName = "val",
    as_json: Json = False,
) -> None:
    """Remove weak connections, and what only they read; write the smaller network and its weights."""
    from connsearch.files import write_whole
    from connsearch.train.pruning import prune as pruned
    from connsearch.train.trained import save_trained

    if output.suffix != ".toml":
        raise typer.BadParameter("-o names a TOML file: a network that every command takes")
    weights = weights or output.with_suffix(".safetensors")
    for path in checked(None, output, weights):
        if path.resolve() == checkpoint.resolve():
            raise typer.BadParameter(f"{path} is the checkpoint itself: name another file")
    found = pruned(_load(checkpoint, net), below, dataset, split)
    write_whole(output, found.after.network.spec.to_toml().encode())
    save_trained(found.after, weights)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(output, weights)


def _load(checkpoint: Path, net: str | None) -> Trained:
    from connsearch.train.trained import load_trained

    return load_trained(checkpoint, None if net is None else read_network(net))
