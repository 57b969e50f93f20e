"""Commands about search spaces and studies."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connsearch.cli.application import Json, checked, waiting, wrote

if TYPE_CHECKING:
    from connsearch.search.config import StudyConfig

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A study's directory.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override the file, e.g. train.epochs=3."),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="A database: postgresql+psycopg://USER@HOST/DATABASE, sqlite:///FILE, grpc://HOST:PORT "
        "[what the directory remembers, else a journal file in it].",
    ),
]


def sample(
    space_file: Annotated[Path, typer.Argument(metavar="SPACE.toml")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many members.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of the random draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw random members of a search space, with their cost."""
    from connsearch.cli.kinds import refuse_another
    from connsearch.search.members import member_record, member_table
    from connsearch.search.space import SearchSpace

    refuse_another(space_file, "space")
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
    storage: Storage = None,
    overrides: Overrides = None,
) -> None:
    """Say what a study would run: range of cost, time, memory, storage. Runs nothing but a short timing."""
    from connsearch.search.plan import plan_of

    config = read_study(study_file, overrides)
    with waiting("checking the space") as show:
        found = plan_of(config, directory or _directory(study_file), device, storage, show)
    typer.echo(found.text)
    if found.obstacle is not None:
        raise found.obstacle


def run(
    study_file: StudyFile,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where the study lives [runs/<its file's name>].")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Total of trials, earlier runs and other workers included."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes on this host; other hosts may join.")
    ] = 1,
    storage: Storage = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda [cuda if there is one].")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study, join it, or go on with it: the same command resumes what was stopped."""
    from connsearch.search.session import run_study
    from connsearch.train.torchrun import refuse_several

    refuse_several("a study", "start it without torchrun; --workers N runs N trials at once")
    config = read_study(study_file, overrides)
    where = directory or _directory(study_file)
    try:
        typer.echo(run_study(where, config, trials, device, workers=workers, storage=storage))
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Run the same command again to go on with {where}.", err=True)
        raise typer.Exit(130) from None


def submit(
    study_file: StudyFile,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="How many jobs.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="As for run; on a file system that all jobs see.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Total of trials, of all jobs.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Trials at once in each job.")] = 1,
    storage: Storage = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda [cuda if a job has one].")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--job", metavar="KEY=VALUE", help="Of submitit, e.g. slurm_partition=gpu, timeout_min=240."
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="slurm, or local for processes of this host.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study by jobs of a Slurm cluster; needs a storage that all of them reach."""
    from connsearch.search.slurm import WorkerJob, parse_options, submit as submit_jobs

    config = read_study(study_file, overrides)
    where = directory or _directory(study_file)
    job = WorkerJob(where.absolute(), config, trials, workers, storage, device)
    for submitted in submit_jobs(job, jobs, parse_options(options or []), cluster=cluster):
        typer.echo(submitted.job_id)


def status(directory: Directory, storage: Storage = None, as_json: Json = False) -> None:
    """Print how far a study is: trials by state and reason, the best one, the rate, who is alive."""
    from connsearch.search.study import Study

    found = Study.load(directory, storage).status()
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))


def front(
    directory: Directory,
    plots: Annotated[
        list[Path] | None, typer.Option("--plot", help=".svg, .png, .pdf or .html; may be repeated.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all trials with a column on_front.")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study, and draw it."""
    from connsearch.report.front import check_front_path, save_front
    from connsearch.search.study import Study

    for path in plots or []:
        check_front_path(path)
    files = [*(plots or []), *checked(None, csv)]
    found = Study.load(directory, storage).pareto_front()
    for path in plots or []:
        save_front(found, path)
    if csv is not None:
        found.to_csv(csv)
    typer.echo(json.dumps(found.to_dict()) if as_json else str(found))
    wrote(*files)


def read_study(study_file: Path, overrides: list[str] | None) -> StudyConfig:
    """Return the study that a file describes, with what `--set` changes."""
    from connsearch.cli.kinds import refuse_another
    from connsearch.search.config import StudyConfig

    refuse_another(study_file, "study")
    return StudyConfig.from_toml(study_file, overrides or [])


def _directory(study_file: Path) -> Path:
    return Path("runs") / study_file.stem
