"""What training sets around itself in PyTorch and gives back (random state, threads, kernels); its device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator

from connsearch.errors import TrainError

_REPEATABLE: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.utils.deterministic, "fill_uninitialized_memory", False),  # a debugging aid that costs time
)


def torch_device(name: str) -> torch.device:
    """Return a device by name.

    Raises:
        TrainError: if it is neither a CPU nor a CUDA device, or not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise TrainError(f"unknown device {name!r}: use 'cpu', 'cuda' or 'cuda:<number>'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise TrainError(f"device {name!r} is not there, {found} CUDA devices are: use 'cpu' or another one")
    return device


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random state of the CPU and of the device; put it back at the end."""
    with kept_random_state(device):
        for generator in global_generators(device).values():
            generator.manual_seed(seed)
        yield


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Put the global random state of the CPU and of the device back at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def global_generators(device: torch.device) -> dict[str, Generator]:
    """Return the generators that a model draws from: the CPU's, and the device's if it has one."""
    generators: dict[str, Generator] = {"cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch has no types here
        index = torch.cuda.current_device() if device.index is None else device.index
        generators["cuda"] = torch.cuda.default_generators[index]
    return generators


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Let torch use n CPU threads, or its own choice if n is 0; the caller's number comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA, use kernels that give the same values every time; a CPU's do. The old choice comes back."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    mode = torch.get_deterministic_debug_mode()
    before = [getattr(home, name) for home, name, _ in _REPEATABLE]
    try:
        torch.set_deterministic_debug_mode(max(mode, 1))  # 1: warn of an operation without such a kernel
        for home, name, value in _REPEATABLE:
            setattr(home, name, value)
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        for (home, name, _), value in zip(_REPEATABLE, before, strict=True):
            setattr(home, name, value)
