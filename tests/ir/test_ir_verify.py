"""Each rule of a valid program, and a program that breaks it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings, strategies as st
from programs import TRAINING, any_network, dropping_network, network, small_presets

from connsearch.errors import SpecError, VerifyError
from connsearch.ir import PIPELINES, Program, list_passes, lower, optimize, parse, verify
from connsearch.ir.pipelines import INFERENCE, Pass
from connsearch.ir.program import Op, Step
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Act, Shape


@settings(max_examples=40)
@given(dropping_network())
def test_every_pass_keeps_every_rule(spec: NetworkSpec) -> None:
    program = verify(lower(spec))
    for name, rewrite in TRAINING.items():
        program = verify(rewrite(program), after=name)


@pytest.mark.parametrize("pipeline", ["fused", INFERENCE])
def test_passes_keep_every_rule_in_any_order(pipeline: str) -> None:
    @given(any_network(), st.permutations(PIPELINES[pipeline]))
    def check(spec: NetworkSpec, passes: list[Pass]) -> None:
        program = lower(spec)
        for rewrite in passes:
            program = verify(rewrite(program), after=rewrite.__name__)

    check()


def test_presets_are_valid_after_every_pass() -> None:
    for program in small_presets():
        for pipeline in PIPELINES:
            optimize(program, pipeline)


def program(*lines: str, image: str = "4x8x8", outputs: str = "") -> Program:
    """Return the program of operations without their values, the last of which it gives out."""
    ops = [f"%{value}: {line}" for value, line in enumerate(lines, start=1)]
    return parse("\n".join([f"program p: {image}", *ops, f"return {outputs or f'head %{len(lines)}'}"]))


def test_a_valid_program_is_given_back() -> None:
    found = program("4x8x8 = act('relu') <- %0", "4x8x8 = aggregate.sum <- %0 %1")
    assert verify(found) is found


RELU = "4x8x8 = act('relu') <- %0"
FUSED = "aggregate, norm, act, conv, share"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(
            ["4x8x8 = act('relu') <- %1"], "it reads %1, which is not defined before it", id="reads itself"
        ),
        pytest.param(
            ["4x8x8 = act('relu') <- %2", "4x8x8 = act('relu') <- %1"],
            "it reads %2, which is not defined before it",
            id="reads what comes later",
        ),
        pytest.param(["4x8x8 = act('relu') <- %0 %0"], "act takes one input, got 2", id="inputs"),
        pytest.param(
            ["4x8x8 = norm('batch', 4) | pool('max') <- %0"],
            "pool is fused with nothing",
            id="fused with nothing",
        ),
        pytest.param(
            ["4x8x8 = act('relu') | norm('batch', 4) <- %0"],
            f"steps go in the order {FUSED}, each once",
            id="order",
        ),
        pytest.param(
            ["4x8x8 = norm('batch', 4) | norm('batch', 4) <- %0"],
            f"steps go in the order {FUSED}, each once",
            id="twice",
        ),
        pytest.param(
            ["4x8x8 = aggregate.sum | act('relu') <- %0 %0"],
            "aggregate and act are fused with a norm between them only",
            id="no norm",
        ),
        pytest.param(
            ["4x8x8 = norm('layer', 4) | act('relu') <- %0"],
            "norm('layer') is fused with nothing",
            id="layer norm",
        ),
        pytest.param(
            ["4x8x8 = norm('batch', 4) | act('elu') <- %0"], "act('elu') is fused with nothing", id="elu"
        ),
        pytest.param(["4x8x8 = share() <- %0"], "share is the last of several steps", id="nothing is shared"),
        pytest.param(
            ["4x8x8 = act('relu') | share() | share() <- %0"],
            "share is the last of several steps",
            id="shared twice",
        ),
        pytest.param(["4x8x8 = aggregate.sum <- %0"], "sum does not apply to 1 sources", id="one source"),
        pytest.param(
            ["4x1x1 = global_pool() <- %0", "4x8x8 = aggregate.routed[2.0 - -] <- %0 %0 %1"],
            "routed has 3 slots for 2 sources",
            id="slots",
        ),
        pytest.param(
            ["4x8x8 = aggregate.sum{element 0.5 0.5 0} <- %0 %0"], "sum has 1 drops for 2 sources", id="drops"
        ),
        pytest.param(
            ["4x1x1 = global_pool() <- %0", "4x8x8 = aggregate.routed[3.0 -] <- %0 %0 %1"],
            "its gates are operands 2 to 2, but slots name [3]",
            id="gates",
        ),
        pytest.param(
            ["4x4x4 = pool('max') <- %0", "4x8x8 = aggregate.sum <- %0 %1"],
            "its sources differ in resolution",
            id="resolution",
        ),
        pytest.param(
            ["8x8x8 = conv(4, 8) <- %0", "4x8x8 = aggregate.sum <- %0 %1"],
            "sum takes sources of equal channels, got [4, 8]",
            id="channels of sources",
        ),
        pytest.param(["8x8x8 = conv(3, 8) <- %0"], "conv takes 3 channels, got 4", id="conv"),
        pytest.param(["8x16x16 = deconv(3, 8) <- %0"], "deconv takes 3 channels, got 4", id="deconv"),
        pytest.param(
            ["3x8x8 = depthwise_conv(3) <- %0"], "depthwise_conv takes 3 channels, got 4", id="depthwise"
        ),
        pytest.param(["4x8x8 = norm('batch', 3) <- %0"], "norm takes 3 channels, got 4", id="norm"),
        pytest.param(["4x8x8 = position(3, 8, 8) <- %0"], "position takes 3 channels, got 4", id="position"),
        pytest.param(["2x8x8 = attention(2) <- %0"], "attention takes 6 channels, got 4", id="attention"),
        pytest.param(["8x4x4 = subsample(3, 8) <- %0"], "subsample takes 3 channels, got 4", id="subsample"),
        pytest.param(["3x8x8 = slice(2, 5) <- %0"], "slice takes 5 channels or more, got 4", id="slice"),
        pytest.param(["2x1x1 = linear(3, 2) <- %0"], "linear takes 3 features, got 256", id="linear"),
        pytest.param(["5x8x8 = act('relu') <- %0"], "its shape is 4x8x8", id="shape"),
        pytest.param(
            ["4x8x8 = conv(4, 4) | share() <- %0", "4x8x8 = aggregate.depthwise <- %0 %1"],
            "it normalises %1, which is shared without statistics",
            id="shared, weighed",
        ),
        pytest.param(
            ["4x8x8 = conv(4, 4) | share() <- %0", "8x8x8 = aggregate.concat | norm('batch', 8) <- %0 %1"],
            "it normalises %1, which is shared without statistics",
            id="shared, concatenated",
        ),
    ],
)
def test_a_broken_operation_is_named(lines: list[str], message: str) -> None:
    found = program(*lines)
    text = str(found).splitlines()[1:-1]
    with pytest.raises(VerifyError) as caught:
        verify(found, after="some_pass")
    assert str(caught.value) in [f"after some_pass: {line}: {message}" for line in text]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        pytest.param(
            Program("p", Shape(4, 8, 8), (Op((), (0,), Shape(4, 8, 8)),), (("head", 1),)),
            "after lower: %1: 4x8x8 =  <- %0: an operation has steps and reads values",
            id="no steps",
        ),
        pytest.param(
            Program("p", Shape(4, 8, 8), (Op((Step(Act("relu")),), (), Shape(4, 8, 8)),), (("head", 1),)),
            "after lower: %1: 4x8x8 = act('relu') <- : an operation has steps and reads values",
            id="no reads",
        ),
        pytest.param(
            Program("p", Shape(4, 8, 8), (), ()),
            "after lower: the program gives nothing out",
            id="no outputs",
        ),
        pytest.param(
            program(RELU, outputs="head %2"),
            "after lower: output 'head' is %2, which nothing defines",
            id="output undefined",
        ),
        pytest.param(
            program(RELU, RELU, outputs="head %2"),
            "after lower: nothing reads %1: 4x8x8 = act('relu') <- %0",
            id="unread",
        ),
    ],
)
def test_a_broken_program_is_named(found: Program, message: str) -> None:
    with pytest.raises(VerifyError, match=f"^{re.escape(message)}$"):
        verify(found)


def test_the_pass_at_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_outputs(program: Program) -> Program:
        return Program(program.name, program.image, program.ops, ())

    passes: tuple[Pass, ...] = (TRAINING["partial_sums"], forget_outputs)
    monkeypatch.setitem(PIPELINES, "broken", passes)
    with pytest.raises(VerifyError, match=r"^after forget_outputs: the program gives nothing out$"):
        optimize(lower(network("dense", "sum")), "broken")


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(SpecError, match=r"unknown pipeline 'fuse'\. Did you mean 'fused'\?"):
        optimize(lower(network("dense", "sum")), "fuse")


def test_passes_are_listed() -> None:
    assert set(TRAINING) | {"fold_norms", "fuse_prologues", "pool_first"} == set(list_passes())
