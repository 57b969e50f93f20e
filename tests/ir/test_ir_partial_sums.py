"""Sums that are built from each other compute what they did, with fewer additions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st
from programs import n_additions, network, same, sums

from connsearch.ir import Program, lower, verify
from connsearch.ir.passes.partial_sums import partial_sums
from strategies import Draw


@st.composite
def sum_programs(draw: Draw) -> Program:
    """Draw sums and means of maps, of each other, equal ones, nested ones, some given out."""
    n_atoms = draw(st.integers(2, 6))
    joins: list[tuple[str, list[int]]] = []
    for value in range(n_atoms + 1, n_atoms + 1 + draw(st.integers(1, 6))):
        if joins and draw(st.integers(0, 2)) == 0:
            reads = set(draw(st.sampled_from(joins))[1]) | draw(
                st.sets(st.integers(1, value - 1), max_size=2)
            )
        else:
            reads = draw(st.sets(st.integers(1, value - 1), min_size=2, max_size=5))
        order = draw(st.permutations(sorted(reads)))
        joins.append((draw(st.sampled_from(["sum", "sum", "mean"])), order))
    kept = draw(st.sets(st.integers(n_atoms + 1, n_atoms + len(joins)), max_size=2))
    return sums(n_atoms, joins, kept=sorted(kept))


@given(sum_programs())
def test_sums_compute_what_they_did(program: Program) -> None:
    found = verify(partial_sums(verify(program)), after="partial_sums")
    assert same(found, program)
    assert n_additions(found) <= n_additions(program)


@given(sum_programs())
def test_nothing_is_left_for_a_second_run(program: Program) -> None:
    once = partial_sums(program)
    assert partial_sums(once) is once


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("n", [12, 40])
def test_a_layer_more_of_a_dense_block_adds_one_map_more(n: int, aggregation: str) -> None:
    program, deeper = lower(network("dense", aggregation, n)), lower(network("dense", aggregation, n + 1))
    assert n_additions(program) == n * (n + 1) // 2
    assert n_additions(partial_sums(deeper)) == n_additions(partial_sums(program)) + 1
    assert n_additions(partial_sums(program)) <= n + 20


@pytest.mark.parametrize("aggregation", ["sum", "mean"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_block_of_few_layers_stays(n: int, aggregation: str) -> None:
    program = lower(network("dense", aggregation, n))
    assert partial_sums(program) is program


@pytest.mark.parametrize(
    ("atoms", "joins", "after"),
    [
        pytest.param(2, [("sum", (1, 2))], 1, id="one sum"),
        pytest.param(3, [("sum", (1, 2, 3)), ("sum", (1, 2))], 2, id="nested, the longer first"),
        pytest.param(3, [("sum", (1, 2)), ("sum", (2, 1)), ("sum", (1, 2, 3))], 2, id="equal"),
        pytest.param(2, [("sum", (1, 2)), ("sum", (1, 2)), ("sum", (3, 4))], 2, id="the sum of equal sums"),
        pytest.param(3, [("sum", (1, 2)), ("sum", (3, 4))], 2, id="a sum of a sum"),
        pytest.param(2, [("sum", (1, 2)), ("sum", (1, 2, 3))], 3, id="a sum of a sum and of its terms"),
        pytest.param(4, [("sum", (1, 2, 3)), ("sum", (1, 2, 4))], 4, id="a pair that two have in common"),
        pytest.param(5, [("sum", (1, 2, i, i + 1)) for i in (3, 4)], 6, id="the same, of more terms"),
        pytest.param(6, [("sum", (1, 2, i, i + 1)) for i in (3, 4, 5)], 7, id="a pair that three have"),
        pytest.param(6, [("sum", (1, 2, i)) for i in (3, 4, 5, 6)], 8, id="a pair of sums of three"),
        pytest.param(9, [("sum", (1, 2, 3, i, i + 1)) for i in (4, 5, 6, 7, 8)], 12, id="three terms"),
        pytest.param(
            3, [("sum", (1, 2)), ("sum", (1, 2, 3)), ("sum", (3, 4))], 2, id="sums that come to be equal"
        ),
        pytest.param(3, [("mean", (1, 2)), ("sum", (1, 2))], 1, id="mean and sum of the same"),
        pytest.param(3, [("sum", (1, 2)), ("mean", (1, 2))], 1, id="sum and mean of the same"),
        pytest.param(3, [("mean", (1, 2)), ("mean", (1, 2, 3))], 3, id="means, nested"),
        pytest.param(3, [("mean", (1, 2)), ("sum", (1, 4))], 2, id="a sum of a mean"),
        pytest.param(
            3,
            [("sum", (2, 3)), ("mean", (1, 2, 3)), ("mean", (1, 4)), ("sum", (1, 4))],
            2,
            id="means of one sum",
        ),
        pytest.param(4, [("mean", (1, 2, 3)), ("mean", (1, 2, 4))], 4, id="means are one pass as they are"),
    ],
)
def test_additions(atoms: int, joins: list[tuple[str, tuple[int, ...]]], after: int) -> None:
    program = sums(atoms, joins)
    found = verify(partial_sums(program))
    assert n_additions(found) == after
    assert same(found, program)


def test_nested_means_share_a_sum() -> None:
    program = sums(10, [("mean", range(1, n)) for n in (9, 10, 11)])
    assert str(partial_sums(program)).splitlines()[11:17] == [
        "%11: 4x8x8 = aggregate.sum <- %1 %2 %3 %4 %5 %6 %7 %8",
        "%12: 4x8x8 = scale(0.125) <- %11",
        "%13: 4x8x8 = aggregate.sum <- %11 %9",
        "%14: 4x8x8 = scale(0.1111111111111111) <- %13",
        "%15: 4x8x8 = aggregate.sum <- %13 %10",
        "%16: 4x8x8 = scale(0.1) <- %15",
    ]


@pytest.mark.parametrize(("k", "n", "ratio"), [(5, 20, 0.7), (8, 20, 0.45)])
def test_neighbours_share_pairs(k: int, n: int, ratio: float) -> None:
    program = lower(network(f"nearest(k={k})", "sum", n))
    found = partial_sums(program)
    assert n_additions(found) < ratio * n_additions(program)
    assert same(found, program)


@pytest.mark.parametrize(
    ("topology", "aggregation"),
    [
        ("nearest(k=3)", "sum"),
        ("nearest(k=3)", "mean"),
        ("nearest(k=8)", "mean"),
        ("random_dag(p=0.5)", "mean"),
    ],
)
def test_one_pass_over_a_few_maps_stays(topology: str, aggregation: str) -> None:
    lowered = lower(network(topology, aggregation, 24))
    found = partial_sums(lowered)
    assert n_additions(found) >= n_additions(lowered) - 2  # the first layers are nested


def test_means_stay_whose_sums_would_pay_in_evaluation_alone() -> None:
    lowered = lower(network("nearest(k=6)", "mean", 10, unit="conv(order=post)"))
    assert partial_sums(lowered) is lowered


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3)])
def test_what_is_given_out_stays(values: tuple[int, ...]) -> None:
    program = sums(3, [("sum", (1, 2)), ("sum", (1, 2)), ("sum", values)], kept=[4, 5, 6])
    assert same(partial_sums(program), program)


@pytest.mark.parametrize("topology", ["dense", "nearest(k=20)", "random_dag(p=0.5)", "sparse"])
def test_a_hundred_layers_take_no_time(topology: str) -> None:
    program = lower(network(topology, "sum", 100))
    start = time.process_time()
    partial_sums(program)
    assert time.process_time() - start < 1
