"""Spaces of encoder-decoders: knobs of both ways, members, what is refused; around them what a study does."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings, strategies as st

from connsearch.cost import network_cost
from connsearch.cost.table import cost_record
from connsearch.errors import BudgetError, SpecError, StudyError
from connsearch.search.choices import AnyOf, Fixed, IntRange, Ways, draw, middle, of_way, values
from connsearch.search.config import StudyConfig
from connsearch.search.layouts import base_name, block_places, has_block, of_block
from connsearch.search.reading.knob_shares import applies
from connsearch.search.reading.records import network_row
from connsearch.search.shapes import shape_of
from connsearch.search.space import Member, SearchSpace, label
from connsearch.search.tournament.contestants import tournament_of
from connsearch.search.transfer.preset_knobs import preset_knobs
from connsearch.search.transfer.studies import _check_knobs
from connsearch.search.twins import network_hash
from connsearch.spec.presets.dense_prediction import fc_densenet, fc_log_densenet

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"input": {"channels": 3, "height": 16, "width": 24}, "n_classes": 3}
BLOCKS: dict[str, Any] = {"count": 3, "n_layers": {"low": 1, "high": 3}, "unit": "conv"}
CHAIN_OR_DENSE = {"any_of": ["chain", "dense"]}


def space(*, macs: object = 1_000_000, blocks: dict[str, Any] | None = None, **settings: Any) -> SearchSpace:
    return SearchSpace.from_dict(
        {
            "layout": "encoder_decoder",
            **SMALL,
            "blocks": BLOCKS | (blocks or {}),
            "budget": {"macs": macs},
            **settings,
        }
    )


def member(found: SearchSpace, seed: int = 0, /, **fixed: Any) -> Member:
    rng = random.Random(seed)
    return found.member({name: draw(choice, rng) for name, choice in found.knobs().items()} | fixed)


# ---- knobs ---------------------------------------------------------------------------------------------


def test_each_way_has_its_knobs() -> None:
    searched = space(
        blocks={
            "count": 5,
            "topology": {"down": "dense", "up": CHAIN_OR_DENSE},
            "aggregation": {"any_of": ["sum", "concat"]},
            "n_layers": {"down": {"low": 2, "high": 3}, "up": 1},
            "width_ratio": {"low": 1.0, "high": 2.0},
        }
    )
    assert list(searched.knobs()) == [
        "topology_up", "aggregation", "n_layers_down_1", "n_layers_down_2", "n_layers_down_3",
        "width_ratio_down_2", "width_ratio_down_3", "width_ratio_up_2", "width_ratio_up_1",
    ]  # fmt: skip
    found = member(searched, topology_up="chain", n_layers_down_3=2).spec
    assert [block.topology.name for block in found.blocks] == ["dense"] * 3 + ["chain"] * 2
    assert [block.n_layers for block in found.blocks[3:]] == [1, 1]


def test_a_knob_is_of_the_same_block_whatever_the_number_of_blocks() -> None:
    searched = space(blocks={"count": {"any_of": [1, 3, 5]}}, macs=2_000_000)
    fixed = {"n_layers_down_1": 1, "n_layers_down_2": 2, "n_layers_down_3": 3, "n_layers_up_2": 2,
             "n_layers_up_1": 3}  # fmt: skip
    depths = [[b.n_layers for b in member(searched, count=c, **fixed).spec.blocks] for c in (1, 3, 5)]
    assert depths == [[1], [1, 2, 3], [1, 2, 3, 2, 3]]
    assert (
        searched.member({**fixed, "count": 1, "n_layers_up_1": 1}).spec
        == searched.member({**fixed, "count": 1}).spec
    )


def test_widths_are_ratios_to_the_finer_neighbour_on_both_ways() -> None:
    searched = space(blocks={"count": 5, "width_ratio": {"down": 2.0, "up": {"low": 1.0, "high": 4.0}}})
    mirrored = space(blocks={"count": 5})
    knobs, alike = (
        {name: values(choice)[0] for name, choice in s.all_knobs().items()} for s in (searched, mirrored)
    )
    shape = shape_of(searched, {**knobs, "width_ratio_up_2": 4.0, "width_ratio_up_1": 1.0})
    assert shape.widths == (1000, 2000, 4000, 1000, 1000)
    assert shape_of(mirrored, alike).widths == (1000, 2000, 4000, 2000, 1000)


def test_numbers_apply_where_maps_are_concatenated() -> None:
    searched = space(
        stem_ratio=2, compression=0.5, hubs=2, scope={"any_of": ["block", "global"]},
        blocks={"count": 3, "aggregation": {"down": {"any_of": ["sum", "concat"]}, "up": "sum"}},
    )  # fmt: skip
    adds, joins = (
        [member(searched, aggregation_down=name, scope=scope).spec for scope in ("block", "global")]
        for name in ("sum", "concat")
    )
    assert [(s.stem_ratio, s.compression, s.hubs) for s in adds] == [(0, 0.0, 0), (0, 0.0, 2)]
    assert [(s.stem_ratio, s.compression, s.hubs) for s in joins] == [(2, 0.5, 0), (2, 0.5, 2)]
    encoder = SearchSpace.from_dict(
        {
            **SMALL,
            "compression": 0.5,
            "blocks": {"n_layers": 1, "aggregation": {"any_of": ["sum", "concat"]}},
            "budget": {"macs": 10**6},
        }
    )
    found = [encoder.member({"aggregation": name}).spec.compression for name in ("sum", "concat")]
    assert found == [0.0, 0.5]


@pytest.mark.parametrize(
    ("knob", "params", "expected"),
    [
        ("n_layers_down_2", {"count": 1}, False),
        ("n_layers_down_2", {"count": 3}, True),
        ("n_layers_up_2", {"count": 3}, False),
        ("width_ratio_up_2", {"count": 5}, True),
        ("topology_up", {"count": 1}, False),
        ("topology_down", {"count": 1}, True),
        ("up", {"count": 1}, False),
        ("aggregation", {"count": 1}, True),
        ("compression", {"count": 3, "aggregation": "sum"}, False),
        ("compression", {"count": 3, "aggregation": "concat"}, True),
        ("stem_ratio", {"count": 3, "aggregation": "sum"}, False),
        ("hubs", {"count": 3, "scope": "block"}, False),
        ("hubs", {"count": 3, "scope": "global"}, True),
    ],
)
def test_what_a_network_depends_on(knob: str, params: dict[str, Any], expected: bool) -> None:
    searched = space(
        scope={"any_of": ["block", "global"]}, compression={"low": 0.5, "high": 1.0},
        stem_ratio={"low": 1, "high": 3}, hubs={"low": 0, "high": 2},
        up={"any_of": ["deconv", "deconv(kernel=5)"]},
        blocks={"count": {"any_of": [1, 3, 5]}, "topology": {"down": CHAIN_OR_DENSE, "up": CHAIN_OR_DENSE},
                "aggregation": {"any_of": ["sum", "concat"]}, "width_ratio": {"low": 1.0, "high": 2.0}},
    )  # fmt: skip
    drawn = {name: draw(choice, random.Random(0)) for name, choice in searched.knobs().items()}
    assert applies(knob, {**drawn, **params}, searched) is expected


def test_places_of_fewer_blocks_are_among_those_of_more() -> None:
    for layout, counts in (("encoder", range(1, 6)), ("encoder_decoder", range(1, 8, 2))):
        for few in counts:
            assert len(block_places(layout, few)) == few
            for more in counts:
                inside = set(block_places(layout, few)) <= set(block_places(layout, more))
                assert inside is (few <= more)
    up = block_places("encoder_decoder", 3)[-1]
    assert of_block({"a": 1, "a_up": 2, "a_up_1": 3}, "a", up) == 3
    assert of_block({"a": 1, "a_up": 2, "a_down_1": 3}, "a", up) == 2
    assert of_block({"a": 1, "a_down": 2}, "a", up) == 1
    assert (base_name("stem_ratio"), base_name("macs_budget")) == ("stem_ratio", "macs_budget")
    assert not has_block("topology_up", "encoder", 3)


def test_a_choice_for_each_way() -> None:
    ways = Ways(IntRange(1, 3), Fixed(2))
    assert [of_way(ways, way) for way in ("down", "up")] == [IntRange(1, 3), Fixed(2)]
    assert of_way(Fixed(1), "up") == Fixed(1)
    assert (values(ways), middle(ways)) == ([1, 3, 2], 2)
    with pytest.raises(
        SpecError, match="the middle is 2 on the way down and 5 on the way up: name one value"
    ):
        middle(Ways(IntRange(1, 3), AnyOf((4, 5))))


# ---- members -------------------------------------------------------------------------------------------


def test_presets_are_members_of_spaces_with_their_choices() -> None:
    dense = fc_densenet((2, 3, 2), 6, stem=9, **SMALL)
    fixed = {"count": 3, "n_layers": {"any_of": [2, 3]}, "width_ratio": 1.0, "aggregation": "concat"}
    depths = {"n_layers_down_1": 2, "n_layers_down_2": 3, "n_layers_up_1": 2}
    searched = space(
        macs=network_cost(dense).macs, stem="conv(channels=9, bias=true)", compression=1.0,
        up="deconv(bias=true)", transition="pool(kind=max, bias=true)",
        head="pixels(norm=none, activation=none)",
        blocks={**fixed, "unit": "conv(bias=true)",
                "topology": {"down": CHAIN_OR_DENSE, "up": CHAIN_OR_DENSE}},
    )  # fmt: skip
    found = searched.member({**depths, "topology_down": "dense", "topology_up": "dense"})
    assert network_hash(found.spec) == network_hash(dense)
    log = fc_log_densenet((2, 3, 2), 6, lean=True, **SMALL)
    searched = space(
        macs=network_cost(log).macs, scope="global", stem_ratio=3, hubs=1, compression=1.0,
        blocks={**fixed, "topology": {"any_of": ["log_dense", "dense"]}},
    )  # fmt: skip
    assert network_hash(searched.member({**depths, "topology": "log_dense"}).spec) == network_hash(log)


def test_every_member_of_the_shipped_space_meets_its_budget() -> None:
    shipped = SearchSpace.from_toml(ROOT / "search_spaces/camvid.toml")
    shipped.check()
    rng = random.Random(1)
    members = [shipped.draw(rng) for _ in range(60)]
    assert all(found.meets_budget for found in members)
    assert len({network_hash(found.spec) for found in members}) > 55


@st.composite
def spaces(draw_: st.DrawFn) -> SearchSpace:
    """Draw a space of encoder-decoders whose fields are alike or of each way."""

    def ways(one: st.SearchStrategy[Any]) -> Any:
        return draw_(st.one_of(one, st.fixed_dictionaries({"down": one, "up": one})))

    topologies = st.sampled_from(["dense", CHAIN_OR_DENSE, {"any_of": ["log_dense", "sparse(base=3)"]}])
    aggregations = st.sampled_from(["concat", {"any_of": ["sum", "concat", "depthwise"]}, "routed"])
    return space(
        macs=draw_(st.sampled_from([6 * 10**6, [8 * 10**6, 10**7], {"low": 6 * 10**6, "high": 2 * 10**7}])),
        scope=draw_(st.sampled_from(["block", "global", {"any_of": ["block", "global"]}])),
        stem_ratio=draw_(st.sampled_from([0, 2, {"low": 1, "high": 3}])),
        compression=draw_(st.sampled_from([0.0, 0.5, {"low": 0.5, "high": 1.0}])),
        blocks={
            "count": draw_(st.sampled_from([1, 3, {"any_of": [1, 3]}, {"low": 1, "high": 5, "step": 2}])),
            "topology": ways(topologies),
            "aggregation": ways(aggregations),
            "n_layers": ways(st.sampled_from([1, {"low": 1, "high": 3}, {"any_of": [2, 3]}])),
            "width_ratio": ways(st.sampled_from([1.0, {"low": 0.5, "high": 2.0}])),
            "per_block": draw_(st.sampled_from([[], ["topology"], ["aggregation", "unit"]])),
        },
    )


@given(space=spaces(), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_generated_members_meet_their_budget_and_are_what_their_knobs_say(
    space: SearchSpace, seed: int
) -> None:
    assert SearchSpace.from_json(space.to_json()) == space
    jsonschema.validate(space.to_dict(), SearchSpace.json_schema())
    found = member(space, seed)
    macs, budget = network_cost(found.spec).macs, found.budget.macs
    assert budget is not None
    assert 0.9 * budget <= macs <= budget  # widths are integers; see the shipped space
    everything = {name: found.knobs.get(name, values(c)[0]) for name, c in space.all_knobs().items()}
    places = block_places("encoder_decoder", everything["count"])
    assert found.spec.scope == everything["scope"]
    for place, block in zip(places, found.spec.blocks, strict=True):
        for name in ("topology", "aggregation", "unit"):
            assert getattr(block, name) == of_block(everything, name, place)
        least = min(values(of_way(space.blocks.n_layers, place.way)))
        assert least <= block.n_layers <= everything[f"n_layers_{place.name}"]
    assert space.member({name: label(value) for name, value in found.knobs.items()}) == found


def test_kinds_are_the_combinations_of_both_ways() -> None:
    ways = {"down": CHAIN_OR_DENSE, "up": {"any_of": ["chain", "dense", "log_dense"]}}
    kinds = list(space(blocks={"topology": ways}).kinds())
    assert len(kinds) == 6
    assert {(kind["topology_down"].name, kind["topology_up"].name) for kind in kinds} == {
        (down, up) for down in ("chain", "dense") for up in ("chain", "dense", "log_dense")
    }
    with pytest.raises(BudgetError, match=r"^budget: no chain/dense x sum fits: macs: the least possible"):
        space(macs=150_000, blocks={"topology": {"down": "chain", "up": "dense"}}).check()


# ---- around a study ------------------------------------------------------------------------------------


def test_a_tournament_has_pairs_that_are_alike_on_both_ways() -> None:
    ways = {"down": CHAIN_OR_DENSE, "up": {"any_of": ["dense", "log_dense"]}}
    blocks = {
        "topology": ways,
        "aggregation": {"any_of": ["sum", "concat"]},
        "n_layers": {"low": 3, "high": 5},
    }
    study = StudyConfig(space=space(blocks=blocks, compression={"low": 0.5, "high": 1.0}))
    found = tournament_of(study)
    assert found.tournament is not None
    assert {c.topology.name for c in found.tournament.contestants} == {"chain", "dense", "log_dense"}
    assert not isinstance(found.space.blocks.topology, Ways)
    assert found.space.compression == Fixed(0.75)
    uneven = space(blocks=blocks | {"n_layers": {"down": 2, "up": 1}})
    with pytest.raises(
        SpecError, match=r"^tournament.n_layers: the middle is 2 on the way down and 1 on the"
    ):
        tournament_of(StudyConfig(space=uneven))


def test_presets_are_no_start_of_such_a_study() -> None:
    with pytest.raises(
        SpecError, match=r"presets are known as members of spaces of layout 'encoder'.*'unet'"
    ):
        preset_knobs("unet", space())


def test_a_study_of_another_layout_is_no_start() -> None:
    class There:
        directory = "earlier"
        config = StudyConfig(space=space())

    encoder = SearchSpace.from_dict({**SMALL, "blocks": {"n_layers": 1}, "budget": {"macs": 10**6}})
    with pytest.raises(
        StudyError, match="'n_layers_down_1' is there, not here: give both spaces the same layout"
    ):
        _check_knobs(There(), StudyConfig(space=encoder))  # type: ignore[arg-type]


def test_a_range_of_counts_ends_on_its_grid() -> None:
    for high in (5, 6):
        found = space(blocks={"count": {"low": 3, "high": high, "step": 2}})
        assert [count for count in range(1, 9) if f"n_layers_down_{count}" in found.knobs()] == [1, 2, 3]


def test_a_table_names_both_ways() -> None:
    def row(found: SearchSpace) -> tuple[str, str]:
        spec = member(found).spec
        words = network_row({"cost": cost_record(spec), "network": spec.to_full_dict()})
        return words["topology"], words["aggregation"]

    assert row(space(blocks={"topology": {"down": "dense", "up": "chain"}})) == ("dense/chain", "sum")
    assert row(space(blocks={"count": 1, "topology": {"down": "dense", "up": "chain"}})) == ("dense", "sum")


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": {"count": 4}},
         "blocks.count: layout 'encoder_decoder' goes down and up again: an odd number of blocks, got 4"),
        ({"blocks": {"count": {"low": 3, "high": 5}}},
         "blocks.count: layout 'encoder_decoder' goes down and up again: an odd number of blocks, got 4"),
        ({"blocks": {"count": {"any_of": [3, 6]}}},
         "blocks.count: layout 'encoder_decoder' goes down and up again: an odd number of blocks, got 6"),
        ({"blocks": {"count": {"any_of": [3, 9]}}},
         "input: 16 x 24 pixels cannot be halved 4 times: with 9 blocks height and width must be multiples "
         "of 16: use 16 x 32 pixels or 7 blocks"),
        ({"head": {"any_of": ["pixels", "pool"]}},
         "head: 'pool' predicts images: layout 'encoder_decoder' needs a head for pixels, such as 'pixels'"),
        ({"blocks": {"topology": {"down": "dense"}}},
         "blocks.topology: down and up are needed, up is missing"),
        ({"blocks": {"topology": {"down": "dense", "up": "dense", "middle": "chain"}}},
         "blocks.topology: unknown key 'middle'. Known: down, up."),
        ({"blocks": {"n_layers": {"down": 1, "up": {"low": 1}}}},
         "blocks.n_layers.up: a range needs low and high, high is missing"),
        ({"blocks": {"n_layers": {"down": 1, "up": 0}}}, "blocks.n_layers: must be at least 1, got 0"),
        ({"layout": "encoder", "blocks": {"n_layers": {"down": 1, "up": 1}}},
         "blocks.n_layers: a way down and a way up need layout 'encoder_decoder', this is 'encoder'"),
        ({"layout": "encoder", "hubs": 1}, "hubs: needs layout 'encoder_decoder', this is 'encoder'"),
        ({"layout": "encoder", "up": "deconv"}, "up: needs layout 'encoder_decoder', this is 'encoder'"),
        ({"compression": {"low": 0.5, "high": 1.5}}, "compression: must be at most 1, got 1.5"),
        ({"hubs": -1}, "hubs: must be at least 0, got -1"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_refused_is_said_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        space(**changes)
