"""What every pass is worth in its pipeline: what the pipeline moves, or computes, without it."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import pytest
from hypothesis import given, settings, strategies as st
from programs import any_network, network, read_once

from connsearch.cost.count import line_tally
from connsearch.ir import PIPELINES, Program, bytes_moved, lower, moved_in_evaluation, parse
from connsearch.ir.passes.partial_sums import partial_sums
from connsearch.ir.passes.pool_first import pool_first
from connsearch.ir.pipelines import INFERENCE, Pass
from connsearch.ir.program import Aggregate, Scale, Share
from connsearch.spec import NetworkSpec
from connsearch.spec.plan import Line
from strategies import JOINING, adding


def joining() -> st.SearchStrategy[NetworkSpec]:
    """Draw a network of any family, or one of deep blocks that join their sources."""
    return st.one_of(any_network(), adding(), adding(aggregations=JOINING, max_layers=7))


def without(pipeline: str, left_out: str) -> tuple[Pass, ...]:
    return tuple(rewrite for rewrite in PIPELINES[pipeline] if rewrite.__name__ != left_out)


def through(program: Program, passes: tuple[Pass, ...]) -> Program:
    return reduce(lambda made, rewrite: rewrite(made), passes, program)


def moved(program: Program, pipeline: str) -> int:
    if pipeline == INFERENCE:
        return moved_in_evaluation(program, folded=True)
    return bytes_moved(program, batch=1, bytes_per_element=1)


def macs(program: Program) -> int:
    """Return the multiply-accumulates of the convolutions that operations begin with."""
    found = 0
    for op in program.ops:
        shape = program.shape(op.reads[0])
        what = op.steps[0].what
        if not isinstance(what, Aggregate | Scale | Share):
            found += line_tally(Line((what,), shape, op.shape)).conv_macs
    return found


PAIRS = [(pipeline, rewrite.__name__) for pipeline, passes in PIPELINES.items() for rewrite in passes]
COSTLY = (
    "recompute",  # saves memory, and moves what it makes again: bounded in the tests of traffic
    "pool_first",  # saves multiply-accumulates; moves more where a convolution gives out fewer channels
)


@pytest.mark.parametrize(("pipeline", "name"), [pair for pair in PAIRS if pair[1] not in COSTLY])
def test_no_pipeline_moves_less_without_one_of_its_passes(pipeline: str, name: str) -> None:
    @given(joining())
    def check(spec: NetworkSpec) -> None:
        lowered = lower(spec)
        found, rest = through(lowered, PIPELINES[pipeline]), through(lowered, without(pipeline, name))
        keeps_less = name == "eliminate_concat" and pipeline != INFERENCE
        more = 4 * read_once(found) if keeps_less else 0  # gradients of a map, added to in place
        assert moved(found, pipeline) <= moved(rest, pipeline) + more

    check()


@given(joining())
def test_averaging_first_computes_less(spec: NetworkSpec) -> None:
    lowered = lower(spec)
    made = pool_first(lowered)
    assert made is lowered or macs(made) < macs(lowered)


def test_averaging_first_computes_a_quarter() -> None:
    lines = ["%1: 2x8x8 = conv(4, 2, kernel=1) <- %0", "%2: 2x4x4 = pool('avg') <- %1"]
    program = parse("\n".join(["program p: 4x8x8", *lines, "return h %2"]))
    assert 4 * macs(pool_first(program)) == macs(program) == 4 * 2 * 64


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_generated_networks_have_sums_to_be_rewritten(aggregation: str) -> None:
    """What other tests say of networks that add is said of few if nothing applies to most."""
    found: Counter[bool] = Counter()

    @given(adding(aggregations=[aggregation]))
    @settings(derandomize=True)
    def count(spec: NetworkSpec) -> None:
        lowered = lower(spec)
        found[partial_sums(lowered) is not lowered] += 1

    count()
    assert found[True] >= 10, found


@pytest.mark.parametrize(
    ("pipeline", "name", "topology", "aggregation", "unit", "most"),
    [
        ("fused", "partial_sums", "dense", "sum", "conv", 0.47),
        ("fused", "partial_sums", "dense", "mean", "conv", 0.57),
        ("fused", "partial_sums", "nearest(k=8)", "sum", "conv", 0.87),
        (INFERENCE, "partial_sums", "dense", "sum", "conv", 0.45),
        (INFERENCE, "fuse_norm_act", "dense", "depthwise", "bottleneck", 0.75),
        (INFERENCE, "fold_norms", "dense", "depthwise", "bottleneck", 0.95),
        (INFERENCE, "fuse_epilogues", "dense", "depthwise", "bottleneck", 0.95),
        (INFERENCE, "eliminate_concat", "dense", "concat", "dense_bottleneck", 0.7),
        (INFERENCE, "fuse_prologues", "dense", "concat", "dense_bottleneck", 0.7),
    ],
)
def test_a_pass_pays_in_its_pipeline(
    pipeline: str, name: str, topology: str, aggregation: str, unit: str, most: float
) -> None:
    lowered = lower(network(topology, aggregation, 24, unit=unit))
    found, rest = through(lowered, PIPELINES[pipeline]), through(lowered, without(pipeline, name))
    assert moved(found, pipeline) < most * moved(rest, pipeline)
