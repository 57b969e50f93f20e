"""What holds of every pass, and what each one makes of a small program, as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from programs import TRAINING, network

from connsearch.ir import PIPELINES, Op, Program, lower, optimize, parse
from connsearch.ir.pipelines import Pass
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.spec.aggregations import Aggregation, register_aggregation
from strategies import specs

BEFORE: dict[str, str] = {
    "partial_sums": """
program sums: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = aggregate.sum @b.aggregation <- %0 %1
%3: 4x8x8 = conv(4, 4) @b.conv1 <- %2
%4: 4x8x8 = aggregate.sum @c.aggregation <- %0 %1 %3
%5: 4x8x8 = conv(4, 4) @c.conv1 <- %4
%6: 4x8x8 = aggregate.sum @d.aggregation <- %0 %1 %5
return head %6
""",
    "fuse_norm_act": """
program norms: 4x8x8
%1: 4x8x8 = norm('batch', 4) @a.norm1 <- %0
%2: 4x8x8 = act('relu') @a.act1 <- %1
%3: 4x8x8 = norm('batch', 4) @b.norm1 <- %2
%4: 4x8x8 = act('elu') @b.act1 <- %3
return head %4
""",
    "fuse_epilogues": """
program epilogues: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = aggregate.depthwise @b.aggregation <- %0 %1
%3: 4x8x8 = norm('batch', 4) @b.norm1 | act('relu') @b.act1 <- %2
%4: 4x8x8 = aggregate.sum @c.aggregation <- %0 %3
%5: 4x8x8 = norm('batch', 4) @c.norm1 <- %4
return head %5
""",
    "eliminate_concat": """
program concatenations: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 8x8x8 = aggregate.concat @b.aggregation <- %0 %1
%3: 8x8x8 = norm('batch', 8) @b.norm1 | act('relu') @b.act1 <- %2
%4: 4x8x8 = conv(8, 4) @b.conv1 <- %3
%5: 8x8x8 = aggregate.concat @c.aggregation <- %1 %4
%6: 4x8x8 = conv(8, 4) @c.conv1 <- %5
return head %6
""",
    "recompute": """
program convolutions: 4x8x8
%1: 4x8x8 = norm('batch', 4) @a.norm1 | act('relu') @a.act1 <- %0
%2: 4x8x8 = conv(4, 4) @a.conv1 <- %1
%3: 8x8x8 = aggregate.concat @b.aggregation | norm('batch', 8) @b.norm1 <- %0 %2
%4: 4x8x8 = conv(8, 4) @b.conv1 <- %3
%5: 4x8x8 = norm('layer', 4) @c.norm1 <- %4
%6: 4x8x8 = conv(4, 4) @c.conv1 <- %5
return head %6
""",
    "share_statistics": """
program statistics: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = aggregate.depthwise @b.aggregation <- %0 %1
%3: 4x8x8 = conv(4, 4) @b.conv1 <- %2
%4: 8x8x8 = aggregate.concat @c.aggregation | norm('batch', 8) @c.norm1 <- %1 %3
return head %4
""",
    "pull_backward": """
program gradients: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = aggregate.depthwise(form=paper) @b.aggregation <- %0 %1
%3: 4x8x8 = conv(4, 4) @b.conv1 <- %2
%4: 4x8x8 = aggregate.depthwise(form=paper) @c.aggregation <- %0 %1 %3
%5: 4x8x8 = aggregate.sum @d.aggregation <- %3 %4
return head %5
""",
}
FAMOUS = {  # pairs of topology and aggregation, and the unit that goes with them
    "resnet": ("dense", "sum", "conv"),
    "densenet": ("dense", "concat", "dense_bottleneck(inner=2)"),
    "sparsenet": ("sparse", "concat", "conv"),
    "delugenet": ("dense", "depthwise", "bottleneck"),
    "randomly wired": ("random_dag(p=0.5)", "weighted(activation=sigmoid)", "conv"),
    "cross-connected": ("dense", "routed", "conv"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_a_pass_does(name: str, golden: Callable[[str, str], None]) -> None:
    before = parse(BEFORE[name])
    golden(name, f"{before}\n\n{name} makes of it\n\n{TRAINING[name](before)}")


@pytest.mark.parametrize("name", FAMOUS)
def test_famous_networks(name: str, golden: Callable[[str, str], None]) -> None:
    topology, aggregation, unit = FAMOUS[name]
    program = lower(network(topology, aggregation, unit=unit))
    golden(name.replace(" ", "_"), f"{program}\n\nfused\n\n{optimize(program)}")


@pytest.mark.parametrize("name", TRAINING)
def test_what_a_pass_has_done_is_not_done_again(name: str) -> None:
    once = TRAINING[name](parse(BEFORE[name]))
    assert TRAINING[name](once) is once


@settings(max_examples=40)
@given(specs(own_graph=False))
def test_where_nothing_applies_the_program_itself_is_returned(spec: NetworkSpec) -> None:
    program = lower(spec)
    for rewrite in TRAINING.values():
        found = rewrite(program)
        assert found is program or found != program
        program = found


def test_nothing_applies_to_a_program_of_one_convolution() -> None:
    program = parse("program p: 4x8x8\n%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0\nreturn head %1")
    for rewrite in TRAINING.values():
        assert rewrite(program) is program


@pytest.fixture
def opaque() -> Iterator[str]:
    @register_aggregation("first")
    @dataclass(frozen=True, kw_only=True)
    class First(Aggregation):
        """x = h_1."""

    yield "first"
    AGGREGATIONS.unregister("first")


def test_an_aggregation_of_ones_own_is_left_alone(opaque: str) -> None:
    program = lower(network("dense", opaque, 4))
    for pipeline in PIPELINES:
        assert _aggregations(optimize(program, pipeline)) == _aggregations(program)


def _aggregations(program: Program) -> list[Op]:
    return [Op(op.steps, (), op.shape) for op in program.ops if op.aggregate is not None]


@pytest.mark.parametrize("aggregation", ["sum", "mean", "concat", "depthwise", "routed"])
def test_a_thousand_operations_take_no_time(aggregation: str) -> None:
    program = lower(network("dense", aggregation, 140))
    assert len(program.ops) > 900
    passes: tuple[Pass, ...] = PIPELINES["fused"]
    times = []
    for _ in range(3):
        start, rewritten = time.process_time(), program
        for rewrite in passes:
            rewritten = rewrite(rewritten)
        times.append(time.process_time() - start)
    assert min(times) < 0.7
