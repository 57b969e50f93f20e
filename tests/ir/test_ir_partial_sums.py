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
def test_a_second_run_never_adds_more(program: Program) -> None:
    once = partial_sums(program)
    twice = partial_sums(once)
    assert n_additions(twice) <= n_additions(once)
    assert same(twice, program)


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_a_dense_block_adds_one_map_for_each_layer(n: int) -> None:
    program = lower(network("dense", "sum", n))
    assert n_additions(program) == n * (n + 1) // 2
    assert n_additions(partial_sums(program)) == n


@pytest.mark.parametrize(
    ("atoms", "joins", "after"),
    [
        pytest.param(2, [("sum", (1, 2))], 1, id="one sum"),
        pytest.param(3, [("sum", (1, 2, 3)), ("sum", (1, 2))], 2, id="nested, the longer first"),
        pytest.param(3, [("sum", (1, 2)), ("sum", (2, 1)), ("sum", (1, 2, 3))], 2, id="equal"),
        pytest.param(2, [("sum", (1, 2)), ("sum", (1, 2)), ("sum", (3, 4))], 2, id="the sum of equal sums"),
        pytest.param(3, [("sum", (1, 2)), ("sum", (3, 4))], 2, id="a sum of a sum"),
        pytest.param(2, [("sum", (1, 2)), ("sum", (1, 2, 3))], 2, id="a sum of a sum and of its terms"),
        pytest.param(4, [("sum", (1, 2, 3)), ("sum", (1, 2, 4))], 3, id="a pair in common"),
        pytest.param(6, [("sum", (1, 2, 3, 4)), ("sum", (1, 2, 3, 5)), ("sum", (1, 2, 3, 6))], 5, id="three"),
        pytest.param(3, [("mean", (1, 2)), ("sum", (1, 2))], 1, id="mean and sum of the same"),
        pytest.param(3, [("sum", (1, 2)), ("mean", (1, 2))], 1, id="sum and mean of the same"),
        pytest.param(3, [("mean", (1, 2)), ("mean", (1, 2, 3))], 2, id="means, nested"),
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
    program = sums(3, [("mean", (1, 2)), ("mean", (1, 2, 3))])
    assert str(partial_sums(program)).splitlines()[4:8] == [
        "%4: 4x8x8 = aggregate.sum <- %1 %2",
        "%5: 4x8x8 = scale(0.5) <- %4",
        "%6: 4x8x8 = aggregate.sum <- %4 %3",
        "%7: 4x8x8 = scale(0.3333333333333333) <- %6",
    ]


@pytest.mark.parametrize(("k", "n"), [(4, 12), (5, 20)])
def test_neighbours_share_pairs(k: int, n: int) -> None:
    program = lower(network(f"nearest(k={k})", "sum", n))
    found = partial_sums(program)
    assert n_additions(found) < 0.75 * n_additions(program)
    assert same(found, program)


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
