"""Processes that need not import torch: copies of one that has, as the workers of a study are."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.process import BaseProcess

from connsearch.search.workers import _context


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    """Start a process that calls a function of a module, and ends with this one."""
    process = _context().Process(target=target, args=args, daemon=True)
    process.start()
    return process
