from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings, strategies as st

from connsearch.cost import network_cost
from connsearch.errors import BudgetError, SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref
from connsearch.search.choices import AnyOf, Choice, Fixed, FloatRange, IntRange, draw, values
from connsearch.search.layouts import PER_BLOCK
from connsearch.search.samplers import distributions
from connsearch.search.space import SearchSpace, label
from connsearch.spec import AGGREGATIONS, UNITS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.toml"))
SMALL = {"input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 4}


def space(budget: object = 100_000, /, **blocks: Any) -> SearchSpace:
    """A space over 1 x 8 x 8 images; `budget` is macs or the whole table."""
    table = budget if isinstance(budget, dict) and "macs" in budget else {"macs": budget}
    return SearchSpace.from_dict({**SMALL, "blocks": {"count": 1, "n_layers": 1, **blocks}, "budget": table})


# ---- generated spaces ----------------------------------------------------------------------------------

counts = st.one_of(
    st.integers(1, 3),
    st.sets(st.integers(1, 3), min_size=2).map(lambda s: {"any_of": sorted(s)}),
    st.just({"low": 1, "high": 3}),
)
depths = st.one_of(
    st.integers(1, 3),
    st.just({"any_of": [1, 3]}),
    st.tuples(st.integers(1, 2), st.integers(0, 3)).map(lambda r: {"low": r[0], "high": r[0] + r[1]}),
)
ratios = st.one_of(
    st.sampled_from([1.0, 1.5, 2.0]),
    st.just({"any_of": [1.0, 2.0]}),
    st.tuples(st.floats(0.5, 1.5), st.floats(0, 1), st.booleans()).map(
        lambda r: {"low": r[0], "high": r[0] + r[1], "log": r[2]}
    ),
)
budgets = st.one_of(
    st.integers(100_000, 300_000),
    st.just([100_000, 250_000]),
    st.just({"low": 100_000, "high": 300_000}),
    st.just({"low": 100_000, "high": 300_000, "log": False}),
)


def one_or_more(names: list[str]) -> st.SearchStrategy[Any]:
    some = st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True)
    return st.one_of(st.sampled_from(names), some.map(lambda chosen: {"any_of": chosen}))


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    scope = draw(one_or_more(["block", "global"]))
    free = [name for name in PER_BLOCK if scope == "block" or name != "topology"]
    return SearchSpace.from_dict({
        "input": {"channels": draw(st.integers(1, 3)), "height": 8, "width": 8},
        "n_classes": draw(st.integers(2, 5)),
        "scope": scope,
        "transition": draw(one_or_more(["conv", "pool"])),
        "blocks": {
            "count": draw(counts), "n_layers": draw(depths), "width_ratio": draw(ratios),
            "topology": draw(one_or_more(sorted(TOPOLOGIES))),
            "aggregation": draw(one_or_more(sorted(AGGREGATIONS))),
            "unit": draw(one_or_more(["basic", "conv", "separable"])),
            "per_block": draw(st.lists(st.sampled_from(free), unique=True)),
        },
        "budget": {
            "macs": draw(budgets), "quantum": draw(st.sampled_from([1, 4])),
            "min_width": draw(st.integers(1, 4)),
        },
    })  # fmt: skip


@given(space=spaces())
def test_a_space_is_read_as_it_was_written(space: SearchSpace) -> None:
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert hash(again) == hash(space)
    assert again.knobs() == space.knobs()


@given(space=spaces())
@settings(max_examples=10)
def test_a_space_file_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, space: SearchSpace
) -> None:
    file = tmp_path_factory.mktemp("space") / "space.toml"
    file.write_text(space.to_toml())
    assert SearchSpace.from_toml(file) == space


@given(space=spaces(), seed=st.integers(0, 999))
@settings(max_examples=60)
def test_a_member_meets_its_budget_and_is_what_its_knobs_say(space: SearchSpace, seed: int) -> None:
    drawn = {name: draw(choice, random.Random(f"{seed} {name}")) for name, choice in space.knobs().items()}
    try:
        member = space.member({name: label(value) for name, value in drawn.items()})
    except BudgetError:
        reject()  # some shapes are too dear at any width
    macs, budget = network_cost(member.spec).macs, member.budget.macs
    assert budget is not None
    assert macs <= budget
    assert macs >= 0.25 * budget  # one channel or two make a great difference; see the next test
    assert member.knobs == drawn
    everything = {name: drawn.get(name, values(choice)[0]) for name, choice in space.all_knobs().items()}
    assert budget == everything["macs_budget"]
    assert len(member.spec.blocks) == everything["count"]
    assert member.spec.scope == everything["scope"]
    assert member.spec.transition == everything["transition"]
    for number, block in enumerate(member.spec.blocks, 1):
        assert min(values(space.blocks.n_layers)) <= block.n_layers <= everything[f"n_layers_{number}"]
        for part in PER_BLOCK:
            name = f"{part}_{number}" if part in space.blocks.per_block else part
            assert getattr(block, part) == everything[name]


@pytest.mark.parametrize("seed", range(10))
def test_members_of_the_digits_space_use_98_percent_of_their_budget(seed: int) -> None:
    digits = SearchSpace.from_toml(ROOT / "search_spaces/digits.toml")
    rng = random.Random(seed)
    for _ in range(5):
        member = digits.draw(rng)
        macs = network_cost(member.spec).macs
        assert member.budget.macs is not None
        assert 0.98 * member.budget.macs <= macs <= member.budget.macs


@given(space=spaces())
def test_knobs_are_static_and_complete(space: SearchSpace) -> None:
    knobs, most = space.knobs(), max(values(space.blocks.count))
    names = {"macs_budget", "count", "scope", "stem", "transition", "carry", "up", "head"}
    names |= {"stem_ratio", "hubs", "compression"}
    for part in PER_BLOCK:
        per_block = part in space.blocks.per_block
        names |= {f"{part}_{b}" for b in range(1, most + 1)} if per_block else {part}
    names |= {f"n_layers_{b}" for b in range(1, most + 1)} | {f"width_ratio_{b}" for b in range(2, most + 1)}
    assert set(space.all_knobs()) == names
    assert set(knobs) == {n for n, choice in space.all_knobs().items() if not isinstance(choice, Fixed)}
    assert list(distributions(knobs)) == list(knobs)


# ---- knobs ---------------------------------------------------------------------------------------------


def test_a_knob_that_does_not_apply_is_drawn_and_ignored() -> None:
    deep = space(300_000, count={"low": 1, "high": 3}, n_layers={"low": 1, "high": 4},
                 width_ratio={"low": 1.0, "high": 2.0})  # fmt: skip
    assert list(deep.knobs()) == [
        "count", "n_layers_1", "n_layers_2", "n_layers_3", "width_ratio_2", "width_ratio_3",
    ]  # fmt: skip
    knobs = {"count": 2, "n_layers_1": 2, "n_layers_2": 3, "n_layers_3": 4,
             "width_ratio_2": 1.0, "width_ratio_3": 2.0}  # fmt: skip
    member = deep.member(knobs)
    assert [block.n_layers for block in member.spec.blocks] == [2, 3]
    assert deep.member({**knobs, "n_layers_3": 1, "width_ratio_3": 1.0}).spec == member.spec
    assert deep.member({**knobs, "n_layers_2": 1}).spec != member.spec


def test_what_is_per_block_is_drawn_for_each_block() -> None:
    mixed = space(count=2, topology={"any_of": ["chain", "dense"]}, per_block=["topology"])
    assert list(mixed.knobs()) == ["topology_1", "topology_2"]
    member = mixed.member({"topology_1": "dense", "topology_2": "chain"})
    assert [block.topology.name for block in member.spec.blocks] == ["dense", "chain"]


@pytest.mark.parametrize(
    ("macs", "choice"),
    [
        (200_000, Fixed(200_000)),
        ([100_000, 200_000], AnyOf((100_000, 200_000))),
        ([200_000], Fixed(200_000)),
        ({"low": 100_000, "high": 200_000}, IntRange(100_000, 200_000, log=True)),
        ({"low": 100_000, "high": 200_000, "log": False}, IntRange(100_000, 200_000)),
    ],
)
def test_a_budget_is_fixed_a_ladder_or_a_range(macs: object, choice: Choice) -> None:
    assert space(macs).budget.macs == choice
    assert ("macs_budget" in space(macs).knobs()) is not isinstance(choice, Fixed)
    for seed in range(5):
        member = space(macs, n_layers=2).draw(random.Random(seed))
        assert member.budget.bounds() == {"macs": member.knobs.get("macs_budget", 200_000)}


def test_a_bound_of_parameters_holds_too() -> None:
    member = space({"macs": 10**9, "params": 20_000}, n_layers=2).member({})
    assert 0.97 * 20_000 < network_cost(member.spec).params <= 20_000
    assert member.budget.bounds() == {"macs": 10**9, "params": 20_000}


WIDE = {
    "topology": {"any_of": ["chain", {"name": "sparse", "base": 3}]},
    "n_layers": {"low": 2, "high": 6, "step": 2},
    "width_ratio": {"low": 1.0, "high": 2.0},
    "count": 2,
}
GOOD = {"topology": "sparse(base=3)", "n_layers_1": 2, "n_layers_2": 4, "width_ratio_2": 1.5}


def test_a_reference_may_be_a_label_or_a_ref() -> None:
    by_label = space(**WIDE).member(GOOD)
    assert by_label.knobs["topology"] == Ref("sparse", (("base", 3),))
    assert space(**WIDE).member({**GOOD, "topology": by_label.knobs["topology"]}) == by_label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": None}, "knob 'topology' is one of chain, sparse(base=3), got None"),
        ({"topology": "dense"}, "knob 'topology' is one of chain, sparse(base=3), got dense"),
        ({"n_layers_1": 8}, "knob 'n_layers_1' lies within 2..6 in steps of 2, got 8"),
        ({"n_layers_1": 1}, "knob 'n_layers_1' lies within 2..6 in steps of 2, got 1"),
        ({"n_layers_1": 3}, "knob 'n_layers_1' lies within 2..6 in steps of 2, got 3"),
        ({"n_layers_1": 4.0}, "knob 'n_layers_1' lies within 2..6 in steps of 2, got 4.0"),
        ({"n_layers_1": "4"}, "knob 'n_layers_1' lies within 2..6 in steps of 2, got '4'"),
        ({"width_ratio_2": 2.01}, "knob 'width_ratio_2' lies within 1.0..2.0, got 2.01"),
        ({"width_ratio_2": float("nan")}, "knob 'width_ratio_2' lies within 1.0..2.0, got nan"),
        ({"n_layer_1": 2}, "unknown knob 'n_layer_1'. Did you mean 'n_layers_1'? "
                           "Known: n_layers_1, n_layers_2, topology, width_ratio_2."),
        ({"count": 2}, "unknown knob 'count'. Known: n_layers_1, n_layers_2, topology, width_ratio_2."),
    ],
)  # fmt: skip
def test_a_wrong_knob_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        space(**WIDE).member({**GOOD, **change})


def test_a_missing_knob_is_named() -> None:
    with pytest.raises(SpecError, match=r"^knob 'n_layers_2' has no value$"):
        space(**WIDE).member({name: value for name, value in GOOD.items() if name != "n_layers_2"})


@pytest.mark.parametrize("ratio", [0.01, 100.0])
@pytest.mark.parametrize("count", [3, 8])
def test_the_most_extreme_ratios_give_networks(ratio: float, count: int) -> None:
    steep = space(3_000_000, count=count, width_ratio={"low": ratio, "high": ratio})
    widths = steep.draw(random.Random(0)).spec.widths
    assert min(widths) == 4
    assert max(widths) == widths[0 if ratio < 1 else -1] > 8


# ---- kinds and bounds ----------------------------------------------------------------------------------


def test_kinds_are_the_combinations_of_categories_alone() -> None:
    both = space([200_000, 300_000], count={"any_of": [1, 2]}, n_layers={"any_of": [1, 3]},
                 width_ratio={"any_of": [1.0, 2.0]}, topology={"any_of": ["chain", "dense"]},
                 aggregation={"any_of": ["sum", "mean", "concat"]}, per_block=["topology"])  # fmt: skip
    kinds = list(both.kinds())
    assert [
        (kind["topology_1"].name, kind["topology_2"].name, kind["aggregation"].name) for kind in kinds
    ] == [
        (topology, topology, aggregation)
        for topology in ("chain", "dense")
        for aggregation in ("sum", "mean", "concat")
    ]
    numbers = [{n: v for n, v in kind.items() if type(v) in (int, float)} for kind in kinds]
    assert numbers == 6 * [
        {
            "macs_budget": 200_000,
            "count": 2,
            "stem_ratio": 0,
            "hubs": 0,
            "compression": 0.0,
            "n_layers_1": 1,
            "n_layers_2": 1,
            "width_ratio_2": 1.0,
        }
    ]
    assert all(set(kind) == set(both.all_knobs()) for kind in kinds)


@pytest.mark.parametrize(
    ("impossible", "message"),
    [
        (space(20_000, topology={"any_of": ["chain", "dense"]}),
         "budget: no chain x sum fits: macs: the least possible is 20,752 (widths 4 of 1 layers), "
         "over the budget of 20,000: raise macs or use fewer layers"),
        (space({"macs": 10**6, "params": 100}),
         "budget: no dense x sum fits: params: the least possible is 368 (widths 4 of 1 layers), "
         "over the budget of 100: raise params or use fewer layers"),
        (space({"low": 30_000, "high": 10**6}, n_layers={"low": 2, "high": 3}),
         "budget: no dense x sum fits: macs: the least possible is 39,184 (widths 4 of 2 layers), "
         "over the budget of 30,000: raise macs or use fewer layers"),
        (space(25_000, count={"any_of": [1, 2]}),  # one block would fit
         "budget: no dense x sum fits: macs: the least possible is 27,664 (widths 4, 4 of 2 layers), "
         "over the budget of 25,000: raise macs or use fewer layers"),
    ],
)  # fmt: skip
def test_an_impossible_budget_is_refused_with_a_way_out(impossible: SearchSpace, message: str) -> None:
    with pytest.raises(BudgetError, match=f"^{re.escape(message)}$"):
        impossible.check()


def test_the_least_possible_budget_is_possible() -> None:
    space(20_752).check()
    with pytest.raises(BudgetError, match=r"^budget: no dense x sum fits"):
        space(20_751).check()


@pytest.mark.parametrize(
    ("tolerance", "refused"),
    [
        (0.01, r"1 % of its budget, the closest uses 98\.3 % of 61,570 macs: raise the budget or its"),
        (0.02, None),
    ],
)
@pytest.mark.parametrize(
    "macs", [61_570, [61_570, 78_416], [78_416, 61_570], {"low": 61_570, "high": 61_570}], ids=str
)
def test_a_budget_that_no_member_meets_is_refused(
    tolerance: float, refused: str | None, macs: object
) -> None:
    """One layer of width 7 costs 60,508, one of width 8 costs 78,416."""
    single = space({"macs": macs, "tolerance": tolerance})
    if refused is None:
        single.check()
    else:
        with pytest.raises(BudgetError, match=rf"^budget: no member drawn comes within {refused} tolerance$"):
            single.check()


def test_of_a_range_some_budget_must_be_met() -> None:
    with pytest.raises(BudgetError, match=r"^budget: no member drawn comes within 2 % of its budget, "):
        space({"low": 62_000, "high": 78_000}).check()
    space({"low": 62_000, "high": 80_000}).check()


def test_a_kind_that_is_no_network_is_refused() -> None:
    even = space(unit={"any_of": ["basic", {"name": "conv", "kernel": 2}]})
    message = "dense x sum: blocks[0].unit: kernel must be odd and at least 1, got 2"
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        even.check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": "globl"}, "scope: unknown scope 'globl'. Did you mean 'global'? Known: block, global."),
        ({"scope": {"any_of": ["block", "blocks"]}},
         "scope: unknown scope 'blocks'. Did you mean 'block'? Known: block, global."),
        ({"scope": "global", "blocks": {"n_layers": 1, "per_block": ["topology"]}},
         "scope 'global' has one topology for all blocks: take 'topology' out of per_block"),
        ({"blocks": {"n_layers": 1, "per_block": ["n_layers"]}},
         "blocks.per_block[0]: should be 'topology', 'aggregation' or 'unit', got 'n_layers'"),
        ({"blocks": {"n_layers": 0}}, "blocks.n_layers: must be at least 1, got 0"),
        ({"blocks": {"n_layers": {"low": 0, "high": 2}}}, "blocks.n_layers: must be at least 1, got 0"),
        ({"blocks": {"n_layers": 1, "count": 0}}, "blocks.count: must be at least 1, got 0"),
        ({"blocks": {"n_layers": 1, "width_ratio": 0.0}},
         "blocks.width_ratio: must be at least 0.01, got 0.0"),
        ({"blocks": {"n_layers": 1, "width_ratio": {"low": 1.0, "high": 1e308}}},
         "blocks.width_ratio: must be at most 100.0, got 1e+308"),
        ({"blocks": {"n_layers": 1, "width_ratio": {"any_of": [1, 100.5]}}},
         "blocks.width_ratio: must be at most 100.0, got 100.5"),
        ({"blocks": {"n_layers": 1, "width_ratio": {"low": 0.009, "high": 1.0}}},
         "blocks.width_ratio: must be at least 0.01, got 0.009"),
        ({"blocks": {}}, "blocks.n_layers: is missing"),
        ({"blocks": {"n_layers": 1, "topolgy": "dense"}},
         "blocks.topolgy: unknown key. Did you mean 'topology'? "
         "Known: aggregation, count, n_layers, per_block, topology, unit, width_ratio."),
        ({"budget": {"macs": 0}}, "budget.macs: must be at least 1, got 0"),
        ({"budget": {"macs": 1e6}}, "budget.macs: must be an integer, got 1000000.0"),
        ({"budget": {"macs": 9, "tolerance": 1}}, "budget.tolerance: should be less than 1, got 1"),
        ({"budget": {}}, "budget.macs: is missing"),
        ({"schema": 2}, "schema: should be 1, got 2"),
        ({"input": {"channels": 0}}, "input.channels: should be greater than or equal to 1, got 0"),
    ],
)  # fmt: skip
def test_a_wrong_space_is_refused_at_its_place(change: dict[str, Any], message: str) -> None:
    data = {**SMALL, "blocks": {"n_layers": 1}, "budget": {"macs": 10**6}, **change}
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        SearchSpace.from_dict(data)


# ---- shipped spaces ------------------------------------------------------------------------------------


def test_some_spaces_are_shipped() -> None:
    assert {file.stem for file in SHIPPED} >= {"digits", "cifar10"}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_space_prints_as_a_file_that_describes_it(file: Path, tmp_path: Path) -> None:
    shipped = SearchSpace.from_toml(file)
    (tmp_path / "space.toml").write_text(str(shipped))
    assert SearchSpace.from_toml(tmp_path / "space.toml") == shipped


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_spaces_can_be_met(file: Path) -> None:
    shipped = SearchSpace.from_toml(file)
    shipped.check()
    member = shipped.draw(random.Random(0))
    assert member.budget.macs is not None
    assert network_cost(member.spec).macs <= member.budget.macs


def test_every_unit_can_be_searched() -> None:
    every = space(300_000, unit={"any_of": sorted(UNITS)}, width_ratio=FloatRange(1.0, 2.0), count=2)
    every.check()
    assert {kind["unit"].name for kind in every.kinds()} == set(UNITS)
