"""Where Triton's kernels run in tests: on a GPU if there is one, else in Triton's interpreter.

The interpreter is chosen when Triton is imported, which other tests and torch itself do at some time: so it
runs in a process of its own, started once and kept for the next test.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any


def run(function: Callable[..., None], *args: Any) -> None:
    """Call a function of a module, with the device that kernels run on after the arguments."""
    import torch

    if torch.cuda.is_available():
        function(*args, "cuda")
    elif os.environ.get("TRITON_INTERPRET") == "1":
        function(*args, "cpu")
    else:
        _interpreter().submit(function, *args, "cpu").result()


@cache
def _interpreter() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max_workers=1, mp_context=spawn, initializer=_interpret)
    atexit.register(pool.shutdown)
    return pool


def _interpret() -> None:
    """Choose the interpreter. This runs before anything imports torch or Triton there."""
    os.environ["TRITON_INTERPRET"] = "1"
    import torch

    torch.set_num_threads(1)
