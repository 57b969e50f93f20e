"""Kernels in Triton against their references in float64: in the interpreter, or on a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from cases import (
    DENSE,
    DTYPES,
    LAYOUTS,
    ODD,
    SEVERAL,
    SHAPES,
    VARIANTS,
    Call,
    calls,
    check,
    kernel,
    random,
)
from interpreting import run

from connsearch.errors import KernelError
from connsearch.kernels import use_backend
from connsearch.kernels.tritonic import channel_block, lies_last, native, pitch_of, why_not

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu  # elsewhere these run in the interpreter

TINY = (2, 5, 3, 7)
SIZES = [*({(2, 2, 17, 31): (2, 1, 17, 31), (7, 130, 1, 1): (2, 130, 1, 1)}.get(s, s) for s in SHAPES), ODD]
THREE = ("weighted_sum_norm_act", "pull", "concat_norm_act_backward")  # whose maps lie in most ways
ONE = {name: list(variants)[-1] for name, variants in VARIANTS.items()}  # a variant of each function


def one_of_each(**looks: object) -> list[Call]:
    return [Call(name, variant, **looks) for name, variant in ONE.items()]


def in_triton(call: Call, device: str) -> None:
    with use_backend("triton"):
        check(call, device=device)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("call", calls(shape=TINY), ids=str)
def test_every_variant(call: Call, layout: str) -> None:
    run(in_triton, Call(call.function, call.variant, shape=TINY, layout=layout))


@pytest.mark.parametrize(
    "call",
    [
        call
        for dtype, layout in zip(DTYPES[1:], ["channels_last", "nchw", "channels_last"], strict=True)
        for call in one_of_each(shape=TINY, dtype=dtype, layout=layout)
    ],
    ids=str,
)
def test_every_dtype(call: Call) -> None:
    run(in_triton, call)


@pytest.mark.parametrize(
    "call",
    [
        call
        for row, shape in enumerate(SIZES)
        for i, call in enumerate(one_of_each(shape=shape, n=2))
        if (i + row) % 4 == 0 or shape == (1, 1, 1, 1)
    ],
    ids=str,
)
def test_sizes(call: Call) -> None:
    for layout in DENSE:
        run(in_triton, Call(call.function, call.variant, shape=call.shape, n=2, layout=layout))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=() if call.function in THREE else pytest.mark.large)
        for layout in LAYOUTS[2:]
        for call in one_of_each(shape=(4, 5, 2, 3), layout=layout)
    ],
    ids=str,
)
def test_maps_that_lie_elsewhere(call: Call) -> None:
    run(in_triton, call)


@pytest.mark.parametrize("n", [1, 4, 8, 9, 18])
@pytest.mark.parametrize("function", SEVERAL)
def test_numbers_of_sources(function: str, n: int) -> None:
    run(in_triton, Call(function, ONE[function], shape=(1, 3, 2, 3), n=n))


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("function", ["batch_stats", "norm_act_train", "weighted_sum_norm_act"])
def test_a_mean_far_larger_than_the_spread(function: str, layout: str) -> None:
    run(in_triton, Call(function, ONE[function], shape=(4, 3, 16, 16), n=1, mean=1e4, layout=layout))


@pytest.mark.parametrize("params", [torch.bfloat16, torch.float64])
def test_parameters_of_another_dtype(params: torch.dtype) -> None:
    run(in_triton, Call("norm_act", "relu", shape=TINY, dtype=torch.bfloat16, params=params))


def refuses(function: str, args: list[object], message: str, device: str) -> None:
    with use_backend("triton"), pytest.raises(KernelError, match=message):
        kernel(function)(*args)


x, v = torch.zeros(2, 3, 4, 5), torch.zeros(3)


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("weighted_sum", ([x, x[:, :2]], torch.zeros(2, 1, 3)), r"map 1 is torch.float32 \(2, 2, 4, 5\)"),
        ("weighted_sum", ([x, x.double()], torch.zeros(2, 1, 3)), "map 1 is torch.float64"),
        ("weighted_sum", ([x], torch.zeros(2, 1, 3)), r"weight is \(2, 1, 3\): 1 maps need 1"),
        ("norm_act", (x, v, torch.zeros(4), "relu"), r"shift is \(4,\) on cpu, maps need \(3,\)"),
        ("norm_act", (x, v, v, "gelu"), "unknown activation 'gelu': use none, relu"),
        ("norm_act", (x.int(), v, v, "relu"), "a map is torch.int32"),
        ("norm_act", (x[:, :, :0], v, v, "relu"), r"a map is torch.float32 \(2, 3, 0, 5\)"),
        (
            "concat_norm_act",
            ([x, x[:1]], torch.zeros(6), torch.zeros(6), "none"),
            r"map 1 is .*\(1, 3, 4, 5\)",
        ),
        ("add_affine", (x, x[:1], v, v), r"sinks .* do not match sources"),
        (
            "concat_norm_act_backward",
            (torch.zeros(2, 6, 4, 5), [x, x], *[torch.ones(6)] * 4, "relu", [x, x]),
            "2 sinks are 1 maps: each has to be another",
        ),
    ],
)
def test_wrong_inputs_are_named(function: str, args: tuple[object, ...], message: str) -> None:
    run(refuses, function, list(args), message)


def test_a_pitch_says_where_a_map_lies() -> None:
    wide = torch.empty(2, 8, 3, 5)
    last = wide.contiguous(memory_format=torch.channels_last)
    assert pitch_of(wide, last=False) == 8 * 15
    assert pitch_of(wide[:, 2:4], last=False) == 8 * 15
    assert pitch_of(last[:, 2:4], last=True) == 8
    assert pitch_of(wide, last=True) is None
    assert pitch_of(wide.transpose(2, 3), last=False) is None
    assert pitch_of(wide[:1].expand(2, 8, 3, 5), last=False) is None
    assert pitch_of(torch.empty(2, 8, 1, 1), last=True) == 8
    assert lies_last(torch.empty(2, 8, 1, 1))
    assert not lies_last(wide)
    assert native(last, last=True) is last
    assert native(last[:, 2:4], last=True, dense=True).shape == (2, 2, 3, 5)


def gradient_lies_as_its_map(device: str) -> None:
    x = random((2, 5, 3, 4), 0).to(device, memory_format=torch.channels_last)
    grad, v = torch.ones(2, 5, 1, 1, dtype=x.dtype, device=device).expand_as(x), x.new_ones(5)
    with use_backend("triton"):
        found, *_ = kernel("norm_act_backward")(grad, x, v, v, v, v, "relu")
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_gradient_lies_as_its_map_whatever_it_is_made_of() -> None:
    run(gradient_lies_as_its_map)


@pytest.mark.parametrize(("widths", "block"), [([1], 16), ([12], 16), ([32], 32), ([64], 64), ([130], 16)])
def test_blocks_of_channels_are_wide_and_seldom_empty(widths: list[int], block: int) -> None:
    assert channel_block(widths) == block


def test_kernels_import_without_triton() -> None:
    code = "import sys, connsearch.kernels; from connsearch.kernels.tritonic import why_not; why_not()"
    code += "; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_there_is_a_reason_without_a_gpu() -> None:
    assert why_not() == "there is no GPU"
