"""Kernels as operators of torch: fakes, gradients, counts of operations, when calls go through them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from cases import IN_PLACE, VARIANTS, Call, apply
from torch._subclasses import FakeTensorMode
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from connsearch import kernels
from connsearch.kernels.operators import OPERATORS, tensors

PAIRS = [(name, variant) for name in sorted(VARIANTS) if name in OPERATORS for variant in VARIANTS[name]]
WITH_GRADIENT = (
    "batch_stats",
    "concat_norm_act",
    "norm_act",
    "norm_act_train",
    "weighted_sum",
    "weighted_sum_norm_act",
)
pairs = pytest.mark.parametrize(("name", "variant"), PAIRS)


def doubles(name: str, variant: str, layout: str = "nchw") -> list[Any]:
    """Return arguments of a small call."""
    return Call(name, variant, shape=(2, 3, 4, 5), n=2, dtype=torch.float64, layout=layout).args()


def test_every_kernel_is_an_operator() -> None:
    assert set(kernels.__all__) - {"Choice", "choose", "use_backend"} == set(OPERATORS)
    assert all(hasattr(torch.ops.connsearch, name) for name in OPERATORS)


@pytest.mark.parametrize("layout", ["nchw", pytest.param("channels_last", marks=pytest.mark.large)])
@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*pair, marks=() if pair == PAIRS[-1] else pytest.mark.large) for pair in PAIRS],
)
def test_torch_s_own_checks(name: str, variant: str, layout: str) -> None:
    args = doubles(name, variant, layout)
    if name in WITH_GRADIENT:
        args = apply(args, lambda t: t.requires_grad_())
    found = opcheck(OPERATORS[name].definition._opoverload, tuple(args))
    assert set(found.values()) == {"SUCCESS"}


@pairs
@pytest.mark.parametrize("layout", ["slice", "expanded", "pixel", "transposed", "mixed"])
def test_maps_with_odd_strides_come_out_as_promised(name: str, variant: str, layout: str) -> None:
    args = doubles(name, variant, layout)
    real = OPERATORS[name].definition(*args)
    with FakeTensorMode() as mode:
        fake = OPERATORS[name].definition(*apply(args, mode.from_tensor))
    for have, like in zip(tensors(real), tensors(fake), strict=True):
        assert (have.shape, have.dtype) == (like.shape, like.dtype)
        significant = [i for i, n in enumerate(have.shape) if n > 1]
        assert [have.stride(i) for i in significant] == [like.stride(i) for i in significant]


@pairs
def test_through_the_operator_comes_what_comes_without(name: str, variant: str) -> None:
    direct, through = doubles(name, variant), doubles(name, variant)
    kernel = getattr(kernels, name)
    plain = kernel(*direct)
    with FlopCounterMode(display=False):
        watched = kernel(*through)
    torch.testing.assert_close(watched, plain)
    if name in IN_PLACE:
        torch.testing.assert_close(through[IN_PLACE[name]], direct[IN_PLACE[name]])


@pytest.mark.parametrize(("name", "variant"), [pair for pair in PAIRS if pair[0] in WITH_GRADIENT])
def test_gradients_are_those_of_the_reference(name: str, variant: str) -> None:
    ours, exact = (apply(doubles(name, variant), lambda t: t.requires_grad_()) for _ in range(2))
    reference = inspect.unwrap(getattr(kernels, name))
    for kernel, args in ((getattr(kernels, name), ours), (reference, exact)):
        found = [t for t in tensors(kernel(*args)) if t.dim() == 4 or name == "batch_stats"]
        torch.stack([(k + t).square().sum() for k, t in enumerate(found)]).sum().backward()
    for a, b in zip(tensors(ours), tensors(exact), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad)


def test_statistics_that_came_with_a_norm_have_no_gradient() -> None:
    x, weight, bias = torch.randn(2, 3, 4, 5, requires_grad=True), torch.ones(3), torch.zeros(3)
    y, mean, var = kernels.norm_act_train(x, weight, bias, 1e-5, "relu")
    assert (y.requires_grad, mean.requires_grad, var.requires_grad) == (True, False, False)


def test_a_gradient_has_no_gradient() -> None:
    g, w = torch.randn(2, 3, 4, 5, requires_grad=True), torch.ones(1, 1, 3)
    pulled, _ = kernels.pull([g], w, torch.randn(2, 3, 4, 5))
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        pulled.sum().backward()


def test_multiply_accumulates_are_counted_twice() -> None:
    maps = [torch.randn(2, 3, 4, 5) for _ in range(7)]
    with FlopCounterMode(display=False) as counter:
        kernels.weighted_sum(maps, torch.ones(7, 1, 3))
        assert counter.get_total_flops() == 2 * 7 * 120
        kernels.pull(maps, torch.ones(7, 1, 3), maps[0])
        assert counter.get_total_flops() == (2 + 4) * 7 * 120
        kernels.norm_act_conv(maps, torch.ones(21), torch.ones(21), "relu", torch.ones(4, 21))
        assert counter.get_total_flops() == (2 + 4) * 7 * 120 + 2 * 40 * 4 * 21
        kernels.norm_act_conv_backward(
            torch.ones(2, 4, 4, 5),
            maps,
            *(torch.ones(21) for _ in range(4)),
            "relu",
            torch.ones(4, 21),
            [torch.zeros_like(x) for x in maps],
        )
        assert counter.get_total_flops() == (2 + 4) * 7 * 120 + (2 + 4) * 40 * 4 * 21


@pytest.mark.slow
def test_counts_are_known_whatever_is_imported_first() -> None:
    code = """
import sys
from connsearch import kernels
assert "torch.utils.flop_counter" not in sys.modules
import torch
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    kernels.weighted_sum([torch.randn(2, 3, 4, 5)], torch.ones(1, 1, 3))
print(counter.get_total_flops())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "240\n"


def test_a_counter_that_was_made_before_the_first_call_counts() -> None:
    early = FlopCounterMode(display=False)
    early.flop_registry = {op: f for op, f in early.flop_registry.items() if "connsearch" not in str(op)}
    with early:
        kernels.weighted_sum([torch.randn(2, 3, 4, 5)], torch.ones(1, 1, 3))
    assert early.get_total_flops() == 240
