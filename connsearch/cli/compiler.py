"""Commands about compiled networks: are they right, how fast are they."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from connsearch.cli.application import Json, Net, read_network

Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Channels last in memory.")]
DTYPE = "float32, bfloat16 or float16"


def _device(name: str) -> str:
    """Return a device that is there."""
    from connsearch.train.surroundings import torch_device

    return str(torch_device(name))


def verify(
    net: Net,
    ways: Annotated[
        list[str] | None,
        typer.Option("--pipeline", help="How to compile; or stacked; may be given several times [fused]."),
    ] = None,
    device: Device = "cpu",
    dtypes: Annotated[
        list[str] | None,
        typer.Option("--dtype", help=f"Beside float64: {DTYPE}; may be given several times [float32]."),
    ] = None,
    channels_last: ChannelsLast = False,
    batch: Annotated[int, typer.Option("--batch", min=2, help="Images in a batch.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3,
    as_json: Json = False,
) -> None:
    """Compare a compiled network with its definition: values, gradients, running statistics, inference."""
    from connsearch.nn.verification import verification_table, working_dtype
    from connsearch.nn.verify import Comparison

    working = [working_dtype(name) for name in dict.fromkeys(dtypes or ["float32"])]
    compared = Comparison(
        read_network(net), device=_device(device), batch=batch, steps=steps, channels_last=channels_last
    )
    found = [
        compared.verification(way, dtype) for way in dict.fromkeys(ways or ["fused"]) for dtype in working
    ]
    if not as_json:
        typer.echo(verification_table(found))
    for verification in found:
        verification.raise_if_wrong()
    if as_json:
        typer.echo(json.dumps([verification.as_json() for verification in found]))


def bench(
    net: Net,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline",
            help="A way to run it: a pipeline, definition, stacked, torch.compile, "
            "'torch.compile max-autotune' or 'cuda graph'; may be given several times [definition, fused].",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in a batch.")] = 64,
    train: Annotated[
        bool | None,
        typer.Option("--train/--inference", help="A step of training, or of evaluation alone [both]."),
    ] = None,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help=f"{DTYPE}.")] = "float32",
    channels_last: ChannelsLast = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Steps timed of each.")] = 5,
    as_json: Json = False,
) -> None:
    """Verify a compiled network, then time it beside other ways to run it, interleaved."""
    from connsearch.nn.bench import MODES, bench_network, bench_table

    measured = bench_network(
        read_network(net),
        list(dict.fromkeys(ways or ("definition", "fused"))),
        modes=MODES if train is None else ("train",) if train else ("inference",),
        batch=batch,
        repeats=repeats,
        device=_device(device),
        dtype=dtype,
        channels_last=channels_last,
    )
    typer.echo(json.dumps([m._asdict() for m in measured]) if as_json else bench_table(measured))
