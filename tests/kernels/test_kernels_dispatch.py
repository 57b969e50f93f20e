"""Which implementation of a kernel runs, and why."""

from __future__ import annotations

import importlib.util
import inspect
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType

import pytest
import torch

from connsearch import kernels
from connsearch.errors import KernelError
from connsearch.kernels import build, dispatch

PACKAGES = ("weighted_sum", "sums_ahead", "norm_act", "concat_norm_act")
X, ONE = torch.randn(2, 3, 4, 5), torch.ones(3)


def functions(module: ModuleType) -> dict[str, inspect.Signature]:
    """Return the public functions that a module defines itself."""
    found = inspect.getmembers(module, inspect.isfunction)
    own = {name: f for name, f in found if f.__module__ == module.__name__ and not name.startswith("_")}
    return {name: inspect.signature(f) for name, f in own.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_kernel_has_the_reference_s_signature(package: str) -> None:
    reference = functions(import_module(f"connsearch.kernels.{package}.reference"))
    compiled = functions(import_module(f"connsearch.kernels.{package}.cpu"))
    public = import_module(f"connsearch.kernels.{package}").__all__
    assert sorted(compiled) == public
    assert compiled == {name: reference[name] for name in public}


def test_a_backend_that_is_asked_for_runs_inside() -> None:
    with kernels.use_backend("reference"):
        assert kernels.choose("cpu", torch.float32) == kernels.Choice("reference", "asked for")
        with kernels.use_backend("cpu"):
            assert kernels.choose("cpu", torch.float32).backend == "cpu"
        assert kernels.choose("cpu", torch.float32).backend == "reference"


def test_after_an_error_inside_nothing_is_asked_for() -> None:
    with pytest.raises(ZeroDivisionError), kernels.use_backend("reference"):
        raise ZeroDivisionError
    assert dispatch._asked == []


def test_a_backend_is_asked_for_in_every_thread() -> None:
    """Autograd goes backward in threads of its own."""
    with kernels.use_backend("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(kernels.choose, "cpu", torch.float32).result().reason == "asked for"


def test_threads_that_ask_take_back_what_they_asked_for() -> None:
    first, second = kernels.use_backend("cpu"), kernels.use_backend("reference")
    with first:
        second.__enter__()
    assert kernels.choose("cpu", torch.float32).backend == "reference"
    second.__exit__(None, None, None)
    assert dispatch._asked == []


def test_each_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(7, 5), (9, 0)][index])
    monkeypatch.setattr(dispatch, "_choose", inspect.unwrap(dispatch._choose))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert (
        kernels.choose("cuda:0", torch.float32).reason
        == "the GPU's compute capability is 7.5, kernels need 8.0"
    )
    assert kernels.choose("cuda:1", torch.float32).backend == "triton"
    assert kernels.choose("cuda", torch.float32).backend == "triton"


def test_an_unknown_backend_is_named() -> None:
    with (
        pytest.raises(KernelError, match="unknown backend 'cuda': use reference, cpu, triton"),
        kernels.use_backend("cuda"),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_cpu_has_compiled_kernels(dtype: torch.dtype) -> None:
    reason = build.why_not()
    choice = kernels.choose("cpu", dtype)
    assert choice == (("reference", reason) if reason else ("cpu", "compiled for this processor"))


def test_what_no_kernel_computes_runs_by_the_reference() -> None:
    assert kernels.choose("cpu", torch.complex64).reason == "no kernel computes with torch.complex64"
    assert kernels.choose("meta", torch.float32) == ("reference", "no kernel runs on meta")
    y = kernels.norm_act(X.to("meta"), ONE.to("meta"), ONE.to("meta"), "relu")
    assert y.shape == X.shape


def test_a_dispatched_function_looks_like_its_reference() -> None:
    from connsearch.kernels.norm_act import reference

    assert kernels.norm_act.__doc__ == reference.norm_act.__doc__
    assert inspect.signature(kernels.norm_act) == inspect.signature(reference.norm_act)


def test_arguments_may_be_given_by_name() -> None:
    y = kernels.norm_act(X, scale_C=ONE, shift_C=ONE, act="relu")
    torch.testing.assert_close(y, (X + 1).clamp_min(0))
