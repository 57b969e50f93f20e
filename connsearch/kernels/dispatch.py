"""Which implementation of a kernel runs on a tensor, and why another does not.

An implementation is a function of the same name and arguments as the reference, in
`connsearch.kernels.<package>.<backend>`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels import fakes
from connsearch.kernels.operators import OPERATORS, Operator, is_watched

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("reference", "cpu", "triton")
CPU = torch.device("cpu")


class Choice(NamedTuple):
    """What runs, and why.

    Attributes:
        backend: `reference`, `cpu` (compiled C++) or `triton`.
        reason: Why it, for people.
    """

    backend: str
    reason: str


_asked: list[Choice] = []
"""What `use_backend` was called with, the innermost last."""


def choose(device: str | torch.device, dtype: torch.dtype) -> Choice:
    """Return which implementation runs for maps on a device (default of its type: the current one).

    >>> choose("meta", torch.float32).backend
    'reference'
    """
    if _asked:
        return _asked[-1]
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    return _choose(device, dtype)


@cache
def _choose(device: torch.device, dtype: torch.dtype) -> Choice:
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return Choice("reference", f"no kernel computes with {dtype}")
    if device.type == "cpu":
        from connsearch.kernels.build import why_not

        reason = why_not(str(dtype).removeprefix("torch."))
        return Choice("reference", reason) if reason else Choice("cpu", "compiled for this processor")
    if device.type == "cuda":
        from connsearch.kernels.tritonic import why_not as why_no_triton

        reason = why_no_triton(device.index)
        return Choice("reference", reason) if reason else Choice("triton", "compiled for this GPU")
    return Choice("reference", f"no kernel runs on {device.type}")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run one implementation wherever a kernel is called meanwhile, to compare or to test it.

    In all threads: on a GPU, autograd goes backward in threads of its own.

    Raises:
        KernelError: if there is no such backend.
    """
    if backend not in BACKENDS:
        raise KernelError(f"unknown backend {backend!r}: use {', '.join(BACKENDS)}")
    asked = Choice(backend, "asked for")
    _asked.append(asked)
    try:
        yield
    finally:
        _asked[:] = [choice for choice in _asked if choice is not asked]


def dispatched(reference: Callable[P, R], *, written: str | None = None) -> Callable[P, R]:
    """Return a function that runs the implementation which the maps in its first argument choose.

    It is an operator of torch as well, of the same name, and goes through it where torch looks on.

    Args:
        reference: Whose name, arguments and outcome all implementations have.
        written: The argument that it adds to in place, if it does: a map or maps.
    """
    run, name = chosen(reference), reference.__name__
    operator = OPERATORS[name] = Operator(reference, run, getattr(fakes, name), written)

    @wraps(reference)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_watched(_first(args), args):
            found: R = operator(*args, **kwargs)
            return found
        return run(*args, **kwargs)

    return call


def chosen(reference: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs the implementation which the maps in its first argument choose.

    It is no operator: for kernels that are not called where torch looks on.
    """
    package, name = reference.__module__.split(".")[-2], reference.__name__

    @wraps(reference)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        found: R = _function(package, name, _backend(_first(args)))(*args, **kwargs)
        return found

    return run


def _first(args: Sequence[Any]) -> Tensor:
    first = args[0]
    return first if isinstance(first, Tensor) else cast(Sequence[Tensor], first)[0]


def _backend(like: Tensor) -> str:
    return choose(CPU if like.is_cpu else like.device, like.dtype).backend


@cache
def _function(package: str, function: str, backend: str) -> Callable[..., Any]:
    module = importlib.import_module(f"connsearch.kernels.{package}.{backend}")
    found: Callable[..., Any] = getattr(module, function)
    return found
