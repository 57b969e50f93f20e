"""What Triton's kernels do for maps of many tiles, shown on small maps, and where values of huge maps lie."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from cases import DENSE, SEVERAL, VARIANTS, Call, check, laid_out, random
from interpreting import run

from connsearch import kernels
from connsearch.kernels import tritonic, use_backend

pytestmark = pytest.mark.slow  # Triton's interpreter, many tiles

pytest.importorskip("triton")
MANY_TILES = (3, 5, 20, 21)  # of several images, of one image, and the last one is not full


def by_few_programs(call: Call, device: str) -> None:
    """Check a call with several tiles for each program, and moments combined in two levels."""
    module = import_module("connsearch.kernels.norm_act.moments")
    with patch.multiple(module, PROGRAMS=2, TOGETHER=4), use_backend("triton"):
        check(call, device)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["channels_last", pytest.param("nchw", marks=pytest.mark.large)])
@pytest.mark.parametrize("function", VARIANTS)
def test_programs_that_go_through_several_tiles(function: str, layout: str) -> None:
    variant = list(VARIANTS[function])[-1]
    run(by_few_programs, Call(function, variant, shape=MANY_TILES, n=2, layout=layout))


@pytest.mark.gpu
@pytest.mark.parametrize("function", SEVERAL)
def test_many_maps_that_no_wide_load_fits(function: str) -> None:
    call = Call(function, list(VARIANTS[function])[-1], shape=(1, 3, 2, 3), n=18, layout="unaligned")
    run(by_few_programs, call)


def test_kernels_get_maps_where_wide_loads_may_begin() -> None:
    maps = [laid_out(random((2, 3, 4, 5), seed).float(), "unaligned") for seed in range(3)]
    assert all(x.data_ptr() % 16 for x in maps)
    aligned = tritonic.natives(maps, last=False)
    assert not any(x.data_ptr() % 16 for x in aligned)
    assert all(map(torch.equal, aligned, maps))
    assert tritonic.vector(torch.zeros(5)[1:], maps[0], 4, what="scale").data_ptr() % 16 == 0


def offsets_are_whole(device: str) -> None:
    from offsets_kernel import offsets_kernel

    for last, n, c in ((True, 2**30, 5), (True, 7, 3), (False, 2**30, 3), (False, 7, 2**30)):
        out = torch.zeros(1, dtype=torch.int64, device=device)
        offsets_kernel[(1,)](out, c, n, n_pixels=4, pitch=64, LAST=last)
        assert int(out) == (n * 64 + c if last else n // 4 * 64 + n % 4 + c * 4)


@pytest.mark.gpu
def test_values_may_lie_beyond_32_bits() -> None:
    run(offsets_are_whole)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.mem_get_info()[1] < 30e9, reason="there is no GPU of 30 GB"
)
@pytest.mark.parametrize("layout", DENSE)
def test_a_map_of_more_than_two_to_the_31_values(layout: str) -> None:
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.zeros(2, 64, 4096, 4100, dtype=torch.bfloat16, device="cuda", memory_format=form)
    x[-1, -1, -1, -1], x[0, 0, 0, 0] = 5, 3
    one = torch.ones(64, device="cuda")
    with use_backend("triton"):
        y = kernels.norm_act(x, one, one, "relu")
    assert (y[-1, -1, -1, -1], y[0, 0, 0, 0], y.sum(dtype=torch.float64)) == (6, 4, x.numel() + 8)


def test_kernels_run_on_the_device_of_their_maps() -> None:
    inside: list[str] = []
    seen: list[list[str]] = []

    class Guard:
        def __init__(self, device: str) -> None:
            self.device = device

        def __enter__(self) -> None:
            inside.append(self.device)

        def __exit__(self, *_: Any) -> None:
            inside.pop()

    x = SimpleNamespace(is_cuda=True, device="cuda:1")
    kernel = {(3,): lambda *_, **__: seen.append(list(inside))}
    with patch.object(torch.cuda, "device", Guard):
        tritonic.launch(kernel, (3,), x)
        tritonic.launch(kernel, (3,), (x, x))
        tritonic.launch(kernel, (3,), torch.zeros(1))
    assert seen == [["cuda:1"], ["cuda:1"], []]
