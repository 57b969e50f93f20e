"""Compiled kernels of the CPU against their references on doubles, in every form that maps may have."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from cases import (
    COUNTS,
    DENSE,
    DTYPES,
    IN_PLACE,
    LAYOUTS,
    ODD,
    SEVERAL,
    SHAPES,
    VARIANTS,
    Call,
    calls,
    check,
    kernel,
    name_of,
    outcome,
    package_of,
)

from connsearch import kernels
from connsearch.errors import KernelError
from connsearch.kernels import build

needs_compiler = pytest.mark.skipif(build.why_not() is not None, reason="no kernel can be compiled here")
pytestmark = needs_compiler
FUNCTIONS = sorted(VARIANTS)


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    with kernels.use_backend("cpu"):
        yield


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_dtype_and_layout(function: str, dtype: torch.dtype, layout: str) -> None:
    for call in calls([function], dtype=dtype, layout=layout):
        check(call)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_shape(function: str, shape: tuple[int, int, int, int], layout: str) -> None:
    for call in calls([function], shape=shape, layout=layout):
        check(call)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("function", SEVERAL)
def test_any_number_of_sources(function: str, n: int, layout: str) -> None:
    for call in calls([function], n=n, layout=layout):
        check(call)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_mean_much_larger_than_the_spread(function: str, layout: str) -> None:
    for call in calls([function], mean=1000.0, layout=layout):
        check(call)


@pytest.mark.parametrize("layout", DENSE)
def test_the_variance_of_a_channel_whose_images_differ_much(layout: str) -> None:
    """One image is not like the others: what is near its mean is far from theirs."""
    x = torch.randn(64, 3, 4, 5) * 0.01
    x[0] += 100
    x = x.contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )
    mean_C, var_C = kernels.batch_stats(x)
    var, mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean_C.double(), mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(var_C.double(), var, rtol=2e-5, atol=0)


LARGE = [(64, 8, 16, 16), (70, 3, 40, 40), (33, 70, 9, 9), (2, 40, 33, 32)]


@pytest.mark.parametrize("layout", [*DENSE, "slice", "slice_last"])
@pytest.mark.parametrize("shape", LARGE, ids=name_of)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_maps_of_many_tiles_on_several_threads(
    function: str, shape: tuple[int, int, int, int], layout: str
) -> None:
    call = calls([function], shape=shape, layout=layout, dtype=torch.bfloat16, n=2)[-1]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        check(call)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_number_of_threads_changes_no_bit(function: str, layout: str) -> None:
    call = calls([function], shape=(65, 24, 12, 12), layout=layout)[0]
    outcomes = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        args = call.args()
        outcomes.append(outcome(function, kernel(function), args))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_parameters_in_another_dtype(dtype: torch.dtype) -> None:
    for call in calls(dtype=dtype, params=torch.bfloat16):
        check(call)


@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_what_is_not_finite_stays_so(dtype: torch.dtype, layout: str) -> None:
    x = Call("batch_stats", "plain", dtype=dtype, layout=layout).args()[0]
    x[0, 1, 2, 3], x[0, 2, 0, 0], x[1, 3, 1, 1] = float("nan"), float("inf"), float("-inf")
    one, none = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    y = kernels.norm_act(x, one, none, "relu")
    assert torch.equal(torch.isnan(y), torch.isnan(x))
    assert y[0, 2, 0, 0] == float("inf")
    assert y[1, 3, 1, 1] == 0
    mean, var = kernels.batch_stats(x)
    assert torch.isnan(mean[1])
    assert torch.isnan(var[1])
    assert not torch.isnan(mean[[0, *range(4, x.shape[1])]]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_every_value_of_two_bytes_is_read_and_rounded_as_torch_does(dtype: torch.dtype) -> None:
    bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    x = bits.view(dtype).reshape(16, 16, 16, 16)
    one, none = torch.ones(16), torch.zeros(16)
    torch.testing.assert_close(kernels.norm_act(x, one, none, "none"), x, rtol=0, atol=0, equal_nan=True)
    scale = torch.full((16,), 1.0 + 2**-9 + 2**-20)
    expected = (x.float() * scale[:, None, None]).to(dtype)
    torch.testing.assert_close(
        kernels.norm_act(x, scale, none, "none"), expected, rtol=0, atol=0, equal_nan=True
    )


def test_a_batch_without_images() -> None:
    x = torch.empty(0, 3, 4, 4)
    assert kernels.norm_act(x, torch.ones(3), torch.ones(3), "relu").shape == x.shape
    assert kernels.weighted_sum([x, x], torch.ones(2, 1, 3)).shape == x.shape
    mean, var = kernels.batch_stats(x)
    assert torch.isnan(mean).all()
    assert torch.isnan(var).all()


def test_arguments_are_left_as_they_were() -> None:
    for call in calls(layout="slice"):
        args, again = call.args(), call.args()
        kernel(call.function)(*args)
        for i, (a, b) in enumerate(zip(args, again, strict=True)):
            if IN_PLACE.get(call.function) == i:
                continue
            many = isinstance(a, list)
            for x, y in zip(a if many else [a], b if many else [b], strict=True):
                assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, f"{call}: argument {i}"


def test_what_lies_around_a_sink_is_left_as_it_was() -> None:
    for layout in ("slice", "slice_last", "transposed"):
        wide = torch.zeros(2, 9, 4, 5)
        if layout == "slice_last":
            wide = wide.contiguous(memory_format=torch.channels_last)
        sink = wide[:, 2:5].transpose(2, 3) if layout == "transposed" else wide[:, 2:5]
        kernels.add_affine(sink, torch.zeros(sink.shape), torch.ones(3), torch.ones(3))
        assert torch.equal(wide[:, 2:5], torch.ones(2, 3, 4, 5))
        assert wide.sum() == 2 * 3 * 4 * 5


X = torch.randn(2, 3, 4, 5)
C = torch.ones(3)
WRONG: dict[str, tuple[str, list[Any], str]] = {
    "no-source": ("weighted_sum", [[], torch.ones(0, 1, 3)], "there are no sources"),
    "shape-of-a-source": (
        "weighted_sum",
        [[X, X[:, :2]], torch.ones(2, 1, 3)],
        r"a source must be \(2, 3, 4, 5\), got \(2, 2,",
    ),
    "dtype-of-a-source": (
        "weighted_sum",
        [[X, X.double()], torch.ones(2, 1, 3)],
        "a source must be torch.float32 .* got torch.float64",
    ),
    "weights": (
        "weighted_sum",
        [[X, X], torch.ones(3, 1, 3)],
        r"the weight must be 2 x \(2 or 1\) x \(3 or 1\), got \(3, 1, 3\)",
    ),
    "weights-dims": ("pull", [[X], torch.ones(1, 3), X], r"the weight must be .* got \(1, 3\)"),
    "bias": (
        "weighted_sum",
        [[X], torch.ones(1, 1, 3), torch.ones(2)],
        r"the bias must be \(3,\), .* got \(2,\)",
    ),
    "whole-numbers": (
        "weighted_sum",
        [[X], torch.ones(1, 1, 3, dtype=torch.int64)],
        "the weight must be floating-point .* torch.int64",
    ),
    "extra": ("pull", [[X], torch.ones(1, 1, 3), X, X[:1]], r"extra must be \(2, 3, 4, 5\), got \(1, 3"),
    "no-gradient": ("pull_normalized", [[], torch.ones(0, 3), X, C, C], "there are no gradients"),
    "matrix": (
        "pull_normalized",
        [[X], torch.ones(1, 1, 3), X, C, C],
        r"the weight must be \(1, 3\), got \(1, 1, 3\)",
    ),
    "sums": (
        "begin_sums",
        [[X], torch.ones(2, 1, 3), [X.clone()]],
        r"the weight must be \(1, 1, 3\), got \(2, 1, 3\)",
    ),
    "written": (
        "begin_sums",
        [[X], torch.ones(1, 1, 3), [X[:1]]],
        r"a sum must be \(2, 3, 4, 5\), got \(1, 3",
    ),
    "no-sums-source": ("begin_sums", [[], torch.ones(1, 0, 3), [X]], "there are no sources"),
    "finish": ("finish_sum", [X, [X], torch.ones(2, 3), C], r"the weight must be \(1, 3\), got \(2, 3\)"),
    "finish-bias": (
        "finish_sum",
        [X, [X], torch.ones(1, 3), C[:2]],
        r"the bias must be \(3,\), .* got \(2,\)",
    ),
    "finish-norm": (
        "finish_sum_norm_act",
        [X, [X], torch.ones(2, 3), C, C, C, 1e-5, "relu"],
        r"the weight must be \(1, 3\), got \(2, 3\)",
    ),
    "dims": ("batch_stats", [X[0]], r"a map is B C H W, got \(3, 4, 5\)"),
    "whole-map": ("batch_stats", [X.int()], "no kernel of the CPU reads maps of torch.int32 on cpu"),
    "meta": (
        "norm_act",
        [X.to("meta"), C, C, "relu"],
        "no kernel of the CPU reads maps of torch.float32 on meta",
    ),
    "meta-vector": (
        "norm_act",
        [X, C.to("meta"), C, "relu"],
        "the scale must be floating-point on cpu, got .* on meta",
    ),
    "act": ("norm_act_train", [X, C, C, 1e-5, "gelu"], "unknown activation 'gelu': use none, relu"),
    "gradient": (
        "norm_act_backward",
        [X.half(), X, C, C, C, C, "relu"],
        "the gradient must be torch.float32",
    ),
    "concat": ("concat_norm_act", [[X, X], C, C, "relu"], r"the scale must be \(6,\)"),
    "concat-pixels": (
        "concat_norm_act",
        [[X, X[..., :2]], torch.ones(6), torch.ones(6), "relu"],
        "a source must be",
    ),
    "sinks": (
        "concat_norm_act_backward",
        [X, [X], C, C, C, C, "relu", []],
        "1 sources need as many sinks, got 0",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs_are_named(wrong: str) -> None:
    function, args, message = WRONG[wrong]
    compiled = import_module(f"connsearch.kernels.{package_of(function)}.cpu")
    with pytest.raises(KernelError, match=message):
        getattr(compiled, function)(*args)


def test_odd_is_odd() -> None:
    """The shape of most tests fills no vector and no tile."""
    B, channels, H, W = ODD
    assert B * channels * H * W % 2 == 1
