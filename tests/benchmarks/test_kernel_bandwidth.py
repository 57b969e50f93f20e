"""The kernels whose bandwidth is measured compute what their references do, and their bytes are counted."""

from __future__ import annotations

import pytest
import torch
from kernel_bandwidth import COPY, Kernel, calls, check, measure

from connsearch import kernels
from connsearch.errors import VerifyError

SHAPE, N = (2, 16, 4, 3), 3


def test_every_call_is_what_the_reference_computes() -> None:
    for kernel in calls(SHAPE, N, torch.float32, "cpu"):
        check(kernel)


def test_what_is_wrong_is_not_timed() -> None:
    x = torch.ones(SHAPE)

    def off() -> torch.Tensor:
        return x if kernels.choose("cpu", x.dtype).backend == "reference" else 1.01 * x

    with pytest.raises(VerifyError, match=r"pull, 3 is off by 1\.0e-02"):
        check(Kernel("pull, 3", x.nbytes, off))


def test_bandwidth_is_bytes_by_seconds_and_compared_with_a_copy() -> None:
    found = calls(SHAPE, N, torch.bfloat16, "cpu")
    one = 2 * 2 * 16 * 4 * 3
    moved = {kernel.name: kernel.moved for kernel in found}
    assert moved[COPY] == 2 * one
    assert moved["weighted_sum, 3"] == 4 * one
    lines = measure(found[:2], 3, "cpu")
    assert [line["share_of_copy"] == 1 for line in lines] == [True, False]
    assert all(0 < line["low_GB_s"] <= line["median_GB_s"] <= line["high_GB_s"] for line in lines)
