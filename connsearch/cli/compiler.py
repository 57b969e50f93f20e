"""Commands about compiled networks: are they right, how fast are they."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from connsearch.cli.application import Json, Net, read_network

Pipelines = Annotated[
    list[str] | None, typer.Option("--pipeline", help="How to compile; may be given several times [fused].")
]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


def _device(name: str) -> str:
    """Return a device that is there."""
    from connsearch.train.loop import torch_device

    return str(torch_device(name))


def verify(
    net: Net,
    pipelines: Pipelines = None,
    device: Device = "cpu",
    batch: Annotated[int, typer.Option("--batch", min=2, help="Images in a batch.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 3,
) -> None:
    """Compare a compiled network with its definition: values, gradients, running statistics, inference."""
    from connsearch.nn.verify import verification_table, verify_network

    spec = read_network(net)
    device = _device(device)
    found = [
        verify_network(spec, pipeline=pipeline, device=device, batch=batch, steps=steps)
        for pipeline in dict.fromkeys(pipelines or ["fused"])
    ]
    typer.echo(verification_table(found))
    for verification in found:
        verification.raise_if_wrong()


def bench(
    net: Net,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline",
            help="A pipeline, or definition, stacked, torch.compile; several times [definition, fused].",
        ),
    ] = None,
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
        read_network(net),
        list(dict.fromkeys(ways or ("definition", "fused"))),
        train=train,
        batch=batch,
        repeats=repeats,
        device=_device(device),
        dtype=dtype,
        channels_last=channels_last,
    )
    typer.echo(json.dumps([m._asdict() for m in measured]) if as_json else bench_table(measured))
