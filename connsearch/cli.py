"""The command line: parses, calls, prints."""

from __future__ import annotations

import json
import random
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from connsearch.errors import ConnsearchError

if TYPE_CHECKING:
    from connsearch.spec.network import NetworkSpec


class _Group(TyperGroup):
    """Prints an error of ours as one line and exits with 1; Ctrl-C exits with 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConnsearchError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Search neural architectures over cross-layer connectivity, at equal compute.",
)

Net = Annotated[str, typer.Argument(metavar="NET", help="A preset's name or a NetworkSpec TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A study's directory.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override the file, e.g. train.epochs=3.")
]


class Kind(StrEnum):
    """What `list` lists."""

    topologies = "topologies"
    aggregations = "aggregations"
    units = "units"
    lines = "lines"
    presets = "presets"
    stems = "stems"
    transitions = "transitions"
    heads = "heads"
    drops = "drops"
    datasets = "datasets"
    samplers = "samplers"
    passes = "passes"


def _version(asked: bool) -> None:
    if asked:
        from connsearch import __version__

        typer.echo(f"connsearch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search neural architectures over cross-layer connectivity, at equal compute."""


@app.command("list")
def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what is registered under each name."""
    from connsearch.catalog import catalog

    typer.echo(catalog(kind.value))


@app.command()
def show(
    net: Net,
    graph: Annotated[
        bool, typer.Option("--graph", help="Who reads whom, and how far gradients travel.")
    ] = False,
    ir: Annotated[bool, typer.Option("--ir", help="The program that the compiler makes of it.")] = False,
    code: Annotated[bool, typer.Option("--code", help="The Python code of that program.")] = False,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", help="How to compile, for --ir and --code [fused].")
    ] = None,
) -> None:
    """Show a network: each node's shapes and cost, its connections, its program or its code."""
    if graph + ir + code > 1:
        raise typer.BadParameter("one of --graph, --ir and --code at a time")
    if pipeline is not None and not (ir or code):
        raise typer.BadParameter("--pipeline is for --ir and --code")
    from connsearch.cost.table import graph_text, node_table

    spec = _network(net)
    if not (ir or code):
        typer.echo(graph_text(spec) if graph else node_table(spec))
        return
    from connsearch.ir import lower, optimize
    from connsearch.ir.report import program_report

    program = optimize(lower(spec), pipeline or "fused")
    if ir:
        typer.echo(program_report(program))
        return
    from connsearch.nn.compiled import code_of

    typer.echo(code_of(spec, pipeline or "fused"))


@app.command()
def draw(
    net: Net, output: Annotated[Path, typer.Option("-o", "--output", help=".svg, .png or .pdf")]
) -> None:
    """Draw a network's connectivity: an arc diagram, or as its U where it comes back to a finer scale."""
    from connsearch.plots import plot_graph, save
    from connsearch.spec.resolve import resolve

    spec = _network(net)
    plan = resolve(spec)
    save(plot_graph(plan.graph, title=spec.name, sizes=plan.sizes()), output)
    typer.echo(f"wrote {output}")


@app.command()
def cost(
    nets: Annotated[
        list[str] | None, typer.Argument(metavar="NET...", help="Presets or NetworkSpec TOML files.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=1, help="In place of the network's own.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Beside the figures that papers print, sources named.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All presets.")] = False,
    as_json: Json = False,
) -> None:
    """Print parameters, multiply-accumulates, FLOPs and activation memory, for one image."""
    if every == bool(nets):
        raise typer.BadParameter("name networks, or give --all (not both)")
    if published:
        if classes is not None:
            raise typer.BadParameter("a published figure has the classes it was printed for: no --classes")
        from connsearch.cost.published import figure_record, figures_of, published_table

        figures = figures_of(nets)
        records = [figure_record(figure) for figure in figures] if as_json else []
        typer.echo(json.dumps(records) if as_json else published_table(figures, nets or ()))
        return
    from connsearch.cost.table import cost_record, cost_table
    from connsearch.spec.presets import list_presets

    nets = nets or list_presets()
    specs = [_network(net, classes) for net in nets]
    typer.echo(json.dumps([cost_record(spec) for spec in specs]) if as_json else cost_table(specs))


Pipelines = Annotated[
    list[str], typer.Option("--pipeline", help="How to compile; may be given several times [fused].")
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


def _device(name: str) -> str:
    """Return a device that is there."""
    from connsearch.train.loop import torch_device

    return str(torch_device(name))


@app.command()
def verify(
    net: Net,
    pipelines: Pipelines = [],  # noqa: B006  # typer reads it, nobody changes it
    device: Device = "cpu",
    batch: Annotated[int, typer.Option("--batch", min=2, help="Images in a batch.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3,
) -> None:
    """Compare a compiled network with its definition: values, gradients, running statistics, inference."""
    from connsearch.nn.verify import verification_table, verify_network

    spec = _network(net)
    device = _device(device)
    found = [
        verify_network(spec, pipeline=pipeline, device=device, batch=batch, steps=steps)
        for pipeline in pipelines or ["fused"]
    ]
    typer.echo(verification_table(found))
    for verification in found:
        verification.raise_if_wrong()


@app.command()
def bench(
    net: Net,
    ways: Annotated[
        list[str],
        typer.Option(
            "--pipeline",
            help="A pipeline, or definition, stacked, torch.compile; several times [definition, fused].",
        ),
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in a batch.")] = 64,
    train: Annotated[
        bool, typer.Option("--train/--inference", help="A step of training, or a forward pass.")
    ] = True,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Channels last in memory.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Steps timed of each.")] = 5,
    as_json: Json = False,
) -> None:
    """Verify a compiled network, then time it beside other ways to run it, interleaved."""
    from connsearch.nn.bench import bench_network, bench_table

    measured = bench_network(
        _network(net),
        ways or ("definition", "fused"),
        train=train,
        batch=batch,
        repeats=repeats,
        device=_device(device),
        dtype=dtype,
        channels_last=channels_last,
    )
    typer.echo(json.dumps([m._asdict() for m in measured]) if as_json else bench_table(measured))


@app.command()
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


@app.command()
def plan(
    study_file: StudyFile,
    directory: Annotated[Path | None, typer.Option("--dir", help="Where the study would live.")] = None,
    device: Annotated[str | None, typer.Option("--device")] = None,
    overrides: Overrides = [],  # noqa: B006  # typer reads it, nobody changes it
) -> None:
    """Say what a study would run: range of cost, time, memory, storage. Runs nothing but a short timing."""
    from connsearch.search.config import StudyConfig
    from connsearch.search.plan import plan_text

    config = StudyConfig.from_toml(study_file, overrides)
    typer.echo(plan_text(config, directory or _directory(study_file), device))


@app.command()
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
    overrides: Overrides = [],  # noqa: B006  # typer reads it, nobody changes it
) -> None:
    """Run a study, or go on with it: the same command resumes what was stopped."""
    from connsearch.search.config import StudyConfig
    from connsearch.search.session import run_study

    config = StudyConfig.from_toml(study_file, overrides)
    where = directory or _directory(study_file)
    try:
        typer.echo(run_study(where, config, trials, device))
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Run the same command again to go on with {where}.", err=True)
        raise typer.Exit(130) from None


@app.command()
def status(directory: Directory, as_json: Json = False) -> None:
    """Print how far a study is: trials by state, the best one, the rate."""
    from dataclasses import asdict

    from connsearch.search.study import Study

    found = Study.load(directory).status()
    typer.echo(json.dumps(asdict(found)) if as_json else str(found))


@app.command()
def front(
    directory: Directory,
    plots: Annotated[
        list[Path], typer.Option("--plot", help=".svg, .png, .pdf or .html; may be repeated.")
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all trials with a column on_front.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the Pareto front of a study, and draw it."""
    from connsearch.plots.files import check_front_path, check_path, save_front
    from connsearch.search.study import Study

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


def _network(net: str, classes: int | None = None) -> NetworkSpec:
    from connsearch.spec.presets import load_network

    return load_network(net, n_classes=classes)


def _directory(study_file: Path) -> Path:
    return Path("runs") / study_file.stem


def run_app() -> None:
    """Enter from the command line; a closed pipe is no error."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
