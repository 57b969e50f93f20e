"""What a program keeps for backward, against the model of the definition and against autograd."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from programs import TRAINING, any_network, dropping_network, network

from connsearch.cost import network_cost
from connsearch.ir import Program, lower, optimize, parse
from connsearch.ir.saved import least_saved, saved_elements
from connsearch.kernels import use_backend
from connsearch.nn.compiled import build
from connsearch.spec import NetworkSpec
from measured import images, training_bytes


@given(st.one_of(dropping_network(), any_network()))
def test_a_lowered_program_keeps_what_the_definition_keeps(spec: NetworkSpec) -> None:
    assert 4 * saved_elements(lower(spec)) == network_cost(spec).training_bytes


@pytest.mark.parametrize("pipeline", ["none", "default", "fused"])
def test_a_compiled_network_keeps_what_its_program_says(pipeline: str) -> None:
    @settings(max_examples=20)
    @given(any_network())
    def check(spec: NetworkSpec) -> None:
        with use_backend("reference"):
            net = build(spec, pipeline=pipeline)
            kept = training_bytes(net, images(spec)) // 4  # type: ignore[arg-type]
        assert saved_elements(net.program) == kept

    check()


@given(any_network())
def test_no_pass_keeps_more(spec: NetworkSpec) -> None:
    program = lower(spec)
    least = least_saved(program)
    for name, rewrite in TRAINING.items():
        before, program = program, rewrite(program)
        assert saved_elements(program) <= saved_elements(before) + _without_gates(program), name
        assert least <= saved_elements(program)


def _without_gates(program: Program) -> int:
    """Return the elements of sources without a gate in sums with gates, which are kept in one pass."""
    found = set()
    for op in program.ops:
        if op.aggregate is not None and op.aggregate.slots:
            pairs = zip(op.sources, op.aggregate.slots, strict=True)
            found |= {source for source, slot in pairs if slot is None}
    return sum(program.shape(source).size for source in found)


@given(any_network())
def test_the_least_does_not_depend_on_fusion(spec: NetworkSpec) -> None:
    program = TRAINING["partial_sums"](lower(spec))
    least = least_saved(program)
    for rewrite in TRAINING.values():
        program = rewrite(program)
        assert least_saved(program) == least


@pytest.mark.parametrize("aggregation", ["sum", "concat", "depthwise"])
def test_recomputing_reaches_the_least(aggregation: str) -> None:
    program = lower(network("dense", aggregation, 8, unit="dense_bottleneck"))
    default, fused = optimize(program, "default"), optimize(program, "fused")
    assert saved_elements(fused) < saved_elements(default) < saved_elements(program)
    assert saved_elements(fused) == least_saved(program)


@pytest.mark.parametrize(
    ("lines", "kept", "least"),
    [
        pytest.param(["conv(4, 4)"], 1, 1, id="the image"),
        pytest.param(["conv(4, 4)", "norm('batch', 4)", "act('relu')"], 3, 2, id="ReLU keeps its output"),
        pytest.param(["act('elu')", "norm('batch', 4)", "conv(4, 4)"], 3, 1, id="made of the image again"),
        pytest.param(["conv(4, 4)", "pool('avg', 3, 1, 1)"], 2, 1, id="an average needs no input"),
        pytest.param(["conv(4, 4)", "pool('max', 3, 1, 1)"], 4, 4, id="a maximum keeps positions of 8 bytes"),
    ],
)
def test_a_line(lines: list[str], kept: int, least: int) -> None:
    steps = "\n".join(f"%{i}: 4x8x8 = {line} <- %{i - 1}" for i, line in enumerate(lines, start=1))
    program = parse(f"program p: 4x8x8\n{steps}\nreturn h %{len(lines)}")
    assert saved_elements(program) == kept * 256
    assert least_saved(program) == least * 256
