"""Convolutions with constant weights against their references in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from connsearch.kernels.convolve import cpu, reference
from connsearch.kernels.convolve.reference import Before

pytestmark = pytest.mark.skipif(
    cpu.why_not() is not None, reason=f"compiled convolutions do not run here: {cpu.why_not()}"
)
SIZES = [  # B, H, W
    pytest.param(1, 1, 1, id="1-1x1"),
    pytest.param(3, 1, 5, id="3-1x5"),
    pytest.param(2, 7, 4, id="2-7x4"),
    pytest.param(1, 13, 11, id="1-13x11"),
    pytest.param(5, 8, 8, id="5-8x8"),
]


def maps(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def poison(*shape: int) -> None:
    """Leave nan in memory that the next map of that shape may be given."""
    torch.full(shape, torch.nan)


def assert_close(found: Tensor, exact: Tensor) -> None:
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("B", "H", "W"), SIZES)
@pytest.mark.parametrize(("K", "N"), [(16, 32), (48, 96), (32, 64), (128, 160)])
def test_3x3(B: int, H: int, W: int, K: int, N: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, weight, bias = maps(B, K, H, W), torch.randn(N, K, 3, 3) / K**0.5, torch.randn(N)
    packed = cpu.pack_3x3(weight)
    for act, b in (("relu", bias), ("none", None)):
        exact = reference.conv3x3(x.double(), weight.double(), None if b is None else b.double(), act)
        poison(B, N, H, W)
        assert_close(cpu.conv3x3(x, packed, b, act), exact)
    assert_close(cpu.conv3x3(x.contiguous(), packed, None, "none"), exact)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("B", "H", "W"), SIZES)
@pytest.mark.parametrize("before", ["none", "sum", "concat"])
@pytest.mark.parametrize(("channels", "N"), [([16], 32), ([32, 32, 32], 96), ([48] * 7, 64), ([240], 160)])
def test_1x1(before: str, channels: list[int], N: int, B: int, H: int, W: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if before == "none":
        channels = channels[:1]
    K = channels[0] if before == "sum" else sum(channels)
    sources = [maps(B, C, H, W) for C in channels]
    weight, bias, shift = torch.randn(N, K) / K**0.5, torch.randn(N), torch.randn(K)
    scale = torch.randn(len(channels), K) / len(channels) if before == "sum" else torch.randn(K)
    packed = cpu.pack_pointwise(weight)
    for first, act, b in (("relu", "none", bias), ("none", "relu", None)):
        done = None if before == "none" else Before(scale, shift, first)
        exact = reference.pointwise(
            [h.double() for h in sources],
            done and Before(scale.double(), shift.double(), first),
            weight.double(),
            None if b is None else b.double(),
            act,
        )
        poison(B, N, H, W)
        assert_close(cpu.pointwise(sources, done, packed, b, act), exact)


@pytest.mark.parametrize(
    ("channels", "n_out", "fits"), [([16, 32], 32, True), ([15], 32, False), ([16], 48, False)]
)
def test_what_fits(channels: list[int], n_out: int, fits: bool) -> None:
    assert cpu.fits(channels, n_out) is fits
