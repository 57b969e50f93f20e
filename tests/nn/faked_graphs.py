"""CUDA graphs on a CPU, for tests: what runs in a capture is written down, and a replay runs it again.

    with pytest.MonkeyPatch.context() as patch:
        log = fake_graphs(patch)       # from here on `torch.cuda.graph` and its kin do as much
        step = cs.graphed(network, images)

As on a GPU, a replay reads and writes the memory that the capture did, torch does not count its edits, and
nothing may read a value back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from connsearch.kernels.operators import tensors
from connsearch.nn import graphs

READ_BACK = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class FakeGraph(TorchDispatchMode):
    """Operations with their arguments and outcomes, to be done again in the same places."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in READ_BACK, f"{func} waits for the GPU, in a capture"
        found = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        edited = tuple(tensors([args for _, args, _, _ in self.tape]))
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(edited):
            for func, args, kwargs, found in self.tape:
                seen = {t.untyped_storage().data_ptr() for t in tensors(args)}
                for old, new in zip(tensors(found), tensors(func(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() not in seen:
                        torch.Tensor.copy_(old.detach(), new)


def fake_graphs(patch: pytest.MonkeyPatch) -> list[str]:
    """Fake what a capture needs of `torch.cuda`, and return where it is said what was done."""
    log: list[str] = []

    def within(name: str) -> Any:
        @contextmanager
        def entered(of: Any, **_: Any) -> Iterator[None]:
            log.append(name)
            if isinstance(of, FakeGraph):
                with of:
                    yield
            else:
                yield
            log.append(f"end {name}")

        return entered

    class Replayed(FakeGraph):
        def replay(self) -> None:
            log.append("replay")
            super().replay()

    patch.setattr(graphs, "DEVICE", "cpu")
    for name in ("device", "graph", "stream"):
        patch.setattr(torch.cuda, name, within(name))
    patch.setattr(torch.cuda, "CUDAGraph", Replayed)
    patch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace())
    patch.setattr(torch.cuda, "synchronize", lambda: None)
    patch.setattr(torch.cuda.graphs, "graph_pool_handle", lambda: None)
    return log


def copies(found: list[Tensor]) -> list[Tensor]:
    """Return what graphs will overwrite."""
    return [t.detach().clone() for t in found]
