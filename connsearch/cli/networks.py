"""Commands about networks: what there is, what they look like, what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from connsearch.catalog import CATALOGS, catalog
from connsearch.cli.application import Json, Net, checked, read_network, wrote
from connsearch.cli.compiler import program_text
from connsearch.errors import did_you_mean


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to list: {', '.join(CATALOGS)}.")],
) -> None:
    """List what is registered under each name."""
    if kind not in CATALOGS:
        raise typer.BadParameter(f"unknown kind {kind!r}. {did_you_mean(kind, CATALOGS)}")
    typer.echo(catalog(kind))


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

    spec = read_network(net)
    if not (ir or code):
        typer.echo(graph_text(spec) if graph else node_table(spec))
        return
    if ir:
        typer.echo(program_text(spec, pipeline or "fused"))
        return
    from connsearch.nn.compiled import code_of

    typer.echo(code_of(spec, pipeline or "fused"))


def draw(
    net: Net, output: Annotated[Path, typer.Option("-o", "--output", help=".svg, .png or .pdf")]
) -> None:
    """Draw a network's connectivity: an arc diagram, or as its U where it comes back to a finer scale."""
    from connsearch.plots import plot_graph, save
    from connsearch.spec.resolve import resolve

    files, spec = checked([output]), read_network(net)
    plan = resolve(spec)
    save(plot_graph(plan.graph, title=spec.name, sizes=plan.sizes()), output)
    wrote(*files)


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
    specs = [read_network(net, classes) for net in nets]
    typer.echo(json.dumps([cost_record(spec) for spec in specs]) if as_json else cost_table(specs))
