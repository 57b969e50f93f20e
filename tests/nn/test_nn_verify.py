"""Verification: it finds what is wrong, in what, and in which precision, and is not misled by rounding."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from connsearch import kernels
from connsearch.errors import SpecError, VerifyError
from connsearch.nn import Network, verify
from connsearch.nn.verification import (
    WHAT,
    Errors,
    Verification,
    excess_of,
    verification_table,
    working_dtype,
)
from connsearch.nn.verify import Comparison, verify_network
from connsearch.nn.ways import check_verified
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import preset
from strategies import FAMILIES, families, specs

SPEC = NetworkSpec(
    name="small",
    input={"channels": 3, "height": 8, "width": 8},
    n_classes=5,
    blocks=[{"topology": "dense", "aggregation": "depthwise", "n_layers": 2, "width": 4}],
)
Break = Callable[[Network], object]


def break_values(network: Network) -> None:
    with torch.no_grad():
        list(network.parameters())[-1] += 1  # the bias of the head


def break_gradients(network: Network) -> None:
    list(network.parameters())[-2].register_hook(lambda grad: 1.5 * grad)  # of the head's weight


def break_statistics(network: Network) -> None:
    next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).momentum = 0.5


def break_inference(network: Network) -> None:
    def double(module: nn.Module, inputs: object, out: Tensor) -> Tensor:
        return out if module.training else 2 * out

    next(m for m in network.modules() if isinstance(m, nn.Linear)).register_forward_hook(double)


BREAKS: dict[str, Break] = {
    "values": break_values,
    "gradients": break_gradients,
    "statistics": break_statistics,
    "inference": break_inference,
}


def broken(monkeypatch: pytest.MonkeyPatch, how: Break, *, in_float64: bool) -> None:
    """Make the definition stand in for what was compiled, broken in one precision."""

    def own_module(way: str, network: Network) -> Network:
        is_float64 = next(network.parameters()).dtype == torch.float64
        if way == "fused" and is_float64 == in_float64:
            how(network)
        return network

    monkeypatch.setattr(verify, "own_module", own_module)


def test_every_comparison_has_a_break() -> None:
    assert tuple(BREAKS) == WHAT


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_wrong_in_float64_is_named(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    broken(monkeypatch, BREAKS[what], in_float64=True)
    with pytest.raises(VerifyError, match=f"^small: {what} of 'fused' are off by .* in float64, more than"):
        verify_network(SPEC).raise_if_wrong()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("what", BREAKS)
def test_what_is_wrong_in_the_working_precision_alone_is_named(
    monkeypatch: pytest.MonkeyPatch, what: str, dtype: torch.dtype
) -> None:
    broken(monkeypatch, BREAKS[what], in_float64=False)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(VerifyError, match=f"^small: {what} of 'fused' are off by .* in {name}, those of"):
        verify_network(SPEC, dtype=dtype).raise_if_wrong()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["none", "default", "fused", "stacked"])
def test_ways_of_this_package_are_right(way: str, dtype: torch.dtype, channels_last: bool) -> None:
    for form in ("normalized", "paper"):
        block = SPEC.blocks[0].model_copy(update={"aggregation": f"depthwise(form={form})"})
        spec = NetworkSpec.model_validate(SPEC.model_dump() | {"blocks": [block.model_dump()]})
        found = Comparison(spec, channels_last=channels_last).verification(way, dtype)
        found.raise_if_wrong()
        assert (found.way, found.dtype, found.channels_last) == (way, dtype, channels_last)
        assert max(found.exact) < 1e-10


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_compared_runs_in_the_memory_format(
    monkeypatch: pytest.MonkeyPatch, channels_last: bool
) -> None:
    seen = set()

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.add(inputs[0].is_contiguous(memory_format=torch.channels_last))

    def own_module(way: str, network: Network) -> Network:
        next(m for m in network.modules() if isinstance(m, nn.Conv2d)).register_forward_pre_hook(look)
        return network

    monkeypatch.setattr(verify, "own_module", own_module)
    verify_network(SPEC, channels_last=channels_last)
    assert seen == {channels_last}


@given(st.one_of(specs(), st.sampled_from(sorted(FAMILIES)).flatmap(families)), st.booleans())
@settings(max_examples=8)
def test_rounding_is_no_mistake(spec: NetworkSpec, channels_last: bool) -> None:
    found = Comparison(spec, steps=1, channels_last=channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        verified = found.verification("fused", dtype)
        if inf not in verified.definition:  # norms over single pixels overflow
            verified.raise_if_wrong()


def verification(**parts: Errors) -> Verification:
    """A verification in which nothing is off, but for what is given."""
    none = Errors(0.0, 0.0, 0.0, 0.0)
    allowed = Errors(1e-10, 1e-10, 1e-10, 1e-10)
    errors = {"exact": none, "allowed": allowed, "ours": none, "definition": none, "excess": none} | parts
    return Verification("n", "fused", "cpu", torch.bfloat16, False, **errors)


EPS = 2.0**-7  # of bfloat16
BOUNDS = [  # of two tensors ours and the definition's, and whether that is right
    ([0.0, 8 * EPS], [0.0, 0.0], True),
    ([0.0, 8.01 * EPS], [0.0, 0.0], False),
    ([0.0, 0.4 + 8 * EPS], [0.0, 0.1], True),
    ([0.0, 0.4 + 8.01 * EPS], [0.0, 0.1], False),
    ([0.4, 0.0], [0.0, 0.1], False),  # each is held against its own
    ([0.0, nan], [0.0, 0.1], False),
    ([0.0, inf], [0.0, inf], False),
    ([0.0, 0.0], [0.0, inf], False),
]


@pytest.mark.parametrize(("ours", "definition", "right"), BOUNDS)
def test_bounds(ours: list[float], definition: list[float], right: bool) -> None:
    for what in WHAT:
        assert (excess_of(what, ours, definition, torch.bfloat16) <= 1) == right


def test_the_bound_in_float32() -> None:
    assert excess_of("gradients", [1e-4], [0.0], torch.float32) == 1
    assert excess_of("values", [8 * 2.0**-23], [0.0], torch.float32) == 1


def pulled_times(factor: float, pull: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Return a kernel whose gradients of sources are a little off in float32, and right in float64."""

    def pulled(*args: object) -> tuple[Tensor, ...]:
        total, *rest = pull(*args)
        return (total if total.dtype == torch.float64 else total.mul_(factor), *rest)

    return pulled


@pytest.mark.parametrize("form", ["normalized", "paper"])
def test_gradients_that_are_a_little_off_in_float32_are_found(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    block = SPEC.blocks[0].model_copy(update={"aggregation": f"depthwise(form={form})"})
    spec = NetworkSpec.model_validate(SPEC.model_dump() | {"blocks": [block.model_dump()]})
    for name in ("pull", "pull_normalized"):
        monkeypatch.setattr(kernels, name, pulled_times(1.002, getattr(kernels, name)))
    with pytest.raises(VerifyError, match=r"^small: gradients of 'fused' are off by .* in float32, those of"):
        verify_network(spec).raise_if_wrong()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-56", "multipath-cnn-2-xpred"])
def test_a_relu_that_rounding_turns_is_no_mistake(name: str) -> None:
    verify_network(preset(name), steps=1).raise_if_wrong()


def test_the_bound_in_float64() -> None:
    verification(exact=Errors(0.0, 0.0, 1e-10, 0.0)).raise_if_wrong()
    for exact in (1.01e-10, nan):
        found = verification(exact=Errors(0.0, 0.0, exact, 0.0))
        with pytest.raises(VerifyError, match=r"^n: statistics of 'fused' are off by .* more than 1e-10$"):
            found.raise_if_wrong()


def test_a_definition_that_overflows_is_told() -> None:
    found = verification(definition=Errors(0.0, inf, 0.0, 0.0), excess=Errors(0.0, inf, 0.0, 0.0))
    with pytest.raises(VerifyError, match="gradients of the definition are not finite in bfloat16"):
        found.raise_if_wrong()


@pytest.mark.parametrize(
    ("parts", "right"),
    [
        ({}, True),
        ({"exact": Errors(1e-10, 1e-10, 1e-10, 1e-10)}, True),
        ({"exact": Errors(0.0, 0.0, 0.0, 1.1e-10)}, False),
        ({"exact": Errors(nan, 0.0, 0.0, 0.0)}, False),
        ({"excess": Errors(1.0, 1.0, 1.0, 1.0)}, True),
        ({"excess": Errors(1.0, 1.01, 1.0, 1.0)}, False),
        ({"excess": Errors(1.0, 1.0, 1.0, inf)}, False),
    ],
)
def test_what_is_right_does_not_raise(parts: dict[str, Errors], right: bool) -> None:
    found = verification(**parts)
    assert found.right == found.as_json()["right"] == right
    if right:
        found.raise_if_wrong()
    else:
        with pytest.raises(VerifyError, match=r"^n: \w+ of 'fused' are off by"):
            found.raise_if_wrong()


def test_the_table_and_the_record() -> None:
    found = verification(ours=Errors(1e-3, 2e-3, 3e-3, 4e-3))
    header, *rows = verification_table([found]).splitlines()
    assert header.split() == ["way", "what", "float64", "dtype", "in", "dtype", "definition"]
    assert rows[1].split() == ["fused", "gradients", "0.0e+00", "bfloat16", "2.0e-03", "0.0e+00"]
    record = found.as_json()
    assert record["relative_error"]["bfloat16"] == {
        "values": 1e-3, "gradients": 2e-3, "statistics": 3e-3, "inference": 4e-3,
    }  # fmt: skip
    assert list(record["relative_error"]) == ["float64", "float64_allowed", "bfloat16", "bfloat16_definition"]


def test_an_unknown_precision_is_told() -> None:
    with pytest.raises(SpecError, match=r"unknown dtype 'float8'\. Did you mean 'float32'\?"):
        working_dtype("float8")


def test_torchs_own_compiler_is_not_verified() -> None:
    with pytest.raises(SpecError, match=r"^way 'torch\.compile' is not verified: it is torch's own$"):
        Comparison(SPEC).errors("torch.compile")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (
            "torch.compile",
            r"way 'torch\.compile' is not verified: it is torch's own\. Verified are st",
        ),
        ("definition", "way 'definition' is not verified: it is what others are compared with"),
        ("inference", "pipeline 'inference' has no gradients: evaluation runs it by itself"),
        (
            "fusd",
            r"unknown way 'fusd'\. Did you mean 'fused'\? Known: cuda graph, default, fused, none, st",
        ),
        ("cuda graph", "way 'cuda graph' needs a CUDA device, not 'cpu'"),
    ],
)
def test_what_is_not_verified_is_refused(way: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        check_verified(["fused", way], SPEC, "cpu")
