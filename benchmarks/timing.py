"""What the benchmarks of speed share: parts of command lines, medians, a cold compiler, cases in a row."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import torch
from speed_records import COMPILED
from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

from connsearch.errors import ConnsearchError
from connsearch.memory import keep_freed, malloc_policy


def at_least_one(word: str) -> int:
    """Return a number of the command line.

    Raises:
        argparse.ArgumentTypeError: if it is none, or less than 1.
    """
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def add_keep_memory(parser: argparse.ArgumentParser) -> None:
    """Add `--keep-memory`, to be given to `keep_memory`."""
    words = "what is freed is kept for what comes next, as the commands of connsearch do"
    parser.add_argument("--keep-memory", action="store_true", help=words)


def keep_memory(*, asked: bool) -> None:
    """Keep what is freed, if that is asked for; where that cannot be, say so and exit."""
    if asked and not keep_freed():
        sys.exit(f"Error: --keep-memory: malloc is not to be told so here: {malloc_policy()}")


def middle(times: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles of seconds, as results have them.

    >>> middle([4.0, 1.0, 2.0, 3.0, 9.0])
    {'step_s': 3.0, 'low_s': 2.0, 'high_s': 4.0}
    """
    several = [*times, *times] if len(times) == 1 else times
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return {"step_s": median, "low_s": low, "high_s": high}


@contextmanager
def cold_compiler(ways: Iterable[str]) -> Iterator[None]:
    """Where `torch.compile` is one of the ways, let it find nothing that it has compiled before.

    Neither in memory nor on disk; what it does once in a process, whatever it compiles, is done.
    """
    if not any(way.startswith(COMPILED) for way in ways):
        yield
        return
    torch.compiler.reset()
    with TemporaryDirectory() as folder, temporary_cache_dir(folder):
        torch.compile(lambda x: x + 1)(torch.ones(2, requires_grad=True)).sum().backward()
        yield


def run_each(cases: Sequence[Callable[[], None]]) -> int:
    """Run what measures and records a case, one after the other; return the exit code.

    It is 1 if something was wrong with one, which is said and keeps none of the others from running. What is
    finished when Ctrl-C comes is recorded; the code is 130 then.
    """
    failed = 0
    for done, case in enumerate(cases):
        try:
            case()
        except ConnsearchError as error:
            failed += 1
            print(f"Error: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"interrupted: {done - failed} of {len(cases)} cases are recorded", file=sys.stderr)
            return 130
    return 1 if failed else 0
