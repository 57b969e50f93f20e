"""What Triton makes of the kernels for a GPU that is not there: no spills, wide loads, few compilations."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling import NoDevice
from torch import Tensor

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)
CHANNELS = 64
Compile = Callable[..., list[tuple[str, Any]]]
SMALL = {"combine_kernel", "gather_kernel", "table_kernel"}  # read vectors only


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Return a function that calls another one and returns which kernels it would run on a GPU.

    These are compiled for a capability, or if that is 0 for the GPU that is there.
    """
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found: list[tuple[str, Any]] = []
    run = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((self.__name__, run(self, *args, grid=grid, warmup=True, **options)))

    def compile_for(capability: int, function: Callable[..., Any], *args: Any) -> list[tuple[str, Any]]:
        if capability:
            driver.set_active(NoDevice(capability))
        found.clear()
        function(*args)
        return list(found)

    monkeypatch.setattr(driver, "_active", None)  # put back afterwards
    monkeypatch.setattr(JITFunction, "run", only_compile)
    return compile_for


def a_map(dtype: torch.dtype, last: bool, channels: int = CHANNELS, side: int = 16) -> Tensor:
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(4, channels, side, side, dtype=dtype).contiguous(memory_format=form)


def statistics(dtype: torch.dtype, last: bool, n: int = 1, channels: int = CHANNELS, side: int = 16) -> None:
    from connsearch.kernels.norm_act import triton as kernels
    from connsearch.kernels.norm_act.moments import combine
    from connsearch.kernels.tritonic import tiles

    x, v = a_map(dtype, last, channels, side), torch.empty(channels)
    kernels.norm_act_train(x, v, v, 1e-5, "relu")
    kernels.norm_act_backward(x, x, v, v, v, v, "relu")
    many = torch.empty(2, 300, channels)
    combine(many, tiles([x], last=last), weight=v, eps=1e-5)


def sums(dtype: torch.dtype, last: bool, n: int = 5, channels: int = CHANNELS, side: int = 16) -> None:
    from connsearch.kernels.weighted_sum import triton as kernels

    x, v = a_map(dtype, last, channels, side), torch.empty(channels)
    kernels.weighted_sum_norm_act([x] * n, torch.empty(n, 1, channels), v, v, v, 1e-5, "relu")


def beginnings(dtype: torch.dtype, last: bool, n: int = 5, channels: int = CHANNELS, side: int = 16) -> None:
    from connsearch.kernels.sums_ahead import triton as kernels

    x, v = a_map(dtype, last, channels, side), torch.empty(channels)
    kernels.begin_sums([x] * n, torch.empty(4, n, channels), [x] * 4)
    kernels.finish_sum_norm_act(x, [x] * (n - 1), torch.empty(n - 1, channels), v, v, v, 1e-5, "relu")


def pulls(dtype: torch.dtype, last: bool, n: int = 3, channels: int = CHANNELS, side: int = 16) -> None:
    from connsearch.kernels.weighted_sum import triton as kernels

    x, v = a_map(dtype, last, channels, side), torch.empty(channels)
    kernels.pull([x] * n, torch.empty(n, 1, channels), x, x)
    kernels.pull_normalized([x] * n, torch.empty(n, channels), x, v, v, x)


def concatenations(
    dtype: torch.dtype, last: bool, n: int = 3, channels: int = CHANNELS, side: int = 16
) -> None:
    from connsearch.kernels.concat_norm_act import triton as kernels

    x, v = a_map(dtype, last, channels, side), torch.empty(n * channels)
    whole = a_map(dtype, last, n * channels, side)
    kernels.concat_norm_act([x] * n, v, v, "relu")
    sinks = [torch.empty_like(x) for _ in range(n)]
    kernels.concat_norm_act_backward(whole, [x] * n, v, v, v, v, "relu", sinks)
    kernels.add_affine(x, x, v[:channels], v[:channels])


def products(dtype: torch.dtype, last: bool, n: int = 2) -> None:
    from connsearch.kernels.norm_act_conv import triton as kernels

    x, v = a_map(dtype, last), torch.empty(n * CHANNELS)
    filters = torch.empty(CHANNELS, n * CHANNELS, dtype=dtype)
    kernels.norm_act_conv([x] * n, v, v, "relu", filters)
    sinks = [torch.empty_like(x) for _ in range(n)]
    kernels.norm_act_conv_backward(x, [x] * n, v, v, v, v, "relu", filters, sinks)


def exact_products(dtype: torch.dtype, last: bool) -> None:
    """What runs where torch's convolutions may not use TF32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        products(dtype, last)


def read(kernel: Any, folder: Path) -> tuple[Counter[str], int]:
    """Return how often each instruction occurs, and the bytes of stack."""
    binary, tool = folder / "kernel.cubin", triton.knobs.nvidia.cuobjdump.path
    binary.write_bytes(kernel.asm["cubin"])
    text = subprocess.run([tool, "-sass", "-res-usage", binary], capture_output=True, text=True, check=True)
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][A-Z0-9_.]*)", text.stdout)
    stack = re.search(r"STACK:(\d+)", text.stdout)
    assert stack
    assert "EXIT" in instructions
    return Counter(instructions), int(stack[1])


ELEMENTWISE = (statistics, sums, beginnings, pulls, concatenations)
QUICK = [
    (sums, 90, torch.bfloat16, True),
    (beginnings, 90, torch.bfloat16, True),
    (pulls, 90, torch.bfloat16, True),
    (concatenations, 90, torch.bfloat16, True),
    (products, 90, torch.bfloat16, True),
    (exact_products, 80, torch.float32, True),
    (sums, 80, torch.float32, False),
]
SLOW = [
    (statistics, 90, torch.bfloat16, True),
    (products, 80, torch.bfloat16, True),
    (products, 90, torch.float32, True),
    (products, 80, torch.float64, True),
    (exact_products, 90, torch.float32, True),
    *((f, 80, torch.float32, False) for f in (statistics, beginnings, pulls, concatenations)),
    *((f, 90, torch.float32, True) for f in ELEMENTWISE),
    *((f, 90, torch.bfloat16, False) for f in ELEMENTWISE),
    *((f, 80, torch.float16, True) for f in (sums, pulls)),  # loaded and stored as bfloat16 is
    *((f, 90, torch.float64, True) for f in (statistics, beginnings, concatenations)),
]


def name_of(function: Callable[..., None], capability: int, dtype: torch.dtype, last: bool) -> str:
    layout = "last" if last else "nchw"
    return f"{function.__name__}-sm_{capability}-{str(dtype).removeprefix('torch.')}-{layout}"


CASES = [
    pytest.param(*choice, id=name_of(*choice), marks=pytest.mark.large if choice in SLOW else ())
    for choice in [*QUICK, *SLOW]
]
ODD = {  # maps that loads of 16 bytes do not fit: how wide loads have to be, if not a value each
    "7x7": ({"side": 7}, False, None),
    "C19": ({"channels": 19}, True, None),
    "C12": ({"channels": 12}, True, ".64"),
    "table": ({"n": 17}, True, ".128"),
}
ODD_DTYPES = (torch.bfloat16, torch.float32)  # in turn: with each look, and with each function
ODD_CASES = [
    pytest.param(
        *(function, dtype, *ODD[look]),
        id=f"{function.__name__}-{str(dtype).removeprefix('torch.')}-{look}",
        marks=() if look == "C19" and function in (sums, pulls) else pytest.mark.large,
    )
    for row, look in enumerate(ODD)
    for column, function in enumerate(ELEMENTWISE)
    for dtype in [ODD_DTYPES[(row + column) % 2]]
]


def check_memory(name: str, kernel: Any, folder: Path, width: str | None) -> None:
    """Check that nothing spills, and that maps are loaded as widely as they can be, a tile soon."""
    count, stack = read(kernel, folder)
    kinds = {instruction.split(".")[0] for instruction in count}
    assert stack == 0, f"{name}: {stack} bytes of stack"
    assert not kinds & {"LDL", "STL"}, f"{name} spills"
    loads = {i for i in count if i.startswith(("LDG", "LDGSTS"))}
    if width is None:
        assert sum(count[i] for i in loads) <= 128, f"{name} loads by {loads}"
    elif name not in SMALL:
        assert any(i.endswith(width) for i in loads), f"{name} loads by {loads}"
        assert not any("U16" in i or "U8" in i for i in loads), f"{name} loads by {loads}"


@pytest.mark.parametrize(("function", "capability", "dtype", "last"), CASES)
def test_nothing_spills_and_loads_are_wide(
    function: Callable[[torch.dtype, bool], None],
    capability: int,
    dtype: torch.dtype,
    last: bool,
    compiled: Compile,
    tmp_path: Path,
) -> None:
    kernels = compiled(capability, function, dtype, last)
    assert kernels
    for name, kernel in kernels:
        check_memory(name, kernel, tmp_path, ".128")


@pytest.mark.parametrize(("function", "dtype", "looks", "last", "width"), ODD_CASES)
def test_nothing_spills_where_loads_are_narrow(
    function: Callable[..., None],
    dtype: torch.dtype,
    looks: dict[str, int],
    last: bool,
    width: str | None,
    compiled: Compile,
    tmp_path: Path,
) -> None:
    if width and dtype == torch.float32:
        width = ".128"  # 4 channels
    for name, kernel in compiled(90, partial(function, **looks), dtype, last):
        check_memory(name, kernel, tmp_path, width)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("function", "dtype", "looks", "last", "width"), ODD_CASES)
def test_nothing_spills_on_the_gpu(
    function: Callable[..., None],
    dtype: torch.dtype,
    looks: dict[str, int],
    last: bool,
    width: str | None,
    compiled: Compile,
) -> None:
    for name, kernel in compiled(0, partial(function, **looks), dtype, last):
        kernel._init_handles()  # loads it: the driver says what it found
        assert kernel.n_spills == 0, f"{name}: {kernel.n_spills} spills"


def test_products_run_on_tensor_cores(compiled: Compile, tmp_path: Path) -> None:
    for name, kernel in compiled(90, products, torch.bfloat16, True):
        count, _ = read(kernel, tmp_path)
        assert any(i.startswith("HGMMA") for i in count), f"{name} does not"
        assert any(i.startswith("LDGSTS") for i in count), f"{name} waits for its loads"


def test_one_compilation_serves_any_number_of_sources_and_channels(
    compiled: Compile,
) -> None:
    def kernels(n: int, channels: int) -> list[tuple[str, Any]]:
        found = [compiled(90, f, torch.bfloat16, True, n, channels) for f in (sums, beginnings)]
        return [(name, id(k)) for name, k in (pair for pairs in found for pair in pairs)]

    few, many = kernels(5, 64), kernels(17, 64)
    assert kernels(6, 128) == kernels(8, 320) == few
    assert sorted(set(kernels(40, 192))) == sorted(set(many))
