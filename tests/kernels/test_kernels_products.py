"""Norm, ReLU and 1x1 convolution of several sources in one kernel: values, gradients, precision."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from cases import DENSE, DTYPES, LAYOUTS, apply, laid_out, name_of, own_places, poisoned, random
from interpreting import run
from torch import Tensor

from connsearch.kernels import use_backend
from connsearch.kernels.norm_act_conv import reference

TINY = (2, 5, 7)
MANY = (1, 11, 13)  # pixels of several tiles, the last one cut
EXACT = {torch.float64: 1e-12, torch.float32: 1e-5}  # of lower precision a is rounded before it is multiplied


def arguments(
    widths: Sequence[int], outputs: int, dtype: torch.dtype, layout: str, size: Sequence[int], device: str
) -> list[Any]:
    """Return sources, sinks, gradient, mean, rstd, norm's weight and bias, and filters."""
    seeds, (B, H, W), K = iter(range(1000)), size, sum(widths)

    def a_map(channels: int) -> Tensor:
        return laid_out(random((B, channels, H, W), next(seeds)).to(dtype), layout).to(device)

    sources, sinks, grad = [a_map(w) for w in widths], [own_places(a_map(w)) for w in widths], a_map(outputs)
    exact = torch.promote_types(dtype, torch.float32)
    mean, weight, bias, rstd = (random((K,), next(seeds)).to(device, exact) for _ in range(4))
    filters = (random((outputs, K), next(seeds)) / K**0.5).to(dtype).to(device)
    return [sources, sinks, grad, mean, rstd.abs(), weight, bias, filters]


def forward_and_backward(module: Any, args: list[Any], act: str) -> list[Tensor]:
    """Return y, gradients of the norm's weight and bias and of the filters, and what sinks hold then."""
    sources, sinks, grad, mean, rstd, weight, bias, filters = args
    scale = weight * rstd
    y = module.norm_act_conv(sources, scale, bias - mean * scale, act, filters)
    found = module.norm_act_conv_backward(grad, sources, mean, rstd, weight, bias, act, filters, sinks)
    return [y, *found, *sinks]


def products(
    backend: str,
    widths: Sequence[int],
    outputs: int,
    dtype: torch.dtype,
    layout: str,
    act: str = "relu",
    size: Sequence[int] = TINY,
    programs: int | None = None,
    device: str = "cpu",
) -> None:
    """Compare with the reference on doubles."""
    args = arguments(widths, outputs, dtype, layout, size, device)
    exact = forward_and_backward(reference, apply(args, lambda t: t.double().clone()), act)
    with poisoned(), use_backend(backend), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        if programs is not None:
            patch.setattr(import_module("connsearch.kernels.norm_act_conv.triton"), "PROGRAMS", programs)
        found = forward_and_backward(import_module("connsearch.kernels.norm_act_conv"), args, act)
    near = EXACT.get(dtype, 1e-2)
    for fast, slow in zip(found, exact, strict=True):
        torch.testing.assert_close(fast.double(), slow, rtol=near, atol=near * float(slow.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_dtype(dtype: torch.dtype, layout: str) -> None:
    run(products, "triton", [12, 5], 20, dtype, layout, "relu", TINY, None)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
def test_on_the_cpu(dtype: torch.dtype, layout: str) -> None:
    products("cpu", [12, 5], 20, dtype, layout)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS[2:-1])
def test_maps_that_lie_elsewhere(layout: str) -> None:
    run(products, "triton", [4, 3], 5, torch.float32, layout, "none", TINY, None)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "widths", [[1], [40], pytest.param([2] * 33, marks=pytest.mark.large)], ids=["1", "40", "33x2"]
)
def test_any_number_of_sources(widths: list[int]) -> None:
    run(products, "triton", widths, 3, torch.float32, "channels_last", "relu", TINY, None)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize(
    ("widths", "outputs", "programs"),
    [
        pytest.param([5], 7, 2, id="3 chunks of 2 tiles of pixels"),
        pytest.param([9, 7], 150, 20, id="the same of 5 tiles of outputs"),
        pytest.param([40], 70, None, id="a chunk for each tile"),
    ],
)
def test_more_than_one_tile(widths: list[int], outputs: int, programs: int | None, layout: str) -> None:
    run(products, "triton", widths, outputs, torch.float32, layout, "relu", MANY, programs)


def as_torch(args: list[Any]) -> list[Tensor]:
    """Return what autograd makes of the definition, on doubles."""
    sources, sinks, grad, mean, rstd, weight, bias, filters = apply(args, lambda t: t.double().clone())
    leaves = [t.requires_grad_() for t in (weight, bias, filters, *sources)]
    n = (torch.cat(sources, dim=1) - mean[:, None, None]) * rstd[:, None, None]
    a = (n * weight[:, None, None] + bias[:, None, None]).relu()
    y = torch.einsum("bkhw,ok->bohw", a, filters)
    of_params, of_sources = (found := torch.autograd.grad(y, leaves, grad))[:3], found[3:]
    return [y.detach(), *of_params, *(sink + g for sink, g in zip(sinks, of_sources, strict=True))]


def not_finite(where: str, value: float, layout: str, device: str) -> None:
    """Compare with torch where a source or the gradient holds a value that is not finite."""
    args = arguments([3, 2], 4, torch.float32, layout, TINY, device)
    {"source": args[0][1], "gradient": args[2]}[where][1, 1, 2, 3] = value
    with use_backend("triton"):
        found = forward_and_backward(import_module("connsearch.kernels.norm_act_conv"), args, "relu")
    assert not all(t.isfinite().all() for t in found)
    args = arguments([3, 2], 4, torch.float32, layout, TINY, device)
    {"source": args[0][1], "gradient": args[2]}[where][1, 1, 2, 3] = value
    for fast, slow in zip(found, as_torch(args), strict=True):
        torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["source", "gradient"])
def test_what_is_not_finite_goes_on_as_in_torch(where: str, value: float, layout: str) -> None:
    run(not_finite, where, value, layout)


def precisions(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> set[str]:
    """Return by what forward and backward would multiply maps of a type."""
    kernels = pytest.importorskip("connsearch.kernels.norm_act_conv.triton", exc_type=ImportError)
    found: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "launch", lambda *args, **options: found.append(options["PRECISION"]))
        forward_and_backward(kernels, arguments([3], 4, dtype, "nchw", TINY, "cpu"), "relu")
    assert len(found) == 3
    return set(found)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_used_where_torchs_convolutions_use_it(
    monkeypatch: pytest.MonkeyPatch, *, allowed: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert precisions(monkeypatch, torch.float32) == {"tf32" if allowed else "ieee"}
    assert precisions(monkeypatch, torch.float64) == precisions(monkeypatch, torch.bfloat16) == {"ieee"}


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch is older than 2.9")
@pytest.mark.parametrize(("asked", "used"), [("ieee", "ieee"), ("tf32", "tf32"), ("none", "ieee")])
def test_the_newer_setting_of_torch_is_read(monkeypatch: pytest.MonkeyPatch, asked: str, used: str) -> None:
    settings: Any = torch.backends.cudnn
    before = settings.conv.fp32_precision
    settings.conv.fp32_precision = asked
    try:
        assert precisions(monkeypatch, torch.float32) == {used}
    finally:
        settings.conv.fp32_precision = before


def test_the_older_setting_is_read_where_there_is_no_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, used in ((True, "tf32"), (False, "ieee")):
        older = type("cudnn", (), {"allow_tf32": allowed})
        monkeypatch.setattr(torch.backends, "cudnn", older)
        assert precisions(monkeypatch, torch.float32) == {used}
