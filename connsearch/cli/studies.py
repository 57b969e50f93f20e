"""Commands about search spaces and studies."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from connsearch.cli.application import Json

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A study's directory.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override the file, e.g. train.epochs=3."),
]


def sample(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE.toml")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many members.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the random draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw random members of a search space, with their cost."""
    from connsearch.search.members import member_record, member_table
    from connsearch.search.space import SearchSpace

    space = SearchSpace.from_toml(space_file)
    space.check()
    rng = random.Random(seed)
    members = [space.draw(rng) for _ in range(n)]
    typer.echo(
        json.dumps([member_record(member) for member in members]) if as_json else member_table(members)
    )


def plan(
    study_file: StudyFile,
    directory: Annotated[Path | None, typer.Option("--dir", help="Where the study would live.")] = None,
    device: Annotated[str | None, typer.Option("--device")] = None,
    overrides: Overrides = None,
) -> None:
    """Say what a study would run: range of cost, time, memory, storage. Runs nothing but a short timing."""
    from connsearch.search.config import StudyConfig
    from connsearch.search.plan import plan_text

    config = StudyConfig.from_toml(study_file, overrides or [])
    typer.echo(plan_text(config, directory or _directory(study_file), device))


def run(
    study_file: StudyFile,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where the study lives [runs/<its file's name>].")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Total of trials, earlier runs included.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda [cuda if there is one].")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study, or go on with it: the same command resumes what was stopped."""
    from connsearch.search.config import StudyConfig
    from connsearch.search.session import run_study

    config = StudyConfig.from_toml(study_file, overrides or [])
    where = directory or _directory(study_file)
    try:
        typer.echo(run_study(where, config, trials, device))
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Run the same command again to go on with {where}.", err=True)
        raise typer.Exit(130) from None


def status(directory: Directory, as_json: Json = False) -> None:
    """Print how far a study is: trials by state, the best one, the rate."""
    from dataclasses import asdict

    from connsearch.search.study import Study

    found = Study.load(directory).status()
    typer.echo(json.dumps(asdict(found)) if as_json else str(found))


def front(
    directory: Directory,
    plots: Annotated[
        list[Path] | None, typer.Option("--plot", help=".svg, .png, .pdf or .html; may be repeated.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all trials with a column on_front.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study, and draw it."""
    from connsearch.plots.files import check_front_path, check_path, save_front
    from connsearch.search.study import Study

    plots = plots or []
    for path in plots:
        check_front_path(path)
    if csv is not None:
        check_path(csv)
    found = Study.load(directory).pareto_front()
    for path in plots:
        save_front(found, path)
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    for path in [*plots, *([csv] if csv else [])]:
        typer.echo(f"wrote {path}", err=True)


def _directory(study_file: Path) -> Path:
    return Path("runs") / study_file.stem
