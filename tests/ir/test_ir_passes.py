"""What holds of every pass, and what each one makes of a small program, as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given, strategies as st
from programs import any_network, network

from connsearch.ir import PIPELINES, Op, Program, lower, optimize, parse, verify
from connsearch.ir.pipelines import PASSES, Pass
from connsearch.ir.program import Share
from connsearch.spec import AGGREGATIONS, NetworkSpec
from connsearch.spec.aggregations import Aggregation, register_aggregation
from strategies import adding

BEFORE: dict[str, str] = {
    "partial_sums": """
program sums: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = aggregate.sum @b.aggregation <- %0 %1
%3: 4x8x8 = conv(4, 4) @b.conv1 <- %2
%4: 4x8x8 = aggregate.sum @c.aggregation <- %0 %1 %3
%5: 4x8x8 = conv(4, 4) @c.conv1 <- %4
%6: 4x8x8 = aggregate.sum @d.aggregation <- %0 %1 %3 %5
%7: 4x8x8 = conv(4, 4) @d.conv1 <- %6
%8: 4x8x8 = aggregate.sum @e.aggregation <- %0 %1 %7
return head %8
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
    "fold_norms": """
program constants: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 4x8x8 = norm('batch', 4) @a.norm1 | act('relu') @a.act1 <- %1
%3: 4x8x8 = depthwise_conv(4) @b.conv1 <- %2
%4: 4x8x8 = norm('batch', 4) @b.norm1 <- %3
%5: 4x8x8 = conv(4, 4) @c.conv1 <- %4
%6: 4x8x8 = act('elu') @c.act1 <- %5
%7: 4x8x8 = conv(4, 4) @d.conv1 <- %6
%8: 4x8x8 = norm('batch', 4) @d.norm1 <- %7
%9: 4x8x8 = aggregate.sum @e.aggregation <- %7 %8
return head %9
""",
    "fuse_prologues": """
program pixels: 4x8x8
%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0
%2: 8x8x8 = aggregate.concat @b.aggregation | norm('batch', 8) @b.norm1 | act('relu') @b.act1 <- %0 %1
%3: 4x8x8 = conv(8, 4, kernel=1) @b.conv1 | norm('batch', 4) @b.norm2 <- %2
%4: 4x8x8 = aggregate.depthwise @c.aggregation | norm('batch', 4) @c.norm1 <- %1 %3
%5: 4x8x8 = conv(4, 4, kernel=1) @c.conv1 <- %4
%6: 4x8x8 = norm('batch', 4) @d.norm1 <- %5
%7: 4x8x8 = conv(4, 4) @d.conv1 <- %6
%8: 4x8x8 = norm('batch', 4) @e.norm1 <- %7
%9: 4x4x4 = conv(4, 4, kernel=1, stride=2) @e.conv1 <- %8
return head %9
""",
    "pool_first": """
program averages: 4x8x8
%1: 2x8x8 = conv(4, 2, kernel=1) @a.conv1 <- %0
%2: 2x4x4 = pool('avg') @a.pool1 <- %1
%3: 2x4x4 = conv(2, 2, kernel=1) @b.conv1 <- %2
%4: 2x2x2 = pool('max') @b.pool1 <- %3
%5: 2x2x2 = conv(2, 2) @c.conv1 <- %4
%6: 2x1x1 = pool('avg') @c.pool1 <- %5
return head %6
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
    golden(name, f"{before}\n\n{name} makes of it\n\n{PASSES[name](before)}")


def test_every_pass_has_a_program() -> None:
    assert set(BEFORE) == set(PASSES)


@pytest.mark.parametrize("name", FAMOUS)
def test_famous_networks(name: str, golden: Callable[[str, str], None]) -> None:
    topology, aggregation, unit = FAMOUS[name]
    program = lower(network(topology, aggregation, unit=unit))
    golden(name.replace(" ", "_"), f"{program}\n\nfused\n\n{optimize(program)}")


@pytest.mark.parametrize("pipeline", ["default", "inference"])
def test_a_famous_network_by_other_pipelines(pipeline: str, golden: Callable[[str, str], None]) -> None:
    texts = []
    for name in ("densenet", "delugenet"):
        topology, aggregation, unit = FAMOUS[name]
        texts.append(str(optimize(lower(network(topology, aggregation, unit=unit)), pipeline)))
    golden(f"pipeline_{pipeline}", "\n\n".join(texts))


@pytest.mark.parametrize("name", BEFORE)
def test_what_a_pass_has_done_is_not_done_again(name: str) -> None:
    before = parse(BEFORE[name])
    once = PASSES[name](before)
    assert once != before
    assert PASSES[name](once) is once


@given(st.one_of(any_network(), adding()))
@pytest.mark.parametrize("pipeline", sorted(PIPELINES))
def test_in_a_pipeline_a_pass_has_nothing_to_do_twice(pipeline: str, spec: NetworkSpec) -> None:
    program = lower(spec)
    for rewrite in PIPELINES[pipeline]:
        found = rewrite(program)
        assert found is program or found != program
        assert rewrite(found) is found
        program = found


@pytest.mark.parametrize("name", BEFORE)
def test_nothing_applies_to_a_program_of_one_convolution(name: str) -> None:
    program = parse("program p: 4x8x8\n%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0\nreturn head %1")
    assert PASSES[name](program) is program


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("%2: 2x4x4 = pool('avg', 3, 2, 1) <- %1\nreturn h %2", id="padding is averaged, too"),
        pytest.param("%2: 2x8x8 = pool('avg', 1, 1) <- %1\nreturn h %2", id="as many pixels"),
        pytest.param("%2: 2x4x4 = pool('max') <- %1\nreturn h %2", id="a maximum"),
        pytest.param("%2: 2x4x4 = pool('avg') <- %1\nreturn a %1, h %2", id="given out"),
        pytest.param(
            "%2: 2x4x4 = pool('avg') <- %1\n%3: 2x4x4 = pool('max') <- %1\nreturn a %2, b %3",
            id="two readers",
        ),
    ],
)
def test_convolutions_that_pools_cannot_go_before(lines: str) -> None:
    program = verify(parse(f"program p: 4x8x8\n%1: 2x8x8 = conv(4, 2, kernel=1) <- %0\n{lines}"))
    assert PASSES["pool_first"](program) is program


def test_statistics_are_added_to_what_is_shared_already() -> None:
    sources = "%1: 4x8x8 = conv(4, 4) @a.conv1 <- %0\n%2: 4x8x8 = conv(4, 4) @b.conv1 <- %0\n"
    weighed = "%3: 4x8x8 = aggregate.weighted @c.aggregation <- %1 %2\n"
    concat = (
        "%4: 8x8x8 = aggregate.concat @d.aggregation <- %1 %2\n%5: 8x8x8 = norm('batch', 8) @d.norm1 <- %4\n"
    )
    program = parse(f"program p: 4x8x8\n{sources}{weighed}{concat}return a %3, b %5")
    orders = list(permutations(("pull_backward", "eliminate_concat", "share_statistics")))
    found = {reduce(lambda made, name: PASSES[name](made), order, program) for order in orders[:5]}
    assert {made.op(1).shared for made in found} == {Share(stats=True)}


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
