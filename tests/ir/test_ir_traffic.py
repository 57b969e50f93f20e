"""The elements that a program moves: its formulas, and what every pass is worth by them."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from programs import TRAINING, any_network, network, read_once

from connsearch.errors import SpecError
from connsearch.ir import Program, lower, optimize, parse
from connsearch.ir.traffic import Traffic, bytes_moved, op_traffic, saved_ahead
from connsearch.spec import NetworkSpec

COSTLY = ("eliminate_concat", "recompute")  # for memory; the first pays once statistics are shared


def moved(program: Program) -> int:
    return bytes_moved(program, batch=1, bytes_per_element=1)


def through(program: Program, *names: str) -> Program:
    return reduce(lambda made, name: TRAINING[name](made), names, program)


X = 4 * 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("4x8x8 = norm('batch', 4)", Traffic(2, 1, 4, 1)),
        ("4x8x8 = norm('channel', 4)", Traffic(3, 2, 5, 2)),
        ("4x8x8 = act('relu')", Traffic(1, 1, 2, 1)),
        ("8x8x8 = conv(4, 8)", Traffic(1, 2, 5, 1)),
        ("4x16x16 = deconv(4, 4)", Traffic(1, 4, 9, 1)),
        ("4x16x16 = upsample('nearest')", Traffic(1, 4, 4, 1)),
        ("2x8x8 = slice(0, 2)", Traffic(0.5, 0.5, 0.5, 1)),
        ("8x4x4 = subsample(4, 8)", Traffic(0.25, 0.5, 0.25, 1)),
        ("4x4x4 = pool('max')", Traffic(1, 0.75, 0.75, 1)),
        ("4x4x4 = pool('avg')", Traffic(1, 0.25, 0.25, 1)),
        ("4x8x8 = scale(0.5)", Traffic(1, 1, 1, 1)),
        ("4x8x8 = position(4, 8, 8)", Traffic(1, 1, 1, 0)),
        ("4x8x8 = norm('batch', 4) | act('relu')", Traffic(1, 1, 2, 1)),
        ("8x8x8 = norm('batch', 4) | act('relu') | conv(4, 8)", Traffic(2, 3, 8, 3)),
    ],
)
def test_one_input(line: str, expected: Traffic) -> None:
    text = f"program p: 4x8x8\n%1: 4x8x8 = act('elu') <- %0\n%2: {line} <- %1\nreturn h %2"
    assert op_traffic(parse(text), 2) == Traffic(
        *(int(X * n) for n in (expected.read, expected.written, expected.back_read, expected.back_written))
    )


AGGREGATIONS = {  # of three sources, in maps: as in the definition, and in one pass with shared sources
    "sum": (Traffic(4, 2), Traffic(3, 1)),
    "mean": (Traffic(5, 3, 1, 1), Traffic(3, 1)),
    "weighted": (Traffic(5, 3, 12, 6), Traffic(3, 1)),
    "depthwise(form=paper)": (Traffic(6, 4, 13, 6), Traffic(3, 1, 1)),
    "depthwise": (Traffic(10, 5, 12, 3), Traffic(3, 1)),
    "gated": (Traffic(10, 6, 30, 14), Traffic(10, 6, 30, 14)),
}
GATHERED = {  # the gradient of a source that two such readers read, and nothing else
    "sum": (Traffic(0, 0, 2, 1), Traffic(0, 0, 2, 1)),
    "mean": (Traffic(0, 0, 2, 1), Traffic(0, 0, 2, 1)),
    "weighted": (Traffic(0, 0, 2, 1), Traffic(0, 0, 3, 1)),
    "depthwise(form=paper)": (Traffic(0, 0, 2, 1), Traffic(0, 0, 3, 1)),
    "depthwise": (Traffic(0, 0, 2, 1), Traffic(1, 0, 3, 1)),
    "gated": (Traffic(0, 0, 2, 1), Traffic(0, 0, 2, 1)),
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_three_sources(aggregation: str) -> None:
    sources = "".join(f"%{i}: 4x8x8 = conv(4, 4) <- %0\n" for i in (1, 2, 3))
    sums = "".join(f"%{i}: 4x8x8 = aggregate.{aggregation} <- %1 %2 %3\n" for i in (4, 5))
    program = parse(f"program p: 4x8x8\n{sources}{sums}return a %4, b %5")
    conv = Traffic(1, 1, 2)  # of the image, which has no gradient
    found = [program, through(program, "share_statistics", "pull_backward")]
    for made, joined, gathered in zip(found, AGGREGATIONS[aggregation], GATHERED[aggregation], strict=True):
        assert op_traffic(made, 4) == joined * X
        assert op_traffic(made, 1) == (conv + gathered) * X


def test_gates() -> None:
    gates = "%1: 4x8x8 = act('elu') <- %0\n%2: 4x1x1 = global_pool() <- %1\n%3: 2x1x1 = linear(4, 2) <- %2\n"
    both = "%4: 4x8x8 = aggregate.routed[2.0 -] <- %1 %1 %3\n"
    program = parse(f"program p: 4x8x8\n{gates}{both}return a %4")
    assert op_traffic(program, 4) == Traffic(3, 2, 4, 2) * X
    assert op_traffic(through(program, "pull_backward"), 4) == Traffic(2, 1, 2) * X


def test_concatenations() -> None:
    text = "program p: 4x8x8\n%1: 4x8x8 = act('elu') <- %0\n%2: 8x8x8 = aggregate.concat <- %1 %1\n"
    program = parse(f"{text}%3: 8x8x8 = norm('batch', 8) | act('relu') <- %2\nreturn a %3")
    assert op_traffic(program, 2) == Traffic(2, 2) * X
    found = through(program, "eliminate_concat", "share_statistics")
    assert op_traffic(found, 2) == Traffic(2, 2, 6, 2) * X
    assert op_traffic(found, 1) == Traffic(1 + 1, 1, 2 + 2, 1 + 2) * X


def test_bytes() -> None:
    program = lower(network("dense", "sum"))
    assert bytes_moved(program, batch=3) == 12 * moved(program)
    assert bytes_moved(program, batch=1, bytes_per_element=2) == 2 * moved(program)
    forward = bytes_moved(program, batch=1, bytes_per_element=1, training=False)
    assert forward == sum(op_traffic(program, value).forward for value in range(1, len(program.ops) + 1))
    assert 0 < forward < moved(program)


@pytest.mark.parametrize("n_sources", [1, 2, 3, 7, 24])
@pytest.mark.parametrize("n_readers", [1, 2, 3, 4])
def test_sums_begun_ahead(n_sources: int, n_readers: int) -> None:
    """Step by step, in maps: each reader by itself, and then one pass and what each does to end its sum."""
    alone = sum(n_sources + 1 for _ in range(n_readers))  # reads its sources, writes its sum
    ahead = n_sources + n_readers  # reads them once, writes what is begun
    ahead += sum(1 + 1 for _ in range(n_readers))  # reads what was begun, writes its sum
    assert saved_ahead(n_sources, n_readers) == alone - ahead


WORTH = [  # a network, the passes before, and those that must pay
    ("dense", "sum", [], ["partial_sums"]),
    ("nearest(k=4)", "sum", [], ["partial_sums"]),
    ("dense", "sum", ["partial_sums"], ["fuse_norm_act"]),
    ("dense", "concat", [], ["fuse_norm_act"]),
    ("dense", "depthwise", [], ["fuse_norm_act"]),
    ("dense", "depthwise", ["fuse_norm_act"], ["fuse_epilogues"]),
    ("dense", "weighted", ["fuse_norm_act"], ["fuse_epilogues"]),
    ("dense", "routed", ["fuse_norm_act"], ["fuse_epilogues"]),
    ("dense", "concat", ["fuse_norm_act"], ["eliminate_concat", "share_statistics"]),
    ("dense", "depthwise", ["fuse_norm_act", "fuse_epilogues"], ["share_statistics"]),
    ("dense", "depthwise(form=paper)", ["fuse_norm_act", "fuse_epilogues"], ["pull_backward"]),
    ("dense", "routed", ["fuse_norm_act", "fuse_epilogues"], ["pull_backward"]),
]


@pytest.mark.parametrize(("topology", "aggregation", "before", "passes"), WORTH)
def test_a_pass_pays_where_it_is_meant_to(
    topology: str, aggregation: str, before: list[str], passes: list[str]
) -> None:
    program = through(lower(network(topology, aggregation, 6)), *before)
    assert moved(through(program, *passes)) < 0.98 * moved(program)


@pytest.mark.parametrize(
    ("aggregation", "ratio"),
    [("sum", 0.4), ("concat", 0.65), ("depthwise", 0.4), ("depthwise(form=paper)", 0.4)],
)
def test_a_dense_block_moves_a_fraction(aggregation: str, ratio: float) -> None:
    program = lower(network("dense", aggregation, 16))
    assert moved(optimize(program, "default")) < ratio * moved(program)


@given(any_network())
def test_no_pass_moves_more(spec: NetworkSpec) -> None:
    program = lower(spec)
    for name, rewrite in TRAINING.items():
        before, program = program, rewrite(program)
        if name not in COSTLY:
            assert moved(program) <= moved(before), name


@given(any_network())
def test_concatenations_pay_unless_a_source_has_one_reader(spec: NetworkSpec) -> None:
    program = through(lower(spec), "partial_sums", "fuse_norm_act", "fuse_epilogues")
    found = through(program, "eliminate_concat", "share_statistics")
    assert moved(found) <= moved(program) + 4 * read_once(found)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_folded_has_no_training_step(*, training: bool) -> None:
    program = optimize(lower(network("dense", "concat")), "inference")
    message = (
        r"^%3: 4x8x8 = conv.* \| act.* has no training step: ask moved_in_evaluation\(program, folded=True\)$"
    )
    with pytest.raises(SpecError, match=message):
        bytes_moved(program, batch=1, training=training)


@given(any_network())
def test_recomputing_makes_a_map_again_for_each_convolution(spec: NetworkSpec) -> None:
    program = through(lower(spec), "partial_sums", "fuse_norm_act", "fuse_epilogues", "eliminate_concat")
    found = TRAINING["recompute"](program)
    made_again = [op.steps[-1].what for op in found.ops if len(op.steps) > 1 and op.kinds[-1] == "conv"]
    most = sum(2 * what.in_channels * program.image.size for what in made_again)  # type: ignore[union-attr]
    assert moved(found) <= moved(program) + most
