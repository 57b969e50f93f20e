"""The least that a network moves: by hand, and below what every program of it moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from programs import TRAINING, any_network, dropping_network, network, small_presets

from connsearch.ir import Program, bytes_moved, lower, optimize, parse
from connsearch.ir.evaluation import moved_in_evaluation
from connsearch.ir.floor import least_moved
from connsearch.spec import NetworkSpec

X = 4 * 64  # elements of a map of 4 x 8 x 8


def program(*lines: str) -> Program:
    """A program that makes two maps of an image, then the lines, the last of which it gives out."""
    made = ["%1: 4x8x8 = conv(4, 4) <- %0", "%2: 4x8x8 = conv(4, 4) <- %1", *lines]
    return parse("\n".join(["program p: 4x8x8", *made, f"return h %{len(made)}"]))


CASES = {  # lines, and the least in maps: forward, backward, evaluation
    # forward: each convolution reads a map and writes one. Backward: the gradients of %1 and %2 are read,
    # the image and %1 read again, the gradient of %1 written
    "chain": ((), 4, 5, 4),
    # read and written; the sum's gradient is that of both, %1 has another from %2: one pass
    "sum": (("%3: 4x8x8 = aggregate.sum <- %1 %2",), 4 + 3, 5, 4 + 3),
    # gradients of %1, %2, %3 read, of %1 and %2 written; the image, %1 and %2 read again
    "weighted": (("%3: 4x8x8 = aggregate.weighted <- %1 %2",), 4 + 3, 3 + 2 + 3, 4 + 3),
    # neither norm nor activation moves anything of its own; a convolution of %2 follows
    "norm": (
        (
            "%3: 4x8x8 = norm('batch', 4) <- %2",
            "%4: 4x8x8 = act('relu') <- %3",
            "%5: 4x8x8 = conv(4, 4) <- %4",
        ),
        4 + 2,
        5 + 3,
        4 + 2,
    ),
    # the concatenation is not made; one pass over both gradients
    "concat": (
        ("%3: 8x8x8 = aggregate.concat <- %1 %2", "%4: 4x8x8 = conv(8, 4) <- %3"),
        4 + 3,
        5 + 3,
        4 + 3,
    ),
    # in evaluation the sum is made where it is read; in training it is written and read
    "weighted, read once": (
        ("%3: 4x8x8 = aggregate.weighted <- %1 %2", "%4: 4x8x8 = conv(4, 4) <- %3"),
        4 + 3 + 2,
        8 + 3,
        4 + 3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_by_hand(name: str) -> None:
    lines, forward, backward, evaluation = CASES[name]
    found = program(*lines)
    assert least_moved(found) == (forward + backward) * X
    assert least_moved(found, training=False) == evaluation * X


def test_a_block_reads_a_gradient_again_for_every_further_pair() -> None:
    n = 6
    maps = [f"%{i}: 4x8x8 = conv(4, 4) <- %0" for i in range(1, n + 1)]
    read = " ".join(f"%{i}" for i in range(1, n + 1))
    sums = [f"%{n + i}: 4x8x8 = aggregate.weighted <- {read}" for i in range(1, n + 1)]
    outputs = ", ".join(f"h{i} %{n + i}" for i in range(1, n + 1))
    found = parse("\n".join(["program p: 4x8x8", *maps, *sums, f"return {outputs}"]))
    forward = n * 2 + n * (n + 1)
    backward = 2 * n + n + (1 + n) + (n * n - 2 * n)  # read, written, values read again, further pairs
    assert least_moved(found) == (forward + backward) * X


def within(spec: NetworkSpec) -> None:
    lowered = lower(spec)
    least = least_moved(lowered)
    for made in (lowered, *(optimize(lowered, name) for name in ("default", "fused"))):
        assert least <= bytes_moved(made, batch=1, bytes_per_element=1)
    defined = moved_in_evaluation(lowered, folded=False)
    folded = moved_in_evaluation(optimize(lowered, "inference"), folded=True)
    assert least_moved(lowered, training=False) <= min(defined, folded)


@given(any_network())
def test_no_program_of_a_network_moves_less(spec: NetworkSpec) -> None:
    within(spec)


@given(dropping_network())
def test_no_program_of_a_network_that_drops_moves_less(spec: NetworkSpec) -> None:
    within(spec)


def test_no_pass_moves_less_for_any_small_preset() -> None:
    for lowered in small_presets():
        least, made = least_moved(lowered), lowered
        for rewrite in TRAINING.values():
            made = rewrite(made)
            assert least <= bytes_moved(made, batch=1, bytes_per_element=1), (lowered.name, rewrite)


def test_the_fused_pipeline_comes_near_for_a_deep_block() -> None:
    lowered = lower(network("dense", "depthwise", n_layers=24, unit="bottleneck"))
    least = least_moved(lowered)
    assert bytes_moved(optimize(lowered, "fused"), batch=1, bytes_per_element=1) < 2 * least
    assert bytes_moved(lowered, batch=1, bytes_per_element=1) > 5 * least


EVALUATION = {  # a last line, and what it moves in maps as defined, and folded
    "4x8x8 = norm('batch', 4) <- %2": (2, 2),
    "4x8x8 = norm('channel', 4) <- %2": (5, 5),
    "4x8x8 = act('relu') <- %2": (2, 2),
    "4x8x8 = aggregate.sum <- %1 %2 %2": (6, 4),
    "4x8x8 = aggregate.depthwise <- %1 %2": (4 * 2 - 2 + 2 * 2 - 1 - 2, 3),
    "4x8x8 = aggregate.gated <- %1 %2": (8, 8),
    "2x8x8 = slice(0, 2) <- %2": (1, 1),
}


@pytest.mark.parametrize("line", EVALUATION)
def test_evaluation_by_hand(line: str) -> None:
    found = program(f"%3: {line}")
    defined, folded = EVALUATION[line]
    assert moved_in_evaluation(found, folded=False) == (4 + defined) * X
    assert moved_in_evaluation(found, folded=True) == (4 + folded) * X


def test_the_inference_pipeline_moves_each_operand_and_value_once() -> None:
    found = optimize(lower(network("dense", "depthwise", unit="bottleneck")), "inference")
    maps = sum(sum(found.shape(s).size for s in op.sources) + op.shape.size for op in found.ops)
    assert moved_in_evaluation(found, folded=True) == maps
