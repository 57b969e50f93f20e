"""Commands about compiled networks: are they right, how fast are they."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connsearch.cli.application import Json, Net, checked, read_network, wrote
from connsearch.errors import ConnsearchError

if TYPE_CHECKING:
    from connsearch.spec.network import NetworkSpec

Device = Annotated[str, typer.Option("--device", help="Where to run: cpu, cuda or cuda:<number>.")]
ChannelsLast = Annotated[
    bool,
    typer.Option("--channels-last", help="Images and convolutions have their channels last in memory."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of PyTorch [its own choice].")
]
DTYPE = "float32, bfloat16 or float16"


def verify(
    net: Net,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline",
            help="What is compared with the definition: how the compiler makes it (fused, default or none), "
            "stacked (sources are copied side by side first, as papers describe it) or, on a GPU, "
            "'cuda graph'; may be given several times [fused].",
        ),
    ] = None,
    device: Device = "cpu",
    dtypes: Annotated[
        list[str] | None,
        typer.Option(
            "--dtype",
            help=f"The type that it is to run in, beside float64: {DTYPE}; may be given several times "
            "[float32].",
        ),
    ] = None,
    channels_last: ChannelsLast = False,
    batch: Annotated[int, typer.Option("--batch", min=2, help="Images in a batch.")] = 4,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of training before running statistics are compared.")
    ] = 3,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare a compiled network with its definition: values, gradients, running statistics, inference.

    Parameters and images are random. Errors are relative; beside those in the type that is to run stand the
    definition's own in that type, which they may exceed but little.
    """
    from connsearch.nn.timed import verify_ways
    from connsearch.nn.verification import verification_table, working_dtype

    working = [working_dtype(name) for name in dict.fromkeys(dtypes or ["float32"])]
    spec, names, where = read_network(net), list(dict.fromkeys(ways or ["fused"])), _device(device)
    with _watched(threads) as tell:
        found = verify_ways(
            spec, names, working,
            device=where, batch=batch, steps=steps, channels_last=channels_last, tell=tell,
        )  # fmt: skip
    typer.echo(json.dumps([v.as_json() for v in found]) if as_json else verification_table(found))
    for verification in found:
        verification.raise_if_wrong()


def bench(
    net: Net,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--pipeline",
            help="A way to run it: definition (plain PyTorch, a module after the other), fused, default or "
            "none (how the compiler makes it), stacked (sources are copied side by side first, as papers "
            "describe it), torch.compile, 'torch.compile max-autotune' or, on a GPU, 'cuda graph' (fused, "
            "captured and replayed); may be given several times [definition, fused].",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in a batch.")] = 64,
    train: Annotated[
        bool | None,
        typer.Option(
            "--train/--inference",
            help="Steps of training (forward, loss, backward), or of evaluation without gradients [both].",
        ),
    ] = None,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", help=f"Of parameters and images: {DTYPE}.")] = "float32",
    channels_last: ChannelsLast = False,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Steps of each way that are timed, after its first.")
    ] = 5,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Append to this file what --json prints, a line for each."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for programs: a line for each way and mode.")
    ] = False,
) -> None:
    """Verify a compiled network, then time it beside other ways to run it, interleaved.

    Of step times, medians and quartiles; of memory, the most that a step allocates at once, what it moves and
    what it keeps for the backward pass, by a model, beside the least possible. Only ratios within one run
    mean something: machines are noisy. On a CPU freed memory is kept for the next step, of whichever way, as
    commands that train do; GLIBC_TUNABLES=glibc.malloc.check=0 switches that off.
    """
    from connsearch.nn.bench import bench_network, bench_table
    from connsearch.nn.machine import machine_facts
    from connsearch.nn.ways import MODES

    spec, where = read_network(net), _device(device)
    if output is not None:
        checked(None, output)
    with _watched(threads) as tell:
        facts = machine_facts(where)
        measured = bench_network(
            spec,
            list(dict.fromkeys(ways or ("definition", "fused"))),
            modes=MODES if train is None else ("train",) if train else ("inference",),
            batch=batch, repeats=repeats, device=where, dtype=dtype, channels_last=channels_last, tell=tell,
        )  # fmt: skip
    asked = {
        "network": spec.name, "batch": batch, "dtype": dtype, "channels_last": channels_last,
        "device": where, "repeats": repeats,
    }  # fmt: skip
    lines = "\n".join(json.dumps({**facts, **asked, **m._asdict()}) for m in measured)
    typer.echo(lines if as_json else f"{_told({**facts, **asked})}\n{bench_table(measured)}")
    if output is not None:
        _append(output, lines)
        wrote(output)


def _told(facts: dict[str, Any]) -> str:
    """Return what was measured, and where, as a line for people."""
    layout = "channels last" if facts["channels_last"] else "channels first"
    threads = f"{facts['threads']} {'thread' if facts['threads'] == 1 else 'threads'}"
    where = facts.get("gpu") or facts["cpu"]
    return (
        f"{facts['network']}: batch {facts['batch']}, {facts['dtype']}, {layout}, {where}, {threads}, "
        f"load {facts['load']}"
    )


def program_text(spec: NetworkSpec, pipeline: str) -> str:
    """Return the program that a pipeline makes of a network, with reasons, and whether kernels run here."""
    from connsearch.ir import lower, optimize
    from connsearch.ir.pipelines import INFERENCE
    from connsearch.ir.report import program_report

    program = optimize(lower(spec), pipeline)
    plain = "" if pipeline == "none" else _why_plain()
    return program_report(program, evaluation=pipeline == INFERENCE, plain=plain)


def _why_plain() -> str:
    """Return why kernels run as plain PyTorch on this machine's CPU; "" if they do not."""
    import torch

    from connsearch.kernels import choose
    from connsearch.kernels.build import KernelNotice

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KernelNotice)  # it is part of the text
        found = choose("cpu", torch.float32)
    return found.reason if found.backend == "reference" else ""


def _device(name: str) -> str:
    """Return a device that is there."""
    from connsearch.train.surroundings import torch_device

    return str(torch_device(name))


def _append(path: Path, lines: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{lines}\n")
    except OSError as error:
        raise ConnsearchError(f"{path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _watched(threads: int | None) -> Iterator[Callable[[str], None]]:
    """Run with so many threads; give out what shows on a terminal what is done next.

    That is no live display: its thread would be measured too. Notices of kernels are lines, Ctrl-C says that
    it stopped.
    """
    from connsearch.train.surroundings import limited_threads

    try:
        with limited_threads(threads or 0), _kernel_notices_told():
            yield _show
    except KeyboardInterrupt:
        _show("")
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None
    finally:
        _show("")


def _show(text: str) -> None:
    """Put a text into the last line of stderr in place of what is there, if that is a terminal."""
    if sys.stderr.isatty():
        cut = text[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[2K{cut}", end="", file=sys.stderr, flush=True)


@contextmanager
def _kernel_notices_told() -> Iterator[None]:
    """Print a notice that kernels run as plain PyTorch as one line; other warnings are shown as ever."""
    from connsearch.kernels.build import KernelNotice

    with warnings.catch_warnings():
        warnings.simplefilter("always", KernelNotice)
        show = warnings.showwarning

        def told(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, KernelNotice):
                _show("")
                typer.echo(str(message), err=True)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = told
        yield
