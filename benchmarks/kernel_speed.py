"""How fast are the compiled kernels of the CPU? Beside other ways to the same tensors, interleaved.

    python benchmarks/kernel_speed.py            # prints a table, appends a line for each way to the results
    python benchmarks/kernel_speed.py --quick    # a few repeats of smaller maps, nothing written
    python benchmarks/kernel_speed.py --cases "sums" --compile    # the table of README.md; hours
    python benchmarks/kernel_speed.py --cases "sums, paper's form (64,128,16,16) float32 NCHW" --threads 1 2

What is timed are the operations of kernel_cases.py alone, forward and backward, through autograd all of them.
Nothing is timed whose outcome is not that of plain PyTorch. `--compile` adds plain PyTorch under
`torch.compile`, whose first step takes minutes for a block; its caches are empty when it starts.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from kernel_cases import Case, Step, makers
from record import append, torch_machine
from speed_records import COMPILED
from speed_words import threads
from timing import add_keep_memory, at_least_one, cold_compiler, keep_memory, middle, run_each
from torch import Tensor

from connsearch.errors import ConnsearchError, KernelError, SpecError, VerifyError
from connsearch.kernels.build import why_not

REPEATS, QUICK_REPEATS = 9, 3
ALLOWED = {torch.float32: 0.01, torch.bfloat16: 0.06}  # |a - b| / |a|: rounding turns some ReLU on or off


def differs(exact: Sequence[Tensor], found: Sequence[Tensor]) -> str:
    """Say which outcome is not what it should be, and how far off, or return an empty text."""
    for i, (a, b) in enumerate(zip(exact, found, strict=True)):
        off = float((a.double() - b.double()).norm() / a.double().norm())
        if not off <= ALLOWED[a.dtype]:
            return f"outcome {i} is off by {off:.1e}"
    return ""


def first_steps(ways: Mapping[str, Step]) -> tuple[dict[str, float], list[str]]:
    """Return seconds of each way's first step, and what is wrong with the outcomes."""
    seconds: dict[str, float] = {}
    wrong: list[str] = []
    exact: list[Tensor] = []
    for way, step in ways.items():
        began = time.perf_counter()
        found = step()
        seconds[way] = time.perf_counter() - began
        exact = exact or found
        if different := differs(exact, found):
            wrong.append(f"{way}: {different}")
    return seconds, wrong


def timed(ways: Mapping[str, Step], repeats: int) -> dict[str, list[float]]:
    """Return seconds of each way's steps, in turns, without the collector of garbage."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        gc.collect()
        gc.disable()
        for way, step in ways.items():
            began = time.perf_counter()
            step()
            times[way].append(time.perf_counter() - began)
        gc.enable()
    return times


def measure(case: Case, ways: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Return what a line of results says of each way.

    Raises:
        VerifyError: if a way's outcome is not that of plain PyTorch.
    """
    steps = {way: case.ways[way] for way in ways}
    first, wrong = first_steps(steps)
    if wrong:
        raise VerifyError(f"{case}, not timed: {'; '.join(wrong)}")
    times = timed(steps, repeats)
    return [
        {**case.settings(), "repeats": repeats, "way": way, "first_s": first[way], **middle(times[way])}
        for way in ways
    ]


def show(case: Case, lines: Sequence[dict[str, Any]]) -> None:
    """Print what was found of a case."""
    print(f"{case}, {threads({'threads': torch.get_num_threads()})}")
    ours = lines[-1]["step_s"]
    for line in lines:
        quartiles = f"{1e3 * line['low_s']:.1f} to {1e3 * line['high_s']:.1f}"
        print(
            f"  {line['way']:<14}{1e3 * line['step_s']:>9.1f} ms ({quartiles})"
            f"{line['step_s'] / ours:>8.2f} times ours; first step {line['first_s']:.1f} s"
        )
    sys.stdout.flush()


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Time the compiled kernels of the CPU against PyTorch.")
    parser.add_argument("--quick", action="store_true", help="smaller maps, few repeats; writes nothing")
    # Not --only: Inductor takes what follows it for a name and writes that into its code.
    parser.add_argument("--cases", default="", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--threads", type=at_least_one, nargs="+", default=[1], help="of torch (1)")
    parser.add_argument(
        "--repeats", type=at_least_one, help=f"steps of each way ({REPEATS}, quick {QUICK_REPEATS})"
    )
    add_keep_memory(parser)
    parser.add_argument("--compile", action="store_true", help="PyTorch under torch.compile as well: minutes")
    return parser


def chosen(asked: argparse.Namespace) -> dict[str, Callable[[], Case]]:
    """Return what makes the cases that are asked for.

    Raises:
        SpecError: if there are none.
    """
    known = makers(quick=asked.quick)
    found = {case: make for case, make in known.items() if asked.cases in case}
    if not found:
        raise SpecError(f"no case contains {asked.cases!r}, of {'; '.join(known)}")
    return found


def measure_and_record(make: Callable[[], Case], machine: dict[str, Any], asked: argparse.Namespace) -> None:
    """Measure a case, print what is found, append it to the results."""
    torch.set_num_threads(machine["threads"])
    case = make()
    ways = [way for way in case.ways if asked.compile or way != COMPILED]
    with cold_compiler(ways):
        lines = measure(case, ways, asked.repeats or (QUICK_REPEATS if asked.quick else REPEATS))
    show(case, lines)
    for line in () if asked.quick else lines:
        append("kernel_speed", {**machine, **line})


def main() -> None:
    """Measure what is asked for; exit with 1 if that is nothing, or something is wrong."""
    asked = arguments().parse_args()
    try:
        found = chosen(asked)
        if reason := why_not():
            raise KernelError(reason)
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")
    keep_memory(asked=asked.keep_memory)
    torch.manual_seed(0)
    machine = torch_machine()
    each = itertools.product(asked.threads, found.values())
    sys.exit(
        run_each([partial(measure_and_record, make, {**machine, "threads": n}, asked) for n, make in each])
    )


if __name__ == "__main__":
    main()
