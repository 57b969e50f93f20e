"""Reports of programs: the reason beside an operation is true, whatever the pipeline."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from connsearch.ir import PIPELINES, Program, lower, optimize
from connsearch.ir.report import OTHERS_FUSE, OTHERS_REUSE, program_report
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Act, Conv, Norm
from strategies import FAMILIES, families, specs

LONE_NORM = "a norm on its own, followed by neither ReLU nor a convolution that reads it alone"
LONE_ACT = "an activation on its own, not after a norm that it reads alone"
LONE_CONCAT = "no batch norm reads the concatenation alone"
TWO = "two maps: one addition"


def network(aggregation: str, **more: object) -> NetworkSpec:
    block = {"topology": "dense", "aggregation": aggregation, "n_layers": 4, "width": 4, **more}
    return NetworkSpec(
        name="small", input={"channels": 1, "height": 8, "width": 8}, n_classes=4, blocks=[block]
    )


def reasons(spec: NetworkSpec, pipeline: str) -> dict[int, str]:
    """Return the reason beside each value that has one."""
    _, *lines = program_report(
        optimize(lower(spec), pipeline), evaluation=pipeline == "inference"
    ).splitlines()
    parts = {number: line.partition("  # as defined: ")[2] for number, line in enumerate(lines, start=1)}
    return {number: why for number, why in parts.items() if why}


def read_alone_by(program: Program, value: int) -> object:
    """Return what alone reads a value, None if nothing or several do."""
    if len(program.readers[value]) != 1 or value in program.kept:
        return None
    return program.op(program.readers[value][0]).steps[0].what


def is_batch_norm(what: object) -> bool:
    return isinstance(what, Norm) and what.kind == "batch"


def is_true(program: Program, value: int, why: str) -> bool:
    """Return whether a reason holds, as far as it says something of what stands in the program."""
    op = program.op(value)
    reader = read_alone_by(program, value)
    if why == LONE_NORM:
        relu = isinstance(reader, Act) and reader.kind == "relu"
        return is_batch_norm(op.steps[0].what) and not relu and not isinstance(reader, Conv)
    if why == LONE_ACT:
        (read,) = op.reads
        before = program.op(read).steps[-1].what if read else None
        return not (is_batch_norm(before) and read_alone_by(program, read) is not None)
    if why == LONE_CONCAT:
        return not is_batch_norm(reader)
    return why != TWO or len(op.sources) == 2


def fused_modules(program: Program) -> set[str]:
    """Return the modules of operations of several steps."""
    kept = ([step.at for step in op.steps if step.what.op != "share"] for op in program.ops)
    return {at for modules in kept if len(modules) > 1 for at in modules}


ANY = st.one_of(specs(), specs(drops=True), st.sampled_from(sorted(FAMILIES)).flatmap(families))


@given(ANY, st.sampled_from(["none", "default", "fused"]))
@settings(max_examples=80)
def test_reasons_are_true(spec: NetworkSpec, pipeline: str) -> None:
    program, whole = optimize(lower(spec), pipeline), fused_modules(optimize(lower(spec), "fused"))
    for value, why in reasons(spec, pipeline).items():
        op = program.op(value)
        assert is_true(program, value, why), f"%{value}: {why}"
        if op.aggregate is None or op.aggregate.ref.name == "concat":
            assert (why == OTHERS_FUSE) == (op.steps[0].at in whole), f"%{value}: {why}"
        assert pipeline != "fused" or why not in (OTHERS_FUSE, OTHERS_REUSE)


@given(ANY)
@settings(max_examples=40)
def test_what_evaluation_does_in_one_pass_has_no_reason(spec: NetworkSpec) -> None:
    program = optimize(lower(spec), "inference")
    for value, why in reasons(spec, "inference").items():
        what = program.op(value).steps[0].what
        assert why not in (OTHERS_FUSE, OTHERS_REUSE, LONE_NORM), f"%{value}: {why}"
        assert not is_batch_norm(what)
        assert is_true(program, value, why), f"%{value}: {why}"


def test_what_the_fused_pipeline_fuses_is_not_its_own_fault() -> None:
    concat = reasons(network("concat"), "none")
    assert set(concat.values()) == {OTHERS_FUSE}
    depthwise = reasons(network("depthwise"), "none")
    assert set(depthwise.values()) == {OTHERS_FUSE}
    assert reasons(network("depthwise"), "fused") == reasons(network("concat"), "fused") == {}


def test_sums_that_the_fused_pipeline_builds_from_others() -> None:
    assert set(reasons(network("sum"), "none").values()) == {OTHERS_FUSE, OTHERS_REUSE, TWO}
    assert set(reasons(network("sum"), "fused").values()) <= {TWO}


def test_what_no_pipeline_fuses_keeps_its_reason() -> None:
    unit = {"name": "basic", "activation": "elu", "norm": "layer"}
    for pipeline in ("none", "default", "fused"):
        found = set(reasons(network("gated", unit=unit), pipeline).values())
        assert {
            "each gate reads the sum so far", "no kernel for the activation 'elu'",
            "no kernel for the norm 'layer'",
        } <= found  # fmt: skip
        assert found <= {
            "each gate reads the sum so far", "no kernel for the activation 'elu'",
            "no kernel for the norm 'layer'", OTHERS_FUSE,
        }  # fmt: skip


def test_sums_that_training_weakens_are_one_pass_in_evaluation() -> None:
    drops = NetworkSpec.model_validate(
        network("sum").model_dump() | {"drop": "stochastic_depth(survival=0.5)"}
    )
    assert "training draws which sources count" in reasons(drops, "fused").values()
    assert "training draws which sources count" not in reasons(drops, "inference").values()


@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
def test_the_last_line_says_why_kernels_do_not_run(pipeline: str) -> None:
    program = optimize(lower(network("depthwise")), pipeline)
    whole = program_report(program, plain="there is no C++ compiler")
    assert whole.splitlines()[-1] == (
        "# fused operations run as plain PyTorch here: there is no C++ compiler"
    )
    assert whole.splitlines()[:-1] == program_report(program).splitlines()
