"""The application, and what its commands share: options, how an error of ours is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
            from connsearch.train.torchrun import tells

            if tells(error):
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


Net = Annotated[str, typer.Argument(metavar="NET", help="A preset's name or a NetworkSpec TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def read_network(net: str, classes: int | None = None) -> NetworkSpec:
    """Return the network that a preset name or a file stands for."""
    from connsearch.cli.kinds import refuse_another
    from connsearch.spec.presets import PRESETS, load_network

    if net not in PRESETS and net.endswith(".toml"):
        refuse_another(net, "network")
    return load_network(net, n_classes=classes)


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done; give out what shows what is done next."""
    from rich.console import Console

    from connsearch.train.live import LiveLine

    with LiveLine(Console(stderr=True)) as line:
        line.show(text)
        yield line.show


def checked(pictures: Iterable[Path | None] | None, *tables: Path | None) -> list[Path]:
    """Return the files that are to be written, pictures first, if each can be; None is none.

    Raises:
        ConnsearchError: if one cannot be.
    """
    from connsearch.plots.files import check_path, check_picture_path

    drawn = [check_picture_path(path) for path in pictures or () if path is not None]
    return [*drawn, *(check_path(path) for path in tables if path is not None)]


def wrote(*files: Path | None) -> None:
    """Say which files were written; None is none."""
    for path in files:
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
