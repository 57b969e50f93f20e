"""How fast is a compiled network? Beside other ways to run it, in training and evaluation, interleaved.

    python benchmarks/compiled_speed.py                 # steps of training: the table of README.md; hours
    python benchmarks/compiled_speed.py delugenet-146 --ways definition fused --format float32 NCHW --dry
    python benchmarks/compiled_speed.py delugenet-146 densenet-121 --modes inference \\
        --ways definition fused --format float32 NCHW --batch 1 32 --threads 1 2 --repeats 15
    python benchmarks/compiled_speed.py --device cuda --format bfloat16 channels_last --batch 256 \\
        --ways definition stacked torch.compile "torch.compile max-autotune" fused "cuda graph"

What this package compiles is verified first, in the dtype and memory format that is timed. `torch.compile`
begins with empty caches, as for a network never seen before: its first step takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from typing import Any, NamedTuple

import torch
from record import append, torch_machine
from speed_words import threads
from timing import add_keep_memory, at_least_one, cold_compiler, keep_memory, run_each

from connsearch.errors import ConnsearchError, KernelError, SpecError, did_you_mean
from connsearch.kernels import choose
from connsearch.nn.bench import bench_network, bench_table
from connsearch.nn.verification import working_dtype
from connsearch.nn.ways import DEFINITION, MODES, STACKED, TORCH_COMPILE, WAYS, check_ways
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import load_network
from connsearch.train.surroundings import torch_device

NETWORKS = ("delugenet-146", "densenet-bc-100-12", "log-densenet-v1-12-24")
LAYOUTS = ("NCHW", "channels_last")
FORMATS = (("float32", "NCHW"), ("float32", "channels_last"), ("bfloat16", "channels_last"))


class Case(NamedTuple):
    """What is timed in one interleaved run.

    Attributes:
        network: The network.
        ways: To run it.
        settings: Of `bench_network`.
        threads: Of torch.
    """

    network: NetworkSpec
    ways: tuple[str, ...]
    settings: dict[str, Any]
    threads: int


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Time steps of networks in several ways to run them.")
    parser.add_argument(
        "networks", nargs="*", metavar="NET", default=NETWORKS,
        help=f"presets or NetworkSpec TOML files ({' '.join(NETWORKS)})",
    )  # fmt: skip
    parser.add_argument(
        "--ways", nargs="+", metavar="WAY",
        help=f"of {', '.join(WAYS)} (all but the last for a CPU)",
    )  # fmt: skip
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["train"], help="kinds of steps (train)")
    parser.add_argument(
        "--format", nargs=2, action="append", dest="formats", metavar=("DTYPE", "LAYOUT"),
        help=f"such as float32 NCHW; may be given several times ({'; '.join(map(' '.join, FORMATS))})",
    )  # fmt: skip
    parser.add_argument("--batch", type=at_least_one, nargs="+", default=[64], help="images in a batch (64)")
    parser.add_argument("--repeats", type=at_least_one, default=5, help="steps of each way (5)")
    parser.add_argument("--threads", type=at_least_one, nargs="+", default=[1], help="of the CPU (1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    add_keep_memory(parser)
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    return parser


def chosen(asked: argparse.Namespace) -> list[Case]:
    """Return the cases that are asked for.

    Raises:
        ConnsearchError: if a name is unknown, or what it names is not there.
    """
    device = torch_device(asked.device)
    networks = [load_network(net) for net in asked.networks]
    formats = asked.formats or FORMATS
    for dtype, layout in formats:
        if layout not in LAYOUTS:
            raise SpecError(f"unknown layout {layout!r}. {did_you_mean(layout, LAYOUTS)}")
        choice = choose(device, working_dtype(dtype))
        if choice.backend == "reference":
            raise KernelError(f"no kernel runs on {asked.device} in {dtype}: {choice.reason}")
    found = []
    for spec, (dtype, layout), batch, n_threads in itertools.product(
        networks, formats, asked.batch, asked.threads
    ):
        ways = asked.ways or usual_ways(spec)
        check_ways(ways, spec, asked.device, train="train" in asked.modes)
        settings = {
            "batch": batch, "device": asked.device, "dtype": dtype, "channels_last": layout != "NCHW",
            "repeats": asked.repeats,
        }  # fmt: skip
        found.append(Case(spec, tuple(dict.fromkeys(ways)), settings, n_threads))
    return found


def usual_ways(spec: NetworkSpec) -> list[str]:
    """Return the ways that are compared unless others are asked for: the paper's where a network has one."""
    papers = any(block.aggregation.name == "depthwise" for block in spec.blocks)
    return [DEFINITION, *[STACKED] * papers, TORCH_COMPILE, "default", "fused"]


def measure(case: Case, machine: dict[str, Any], asked: argparse.Namespace) -> None:
    """Measure a case, print what is found, append a line for each way and mode to the results."""

    def tell(words: str) -> None:
        print(f"{case.network.name}: {words}", file=sys.stderr, flush=True)

    torch.set_num_threads(case.threads)
    with cold_compiler(case.ways):
        found = bench_network(case.network, case.ways, modes=asked.modes, tell=tell, **case.settings)
    about = f"{case.network.name}, {threads({'threads': case.threads})}, {case.settings}"
    print(f"{about}\n{bench_table(found)}\n", flush=True)
    for measured in () if asked.dry else found:
        line = {"network": case.network.name, **case.settings, **measured._asdict()}
        append("compiled_speed", {**machine, "threads": case.threads, **line})


def main() -> None:
    """Measure what is asked for; exit with 1 if that is not there, or something is wrong."""
    asked = arguments().parse_args()
    try:
        cases = chosen(asked)
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")
    keep_memory(asked=asked.keep_memory)
    machine = torch_machine(asked.device)
    sys.exit(run_each([partial(measure, case, machine, asked) for case in cases]))


if __name__ == "__main__":
    main()
