"""Rules over curves made by hand: what each bound lets go on, and what it ends."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from connsearch.errors import SpecError, StudyError
from connsearch.registry import Ref
from connsearch.search.pruning.replay import replay
from connsearch.search.pruning.rules import (
    PRUNERS,
    Curve,
    End,
    Pruned,
    Rule,
    make_pruner,
    median,
    successive_halving,
)

RULES = sorted(set(PRUNERS) - {"none"})


def curve(
    *errors: float, macs: int = 100, end: End = "whole", costs: tuple[float, ...] | None = None
) -> Curve:
    return Curve(macs, errors, (float(macs),) if costs is None else costs, end)


def peers(*errors: float) -> list[Curve]:
    """Trials of two epochs that have one error throughout."""
    return [curve(error, error) for error in errors]


def bare(**changes: Any) -> Rule:
    """The median rule without what protects a trial."""
    return median(**{"first_epoch": 1, "min_peers": 1, "band": 2.0, "dominated_by": 0, **changes})


# ---- the median ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "own", "bound"),
    [
        ((0.1, 0.2, 0.3), 0.2, None),  # a tie goes on
        ((0.1, 0.2, 0.3), 0.21, 0.2),
        ((0.1, 0.2, 0.3), 0.05, None),
        ((0.1, 0.3), 0.2, None),
        ((0.1, 0.3), 0.21, 0.2),  # the middle of two
        ((0.2, 0.2, 0.2, 0.9), 0.2, None),
        ((), 0.9, None),
    ],
)
def test_the_median_decides(others: tuple[float, ...], own: float, bound: float | None) -> None:
    found = bare()(curve(own), peers(*others))
    if bound is None:
        assert found is None
    else:
        stronger = sum(error < own for error in others)
        assert found == Pruned(1, own, pytest.approx(bound), len(others), stronger)


def test_errors_are_compared_at_the_same_epoch() -> None:
    others = [curve(0.6, 0.1), curve(0.7, 0.2)]
    assert bare()(curve(0.6), others) is None
    assert bare()(curve(0.6, 0.3), others) == Pruned(2, 0.3, pytest.approx(0.15), 2, 2)


def test_the_least_error_so_far_counts_on_both_sides() -> None:
    assert bare()(curve(0.1, 0.9), peers(0.2, 0.2)) is None
    found = bare()(curve(0.5, 0.15), [curve(0.1, 0.9)])
    assert found == Pruned(2, 0.15, 0.1, 1, 1)


def test_it_waits_for_its_first_epoch_and_for_enough_trials() -> None:
    late, many = bare(first_epoch=2), bare(min_peers=3)
    assert late(curve(0.9), peers(0.1)) is None
    assert late(curve(0.9, 0.9), peers(0.1)) is not None
    assert many(curve(0.9), peers(0.1, 0.1)) is None
    assert many(curve(0.9), peers(0.1, 0.1, 0.1)) is not None


@pytest.mark.parametrize(("macs", "counts"), [(50, True), (200, True), (49, False), (201, False)])
def test_a_band_is_a_factor_up_and_down(macs: int, counts: bool) -> None:
    found = bare()(curve(0.9), [curve(0.1, macs=macs)])
    assert (found is not None) == counts


def test_a_band_may_be_no_wider_than_one_cost() -> None:
    assert bare(band=1)(curve(0.9), [curve(0.1)]) is not None
    assert bare(band=1)(curve(0.9), [curve(0.1, macs=101)]) is None


def test_trials_that_diverged_count_as_the_worst() -> None:
    diverged = curve(0.05, end="diverged")
    assert bare()(curve(0.9), [*peers(0.1), diverged, diverged]) is None
    assert bare()(curve(0.9), [*peers(0.1, 0.1), diverged]) == Pruned(1, 0.9, 0.1, 3, 2)


def test_pruned_trials_count_as_the_worst_where_they_did_not_come() -> None:
    pruned = curve(0.2, end="pruned")
    others = [curve(0.3, 0.1), pruned, pruned]
    assert bare()(curve(0.25), others) == Pruned(1, 0.25, 0.2, 3, 2)
    assert bare()(curve(0.25, 0.25), others) is None


def test_half_are_pruned_and_not_half_of_the_rest_at_every_epoch() -> None:
    """Errors in no order, equal at all epochs: who is worse than the median is so from the first epoch on."""
    curves = [curve(*[error] * 12) for error in random.Random(0).choices(range(1000), k=200)]
    found = replay(bare(), curves)
    assert {*found.epochs} == {1, 12}
    assert 0.4 < found.pruned < 0.6


# ---- what protects a trial -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("stronger", "ends"), [(1, False), (2, True)])
def test_it_takes_enough_that_cost_no_more_and_err_less(name: str, stronger: int, ends: bool) -> None:
    rule = PRUNERS[name](first_epoch=1, min_peers=1, dominated_by=2)
    dearer = [curve(0.1, macs=101) for _ in range(9)]
    cheaper = [curve(0.1, macs=100) for _ in range(stronger)]
    as_bad = [curve(0.9, macs=99)]
    assert (rule(curve(0.9), [*dearer, *cheaper, *as_bad]) is not None) == ends


def test_every_cost_counts() -> None:
    own, small = curve(0.9, costs=(100, 7)), curve(0.1, costs=(100, 7))
    rule = bare(dominated_by=1)
    assert rule(own, [small]) is not None
    assert rule(own, [curve(0.1, costs=(100, 8))]) is None
    assert rule(own, [curve(0.1, costs=(101, 7))]) is None


def test_one_objective_has_no_costs() -> None:
    assert bare(dominated_by=1)(curve(0.9, costs=()), [curve(0.1, costs=(), macs=150)]) is not None


ERRORS = st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple)
CURVES = st.builds(
    curve, ERRORS, macs=st.integers(50, 250), end=st.sampled_from(["whole", "pruned", "diverged"])
).map(lambda made: Curve(made.macs, made.errors[0], made.costs, made.end))


@pytest.mark.parametrize("name", RULES)
@given(own=CURVES, others=st.lists(CURVES, max_size=8))
def test_what_nothing_dominates_is_never_pruned(name: str, own: Curve, others: list[Curve]) -> None:
    own = own.until(len(own.errors))
    found = PRUNERS[name](first_epoch=1, min_peers=1, dominated_by=1)(own, others)
    epoch, error = len(own.errors), min(own.errors)
    reached = [o for o in others if o.end == "whole" or (o.end == "pruned" and len(o.errors) >= epoch)]
    stronger = [o for o in reached if o.macs <= own.macs <= 2 * o.macs and min(o.errors[:epoch]) < error]
    if found is not None:
        assert found.dominated_by == len(stronger) >= 1
        assert found.val_error == error > found.bound
    assert PRUNERS[name](first_epoch=1, min_peers=1, dominated_by=1)(own, others[::-1]) == found


# ---- successive halving --------------------------------------------------------------------------------


def halving(**changes: Any) -> Rule:
    return successive_halving(**{"first_epoch": 2, "min_peers": 1, "dominated_by": 0, **changes})


@pytest.mark.parametrize(
    ("changes", "rungs"),
    [
        ({}, [2, 4, 8]),
        ({"first_epoch": 3}, [3, 6, 12]),
        ({"first_epoch": 1, "reduction": 3}, [1, 3, 9]),
        ({"first_epoch": 3, "reduction": 3}, [3, 9]),
    ],
)
def test_rungs_are_powers_apart(changes: dict[str, int], rungs: list[int]) -> None:
    good, rule = [curve(*[0.1] * 12)], halving(**changes)
    assert [e for e in range(1, 13) if rule(curve(*[0.9] * e), good) is not None] == rungs


@pytest.mark.parametrize(
    ("reduction", "n_better", "n_worse", "goes_on"),
    [
        (2, 1, 1, True), (2, 2, 1, False), (2, 2, 2, True), (2, 3, 2, False),
        (3, 0, 1, True), (3, 1, 1, False), (3, 1, 2, True), (3, 2, 3, False), (3, 1, 4, True),
        (4, 1, 2, False),
    ],
)  # fmt: skip
def test_one_in_so_many_goes_on(reduction: int, n_better: int, n_worse: int, goes_on: bool) -> None:
    others = peers(*[0.1] * n_better, *[0.9] * n_worse)
    assert (halving(reduction=reduction)(curve(0.5, 0.5), others) is None) == goes_on


def test_only_those_compete_that_reached_the_rung() -> None:
    out, here = curve(0.8, end="pruned"), curve(0.8, 0.8, end="pruned")
    assert halving()(curve(0.5, 0.5), [*peers(0.1, 0.1), out, out]) == Pruned(2, 0.5, 0.1, 2, 2)
    assert halving()(curve(0.5, 0.5), [*peers(0.1, 0.1), here, here]) is None
    diverged = curve(end="diverged")
    assert halving()(curve(0.5, 0.5), [*peers(0.1, 0.1), diverged, diverged]) is None
    assert halving(min_peers=3)(curve(0.5, 0.5), [*peers(0.1, 0.1), out]) is None


# ---- by name -------------------------------------------------------------------------------------------


def test_nothing_is_pruned_after_the_last_epoch() -> None:
    ref = Ref("median", (("dominated_by", 0), ("first_epoch", 1), ("min_peers", 1)))
    good = [curve(0.1, 0.1, 0.1)]
    assert make_pruner(ref, 3)(curve(0.9, 0.9), good) is not None
    assert make_pruner(ref, 3)(curve(0.9, 0.9, 0.9), good) is None
    assert make_pruner(ref)(curve(0.9, 0.9, 0.9), good) is not None
    assert make_pruner(Ref("none"), 1)(curve(0.9), good) is None


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_could_never_act_is_refused(name: str) -> None:
    make_pruner(Ref(name, (("first_epoch", 4),)), 5)
    message = (
        f"pruner '{name}' could never act: its first_epoch is 5, the last of a trial 5; lower first_epoch"
    )
    with pytest.raises(SpecError, match=f"^{re.escape(message)}"):
        make_pruner(Ref(name, (("first_epoch", 5),)), 5)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("parameter", "value", "low"),
    [("first_epoch", 0, 1), ("min_peers", 0, 1), ("dominated_by", -1, 0), ("band", 0.5, 1)],
)
def test_parameters_out_of_range(name: str, parameter: str, value: float, low: int) -> None:
    with pytest.raises(SpecError, match=f"^pruner '{name}': {parameter} must be {low} or more, got {value}$"):
        make_pruner(Ref(name, ((parameter, value),)))
    make_pruner(Ref(name, ((parameter, type(value)(low)),)))


def test_halving_needs_two() -> None:
    with pytest.raises(SpecError, match=r"^pruner 'successive_halving': reduction must be 2 or more, got 1$"):
        make_pruner(Ref("successive_halving", (("reduction", 1),)))


# ---- replay --------------------------------------------------------------------------------------------


def test_what_was_saved_and_lost() -> None:
    """The third trial is pruned after its first epoch, though it would have been the best in the end."""
    curves = [curve(0.4, 0.4, macs=100), curve(0.5, 0.2, macs=200), curve(0.6, 0.1, macs=200)]
    found = replay(
        make_pruner(Ref("median", (("dominated_by", 2), ("first_epoch", 1), ("min_peers", 2))), 2), curves
    )
    assert found.epochs == (2, 2, 1)
    assert found.saved == pytest.approx(1 / 6)
    assert found.pruned == pytest.approx(1 / 3)
    assert (found.front, found.front_lost) == (2, 1)
    assert found.hypervolume_lost == pytest.approx(0.0, abs=1e-6)  # at the dearest budget there is no width
    assert found.worst_regret == pytest.approx(0.1)
    assert found.regret == pytest.approx(0.1 / 200)


def test_hypervolume_lost_is_a_share() -> None:
    """Left are error 0.5 from 100 to 400 MACs, of 0.5 up to 200 and 0 from there."""
    curves = [curve(0.5, 0.5, macs=100), curve(0.9, 0.0, macs=200), curve(0.5, 0.9, macs=400)]
    found = replay(bare(band=4.0), curves)
    assert found.epochs == (2, 1, 2)
    assert found.hypervolume_lost == pytest.approx(1 / 3)
    assert found.regret == pytest.approx(0.25, abs=0.01)


def test_what_never_prunes_loses_nothing() -> None:
    curves = [curve(0.4, 0.3, macs=100), curve(0.2, 0.1, macs=200), curve(end="diverged")]
    found = replay(make_pruner(Ref("none")), curves)
    assert found.epochs == (2, 2, 0)
    assert (found.saved, found.pruned, found.front_lost, found.hypervolume_lost) == (0, 0, 0, 0)
    assert (found.regret, found.worst_regret) == (0, 0)


def test_only_whole_curves_can_be_replayed() -> None:
    message = r"^only whole curves can be replayed: record a study with pruner = 'none'$"
    for curves in ([], [curve(0.5, end="pruned")]):
        with pytest.raises(StudyError, match=message):
            replay(make_pruner(Ref("none")), curves)


def test_a_trial_that_was_pruned_says_why() -> None:
    why = Pruned(3, 0.5, 0.25, 12, 4)
    assert str(why) == "pruned after epoch 3: error 50.0 %, over 25.0 % of 12 trials"
    assert Pruned(**why.to_dict()) == why
    assert math.isinf(Curve(1, ()).at(1))
