"""Budgets are met by construction: never exceeded, nearly used up, refused only when truly impossible."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from connsearch.cost import Budget, CostModel, NetworkCost, fit_width, network_cost
from connsearch.errors import BudgetError, SpecError
from connsearch.graph import TOPOLOGIES, ConnectivityGraph
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec
from strategies import specs

MMACS = (10, 40, 160)


def draw_shape(rng: random.Random, n_blocks: int | None = None) -> NetworkSpec:
    """Return two to four blocks of 2 to 12 layers, each at most 2.5 times as wide as the one before."""
    ratios = [1.0]
    while len(ratios) < (n_blocks or rng.choice([2, 3, 4])):
        ratios.append(ratios[-1] * rng.uniform(1, 2.5))
    return NetworkSpec(
        blocks=[
            {
                "topology": rng.choice(sorted(TOPOLOGIES)),
                "aggregation": rng.choice(sorted(AGGREGATIONS)),
                "unit": rng.choice(sorted(UNITS)),
                "n_layers": rng.randint(2, 12),
                "width": round(1000 * ratio),
            }
            for ratio in ratios
        ]
    )


def shares(n: int, budget: Budget, seed: int) -> list[float]:
    """Return, for random shapes, which share of the budget the fitted network uses."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        shape = draw_shape(rng)
        fitted = fit_width(shape, budget, quantum=4, min_depths=[1] * len(shape.blocks))
        cost = network_cost(fitted)
        found.append(budget.use(macs=cost.macs, params=cost.params))
    return found


@pytest.mark.parametrize("millions", MMACS)
def test_random_shapes_use_up_the_budget(millions: int) -> None:
    found = shares(50, Budget(macs=millions * 1_000_000), seed=millions)
    assert max(found) <= 1
    assert sum(share >= 0.98 for share in found) >= 49


@pytest.mark.slow
@pytest.mark.parametrize("millions", MMACS)
def test_ninety_nine_of_a_hundred_shapes_use_up_the_budget(millions: int) -> None:
    found = shares(1000, Budget(macs=millions * 1_000_000), seed=1)
    assert max(found) <= 1
    assert sum(share >= 0.98 for share in found) >= 990


@pytest.mark.parametrize("budget", [
    Budget(params=300_000),
    Budget(params=3_000_000),
    Budget(macs=40_000_000, params=300_000),
    Budget(macs=20_000_000, params=20_000_000),
    Budget(macs=10**12, params=100_000),
    Budget(macs=40_000_000, tolerance=0.005),
], ids=str)  # fmt: skip
def test_bounds_on_parameters_and_on_both_are_met(budget: Budget) -> None:
    found = shares(25, budget, seed=3)
    assert max(found) <= 1
    assert sum(share >= 1 - budget.tolerance for share in found) >= 23


@given(specs(), st.integers(20_000, 5_000_000), st.booleans())
def test_no_drawn_network_exceeds_its_budget(spec: NetworkSpec, bound: int, params: bool) -> None:
    budget = Budget(params=bound) if params else Budget(macs=bound)
    try:
        fitted = fit_width(spec, budget)
    except BudgetError as error:
        least = least_cost(error)
        assert least > bound
        return
    cost = network_cost(fitted)
    assert budget.use(macs=cost.macs, params=cost.params) <= 1
    assert fitted.with_widths(spec.widths) == spec  # nothing but widths has changed
    for block in fitted.blocks:
        assert block.width >= 4
        assert block.width % UNITS.bind(block.unit).get("groups", 1) == 0


# ---- what is solved for ------------------------------------------------------------------------------------


def blocks(*widths: int, **values: Any) -> list[dict[str, Any]]:
    common = {"topology": "dense", "aggregation": "depthwise", "n_layers": 4} | values
    return [{**common, "width": width} for width in widths]


def fitted_cost(spec: NetworkSpec, budget: Budget, **options: Any) -> tuple[NetworkSpec, NetworkCost]:
    fitted = fit_width(spec, budget, **options)
    return fitted, network_cost(fitted)


@pytest.mark.parametrize("bound", [1_000_000, 7_654_321, 10**9])
@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_one_block_is_as_wide_as_fits(aggregation: str, bound: int) -> None:
    spec = NetworkSpec(blocks=blocks(1, aggregation=aggregation), input={"height": 13, "width": 9})
    width = fit_width(spec, Budget(macs=bound), quantum=1).widths[0]
    model = CostModel(spec)
    assert model.macs([width]) <= bound < model.macs([width + 1])


def test_five_blocks_of_one_ratio_keep_it_roughly() -> None:
    spec = NetworkSpec(blocks=blocks(1, 2, 3, 4, 5))
    budget = Budget(macs=80_000_000)
    fitted, cost = fitted_cost(spec, budget)
    assert 0.98 * 80_000_000 <= cost.macs <= 80_000_000
    scales = [width / ratio for width, ratio in zip(fitted.widths, spec.widths, strict=True)]
    assert max(scales) / min(scales) < 1.8


def test_only_ratios_of_the_given_widths_matter() -> None:
    budget = Budget(macs=20_000_000)
    narrow, wide = (fit_width(NetworkSpec(blocks=blocks(w, 2 * w)), budget) for w in (3, 300))
    assert narrow == wide


@pytest.mark.parametrize("groups", [2, 3, 8])
def test_groups_divide_the_widths(groups: int) -> None:
    spec = NetworkSpec(blocks=blocks(groups, 2 * groups, unit=f"basic(groups={groups})"))
    fitted, cost = fitted_cost(spec, Budget(macs=40_000_000))
    assert all(width % groups == 0 for width in fitted.widths)
    assert 0.9 * 40_000_000 < cost.macs <= 40_000_000


@pytest.mark.parametrize("millions", [15, 40])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("compression", [0.3, 0.5])
def test_groups_divide_what_units_read_too(compression: float, groups: int, millions: int) -> None:
    """Behind a compressing transition most widths make no network: 23 channels in 2 groups."""
    values = {"aggregation": "concat", "unit": f"conv(groups={groups})"}
    spec = NetworkSpec(blocks=blocks(8, 8, 8, **values), compression=compression, transition="pool")
    bound = millions * 1_000_000
    fitted, cost = fitted_cost(spec, Budget(macs=bound), min_depths=[2, 2, 2])
    assert 0.5 * bound < cost.macs <= bound
    assert all(width % groups == 0 for width in fitted.widths)


def test_a_shape_whose_channels_never_divide_is_refused() -> None:
    """The transition gives one channel at any width."""
    values = {"aggregation": "concat", "unit": "conv(groups=3)"}
    spec = NetworkSpec(blocks=blocks(3, 3, **values), compression=0.001, transition="pool")
    with pytest.raises(SpecError, match=r"^block2.layer1: 1 channels do not divide into 3 groups"):
        fit_width(spec, Budget(macs=3_000_000))


def test_heads_of_attention_divide_the_widths() -> None:
    spec = NetworkSpec(blocks=blocks(1, 2, unit="attention(heads=3)"), input={"height": 8, "width": 8})
    fitted, cost = fitted_cost(spec, Budget(macs=2_000_000))
    assert all(width % 3 == 0 for width in fitted.widths)
    assert 0.9 * 2_000_000 < cost.macs <= 2_000_000


def test_a_budget_that_no_width_uses_up_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"^even a width of 1,048,576 leaves most of .* unused: lower"):
        fit_width(NetworkSpec(blocks=blocks(1)), Budget(macs=10**22))


def test_depths_must_be_integers() -> None:
    with pytest.raises(SpecError, match=r"^1 blocks need as many integers as min_depths, got \['a'\]$"):
        fit_width(NetworkSpec(blocks=blocks(1)), Budget(macs=10**6), min_depths=["a"])


@pytest.mark.parametrize("min_width", [1, 6, 20])
def test_no_block_is_narrower_than_asked(min_width: int) -> None:
    spec = NetworkSpec(blocks=blocks(1, 50))
    fitted, cost = fitted_cost(spec, Budget(macs=60_000_000), min_width=min_width)
    assert min(fitted.widths) >= min_width
    assert 0.95 * 60_000_000 < cost.macs <= 60_000_000


def test_widths_are_multiples_of_the_quantum_where_that_is_good_enough() -> None:
    spec = NetworkSpec(blocks=blocks(1, 2, 4))
    for quantum in (2, 4, 8):
        fitted, cost = fitted_cost(spec, Budget(macs=400_000_000, tolerance=0.1), quantum=quantum)
        assert all(width % quantum == 0 for width in fitted.widths)
        assert cost.macs >= 0.9 * 400_000_000


def test_a_graph_of_ones_own_is_fitted_too() -> None:
    graph = ConnectivityGraph.from_edges([("s", "a"), ("s", "b"), ("a", "b"), ("b", "h"), ("s", "h")])
    spec = NetworkSpec.from_graph(graph, aggregation="gated", unit="bottleneck")
    fitted, cost = fitted_cost(spec, Budget(macs=9_000_000), min_depths=[0])
    assert fitted.graph() == graph
    assert 0.9 * 9_000_000 < cost.macs <= 9_000_000


def test_compressed_networks_are_fitted_too() -> None:
    """A floor stands between width and cost: the polynomial has a symbol for it."""
    spec = NetworkSpec(blocks=blocks(1, 1, 1, aggregation="concat"), compression=0.3, transition="pool")
    _, cost = fitted_cost(spec, Budget(macs=9_000_000))
    assert 0.98 * 9_000_000 <= cost.macs <= 9_000_000


# ---- depth ---------------------------------------------------------------------------------------------


def deep(**values: Any) -> NetworkSpec:
    return NetworkSpec(blocks=blocks(1, 1, n_layers=9, **values))


def test_depths_stay_unless_they_may_fall() -> None:
    bound = network_cost(deep().with_widths([4, 4])).macs
    fitted = fit_width(deep(), Budget(macs=bound))
    assert [block.n_layers for block in fitted.blocks] == [9, 9]
    with pytest.raises(BudgetError, match=r"^macs: the least possible is"):
        fit_width(deep(), Budget(macs=bound - 1))


@pytest.mark.parametrize("entry_unit", [False, True])
def test_layers_are_taken_from_the_deepest_block_when_they_must_be(entry_unit: bool) -> None:
    spec = deep(entry_unit=entry_unit)
    bound = network_cost(spec.with_widths([4, 4])).macs
    for share in (0.99, 0.6, 0.4):
        fitted, cost = fitted_cost(spec, Budget(macs=int(bound * share)), min_depths=[1, 1])
        depths = [block.n_layers for block in fitted.blocks]
        assert max(depths) < 10
        assert abs(depths[0] - depths[1]) <= 1
        assert 0.8 * bound * share < cost.macs <= bound * share


def test_no_block_falls_below_its_least_depth() -> None:
    bound = network_cost(deep().with_widths([4, 4])).macs
    fitted = fit_width(deep(), Budget(macs=int(0.75 * bound)), min_depths=[8, 1])
    depths = [block.n_layers for block in fitted.blocks]
    assert depths[0] >= 8
    assert depths[1] < 9
    with pytest.raises(BudgetError, match=r"\(widths 4, 4 of 17 layers\)"):
        fit_width(deep(), Budget(macs=bound // 4), min_depths=[8, 9])


def test_a_block_keeps_its_entry_unit_and_a_layer_to_wire() -> None:
    with pytest.raises(BudgetError, match=r"\(widths 4, 4 of 4 layers\)"):
        fit_width(deep(entry_unit=True), Budget(macs=1), min_depths=[1, 1])


# ---- impossible budgets --------------------------------------------------------------------------------


def least_cost(error: BudgetError) -> int:
    found = re.match(
        r"(macs|params): the least possible is ([\d,]+) \(widths [\d, ]+( of \d+ layers)?\), "
        r"over the budget of [\d,]+: raise \1 or use fewer layers$",
        str(error),
    )
    assert found, str(error)
    return int(found[2].replace(",", ""))


def test_an_impossible_budget_says_what_would_do() -> None:
    spec = NetworkSpec(blocks=blocks(1, 2), input={"height": 8, "width": 8})
    least = network_cost(spec.with_widths([4, 4]))
    with pytest.raises(BudgetError, match=r".") as caught:
        fit_width(spec, Budget(macs=1000))
    assert str(caught.value) == (
        f"macs: the least possible is {least.macs:,} (widths 4, 4 of 8 layers), over the budget of 1,000: "
        "raise macs or use fewer layers"
    )


@given(specs(own_graph=False), st.sampled_from(["macs", "params"]), st.booleans())
def test_the_least_cost_that_is_named_is_the_least(spec: NetworkSpec, bound: str, trimmed: bool) -> None:
    options = {"min_depths": [1 + block.entry_unit for block in spec.blocks]} if trimmed else {}
    with pytest.raises(BudgetError, match=f"^{bound}: ") as caught:
        fit_width(spec, Budget(**{bound: 1}), **options)
    least = least_cost(caught.value)
    cost = network_cost(fit_width(spec, Budget(**{bound: least}), **options))
    assert getattr(cost, bound) == least
    assume(least > 1)
    with pytest.raises(BudgetError, match=f"^{bound}: the least possible is {least:,} "):
        fit_width(spec, Budget(**{bound: least - 1}), **options)


def test_of_two_bounds_the_worse_is_named() -> None:
    spec = NetworkSpec(blocks=blocks(1, 2))
    least = network_cost(spec.with_widths([4, 4]))
    with pytest.raises(BudgetError, match=r"^params: "):
        fit_width(spec, Budget(macs=least.macs // 2, params=least.params // 3))
    with pytest.raises(BudgetError, match=r"^macs: "):
        fit_width(spec, Budget(macs=least.macs // 3, params=least.params // 2))
    with pytest.raises(BudgetError, match=r"^params: "):
        fit_width(spec, Budget(macs=10**9, params=least.params - 1))


# ---- Budget as a value ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"macs": 10, "tolerance": "x"}, r"tolerance must lie between 0 and 1, got 'x'$"),
        (
            {},
            r"a budget needs macs or params of at least 1, got Budget\(macs=None, params=None, tolerance=",
        ),
        ({"macs": 0}, r"a budget needs macs or params of at least 1, got Budget\(macs=0, "),
        (
            {"macs": 5, "params": -1},
            r"a budget needs macs or params of at least 1, got Budget\(macs=5, params=-1, ",
        ),
        ({"macs": 5, "tolerance": 0}, r"a budget's tolerance must lie between 0 and 1, got 0"),
        ({"macs": 5, "tolerance": 1}, r"a budget's tolerance must lie between 0 and 1, got 1"),
        ({"macs": 5, "tolerance": math.nan}, r"a budget's tolerance must lie between 0 and 1, got nan"),
    ],
)
def test_a_wrong_budget_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Budget(**values)


def test_a_budget_says_what_it_bounds() -> None:
    assert str(Budget(macs=40_000_000)) == "40,000,000 macs"
    assert str(Budget(macs=1, params=2000)) == "1 macs and 2,000 params"
    assert Budget(params=3).bounds() == {"params": 3}
    assert Budget(macs=10, params=100).use(macs=5, params=80) == 0.8
    assert Budget(macs=10).use(macs=11, params=10**9) == 1.1


@pytest.mark.parametrize("setting", [{"min_width": 0}, {"quantum": 0}, {"quantum": 2.0}])
def test_solver_settings_are_whole_and_positive(setting: dict[str, Any]) -> None:
    spec = NetworkSpec(blocks=[{"n_layers": 2}])
    with pytest.raises(SpecError, match=f"{next(iter(setting))} must be an integer of at least 1, got "):
        fit_width(spec, Budget(macs=1_000_000), **setting)


def test_budgets_are_integers() -> None:
    with pytest.raises(BudgetError, match="a budget's macs must be an integer, got '40'"):
        Budget(macs="40")


def test_fewer_layers_may_cost_more() -> None:
    """Of 3 layers in block 1 the transition concatenates more than of 4: depths are no ladder of costs."""
    first = {"topology": "log_dense", "aggregation": "concat", "unit": "basic(kernel=1)", "n_layers": 4}
    second = {"topology": "chain", "aggregation": "concat", "n_layers": 2, "entry_unit": True}
    shape = {"input": {"channels": 1, "height": 2, "width": 2}, "n_classes": 1, "stem_ratio": 3}
    spec = NetworkSpec(**shape, compression=1.0, blocks=[first, second])
    costs = [network_cost(spec.with_depths([d, 2]).with_widths([4, 4])).macs for d in (4, 3, 2, 1)]
    assert costs == [3748, 5956, 2308, 4004]
    for budget in costs:
        fitted = fit_width(spec, Budget(macs=budget), min_depths=[1, 2])
        assert 0.6 * budget < network_cost(fitted).macs <= budget
