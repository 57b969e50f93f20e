"""Commands that train to the end and test: one network, the winners of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connsearch.cli.application import Json, Net, checked, read_network, wrote
from connsearch.cli.studies import Directory, Storage
from connsearch.text import counted

if TYPE_CHECKING:
    from connsearch.search.retrained import RetrainedTrials
    from connsearch.train.watching import ConsoleWatcher

Recipe = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME", help="Fills what is not set; see `connsearch list recipes`."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of [train], e.g. lr=0.05; may be repeated."),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="N,N,...", help="A training for each.")]


def train(
    net: Net,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", metavar="NAME|FOLDER", help="What to train on; see `connsearch list datasets`."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="What is learned goes there.")
    ],
    recipe: Recipe = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes [the recipe's; else 12].")
    ] = None,
    seeds: Seeds = "0",
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda [cuda if there is one].")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train a network, or go on with it, and test it when that is done; the same command resumes."""
    from connsearch.config import override
    from connsearch.data import load_dataset
    from connsearch.search.objective import check_training, enough_memory, training_device
    from connsearch.spec.presets import PRESETS
    from connsearch.train.config import TrainConfig
    from connsearch.train.fitting import fitted
    from connsearch.train.seeds import parse_seeds
    from connsearch.train.session import Session, train_seeds

    data: dict[str, Any] = {"dataset": dataset} | ({} if recipe is None else {"recipe": recipe})
    for text in _changes(epochs, overrides):
        override(data, text)
    config = TrainConfig.from_dict(data)
    chosen, spec, where = parse_seeds(seeds), read_network(net), training_device(device)
    note = ""
    if net in PRESETS:
        spec, note = fitted(spec, load_dataset(config.dataset))
    with _watched(output) as watcher, enough_memory(where):
        if note:
            watcher.note(note)
        check_training(spec, config, where)
        found = train_seeds(output, Session(spec, config), chosen, device=where, watcher=watcher)
    if _is_first():
        typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
        wrote(output)


def retrain(
    directory: Directory,
    trials: Annotated[
        list[int] | None, typer.Argument(metavar="[TRIAL]...", min=0, help="Their numbers.")
    ] = None,
    front: Annotated[bool, typer.Option("--front", help="All trials of the study's Pareto front.")] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="One TRIAL as it was, with its own seeds: is its curve the recorded one?"
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes [the study's].")] = None,
    seeds: Seeds = "0,1,2",
    recipe: Recipe = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="What is learned goes there [DIR/retrained]."),
    ] = None,
    plots: Annotated[
        list[Path] | None, typer.Option("--plot", help=".svg, .png or .pdf; may be repeated.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a line for each trial.")] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="cpu or cuda [cuda if there is one; with --exact as recorded]."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Train trials in full, on training + validation images and fresh seeds, and test them."""
    if exact:
        others = (front, epochs, recipe, overrides, output, plots, csv, seeds != "0,1,2")
        if len(trials or ()) != 1 or any(others):
            raise typer.BadParameter(
                "--exact takes one TRIAL, and of the options --device, --storage and --json"
            )
        _retrain_exactly(directory, (trials or [0])[0], device, storage, as_json=as_json)
        return
    if front == bool(trials):
        raise typer.BadParameter("name TRIALs, or give --front (not both)")
    from connsearch.search.objective import training_device
    from connsearch.search.retrain_full import FOLDER, front_trials, full_config, retrain_trials
    from connsearch.search.study import Study
    from connsearch.train.seeds import parse_seeds

    files = checked(plots, csv)
    study, chosen = Study.load(directory, storage), parse_seeds(seeds)
    config = full_config(study.config.train, recipe, _changes(epochs, overrides))
    numbers, where = trials or front_trials(study), output or directory / FOLDER
    with _watched(where) as watcher:
        found = retrain_trials(
            study, numbers, config, chosen, output=where, device=training_device(device), watcher=watcher
        )
    if not _is_first():
        return
    _draw(found, plots or [])
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if epochs is None and config.epochs == study.config.train.epochs:
        as_studied = counted(config.epochs, "epoch")
        typer.echo(f"{as_studied}, as in the study: --epochs N -o OUT trains longer", err=True)
    wrote(where, *files)


def _draw(found: RetrainedTrials, plots: list[Path]) -> None:
    if not plots:
        return
    from connsearch.plots.retrained import plot_retrained
    from connsearch.plots.style import save

    for path in plots:
        save(plot_retrained(found), path)


def _retrain_exactly(
    directory: Path, trial: int, device: str | None, storage: str | None, *, as_json: bool
) -> None:
    """Print whether a trial's curve is the recorded one; exit 1 if not."""
    from connsearch.search.retrain import retrain_exactly
    from connsearch.search.study import Study
    from connsearch.train.torchrun import refuse_several

    refuse_several("an exact repetition", "start it without torchrun")
    found = retrain_exactly(Study.load(directory, storage), trial, device=device)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    if not found.equal:
        raise typer.Exit(1)


def _changes(epochs: int | None, overrides: list[str] | None) -> list[str]:
    """Return what the command line says of training, as `--set` does."""
    given = [text.removeprefix("train.") for text in overrides or []]
    return [*given, *([] if epochs is None else [f"epochs={epochs}"])]


@contextmanager
def _watched(directory: Path) -> Iterator[ConsoleWatcher]:
    """Show how trainings go; Ctrl-C says how to go on."""
    from rich.console import Console

    from connsearch.train.watching import ConsoleWatcher

    try:
        with ConsoleWatcher(Console(stderr=True, quiet=not _is_first())) as watcher:
            yield watcher
    except KeyboardInterrupt:
        if _is_first():
            typer.echo(f"Stopped. Run the same command again to go on with {directory}.", err=True)
        raise typer.Exit(130) from None


def _is_first() -> bool:
    """Return whether this process prints: of several that torchrun started only the first."""
    from connsearch.train.torchrun import launched

    place = launched()
    return place is None or place.rank == 0
