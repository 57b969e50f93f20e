"""What Triton makes of the kernels for a GPU that is not there: no spills, wide loads, few compilations."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which compiles for itself"),
]
CHANNELS = 64
Compile = Callable[..., list[tuple[str, Any]]]
SMALL = {"combine_kernel", "table_kernel"}  # read vectors only


class NoDevice:
    """A driver of a GPU that one can compile for, and that runs nothing."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Return a function that calls another one and returns which kernels it would run on a GPU."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found: list[tuple[str, Any]] = []
    run = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append((self.__name__, run(self, *args, grid=grid, warmup=True, **options)))

    def compile_for(capability: int, function: Callable[..., Any], *args: Any) -> list[tuple[str, Any]]:
        driver.set_active(NoDevice(capability))
        found.clear()
        function(*args)
        return list(found)

    monkeypatch.setattr(driver, "_active", None)  # put back afterwards
    monkeypatch.setattr(JITFunction, "run", only_compile)
    return compile_for


def a_map(dtype: torch.dtype, last: bool, channels: int = CHANNELS) -> Tensor:
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(4, channels, 16, 16, dtype=dtype).contiguous(memory_format=form)


def statistics(dtype: torch.dtype, last: bool) -> None:
    from connsearch.kernels.norm_act import triton as kernels

    x, v = a_map(dtype, last), torch.empty(CHANNELS)
    kernels.norm_act_train(x, v, v, 1e-5, "relu")
    kernels.norm_act_backward(x, x, v, v, v, v, "relu")


def sums(dtype: torch.dtype, last: bool, n: int = 5, channels: int = CHANNELS) -> None:
    from connsearch.kernels.weighted_sum import triton as kernels

    x, v = a_map(dtype, last, channels), torch.empty(channels)
    kernels.weighted_sum_norm_act([x] * n, torch.empty(n, 1, channels), v, v, v, 1e-5, "relu")


def beginnings(dtype: torch.dtype, last: bool, n: int = 5, channels: int = CHANNELS) -> None:
    from connsearch.kernels.sums_ahead import triton as kernels

    x, v = a_map(dtype, last, channels), torch.empty(channels)
    kernels.begin_sums([x] * n, torch.empty(4, n, channels), [x] * 4)
    kernels.finish_sum_norm_act(x, [x] * (n - 1), torch.empty(n - 1, channels), v, v, v, 1e-5, "relu")


def pulls(dtype: torch.dtype, last: bool, n: int = 3) -> None:
    from connsearch.kernels.weighted_sum import triton as kernels

    x, v = a_map(dtype, last), torch.empty(CHANNELS)
    kernels.pull([x] * n, torch.empty(n, 1, CHANNELS), x, x)
    kernels.pull_normalized([x] * n, torch.empty(n, CHANNELS), x, v, v, x)


def concatenations(dtype: torch.dtype, last: bool, n: int = 3) -> None:
    from connsearch.kernels.concat_norm_act import triton as kernels

    x, whole, v = a_map(dtype, last), a_map(dtype, last, n * CHANNELS), torch.empty(n * CHANNELS)
    kernels.concat_norm_act([x] * n, v, v, "relu")
    kernels.concat_norm_act_backward(whole, [x] * n, v, v, v, v, "relu", [x] * n)
    kernels.add_affine(x, x, v[:CHANNELS], v[:CHANNELS])


def products(dtype: torch.dtype, last: bool, n: int = 2) -> None:
    from connsearch.kernels.norm_act_conv import triton as kernels

    x, v = a_map(dtype, last), torch.empty(n * CHANNELS)
    filters = torch.empty(CHANNELS, n * CHANNELS, dtype=dtype)
    kernels.norm_act_conv([x] * n, v, v, "relu", filters)
    kernels.norm_act_conv_backward(x, [x] * n, v, v, v, v, "relu", filters, [x] * n)


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
    (sums, 80, torch.float32, False),
]
SLOW = [
    (statistics, 90, torch.bfloat16, True),
    (products, 80, torch.bfloat16, True),
    (products, 90, torch.float32, True),
    *((f, 80, torch.float32, False) for f in (statistics, beginnings, pulls, concatenations)),
    *((f, 90, torch.float32, True) for f in ELEMENTWISE),
    *((f, 80, torch.float16, True) for f in ELEMENTWISE),
    *((f, 90, torch.bfloat16, False) for f in ELEMENTWISE),
]


def case(function: Callable[..., None], capability: int, dtype: torch.dtype, last: bool) -> Any:
    layout = "last" if last else "nchw"
    name = f"{function.__name__}-sm_{capability}-{str(dtype).removeprefix('torch.')}-{layout}"
    slow = (function, capability, dtype, last) in SLOW
    return pytest.param(function, capability, dtype, last, id=name, marks=pytest.mark.large if slow else ())


CASES = [case(*choice) for choice in [*QUICK, *SLOW]]


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
        count, stack = read(kernel, tmp_path)
        kinds = {instruction.split(".")[0] for instruction in count}
        assert stack == 0, f"{name}: {stack} bytes of stack"
        assert not kinds & {"LDL", "STL"}, f"{name} spills"
        if name not in SMALL:
            loads = {i for i in count if i.startswith(("LDG", "LDGSTS"))}
            assert any(i.endswith(".128") for i in loads), f"{name} loads by {loads}"
            assert not any("U16" in i or "U8" in i for i in loads), f"{name} loads by {loads}"


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
