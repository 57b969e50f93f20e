"""Presets as first trials: what the space can express of them, what is said, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up import SPACE, make_config

from connsearch.errors import BudgetError, SpecError
from connsearch.search.config import StudyConfig
from connsearch.search.shapes import shape_of
from connsearch.search.space import SearchSpace
from connsearch.search.study import Study
from connsearch.search.transfer.preset_knobs import preset_knobs
from connsearch.search.transfer.warm_start import check_start, first_trials, given_knobs, start_lines
from connsearch.spec.presets import list_presets, preset

WIDE: dict[str, Any] = {
    "scope": {"any_of": ["block", "global"]},
    "transition": {"any_of": ["conv", "pool"]},
    "blocks": {
        "count": {"low": 1, "high": 4},
        "topology": {"any_of": ["chain", "dense", "log_dense", "loglog_dense", "nearest", "sparse"]},
        "aggregation": {"any_of": ["sum", "concat", "depthwise"]},
        "unit": {"any_of": ["basic", "conv", "dense_bottleneck", "bottleneck(expansion=2)"]},
        "n_layers": {"low": 2, "high": 40},
        "width_ratio": {"low": 1.0, "high": 4.0},
    },
    "budget": {"macs": {"low": 50_000_000, "high": 800_000_000}},
}


def space(**changes: Any) -> SearchSpace:
    return SearchSpace.from_dict(WIDE | changes)


def blocks(**changes: Any) -> dict[str, Any]:
    return {"blocks": WIDE["blocks"] | changes}


# ---- knobs of a preset ---------------------------------------------------------------------------------


def test_a_preset_that_the_space_has_is_all_there() -> None:
    knobs, notes = preset_knobs("sparsenet-bc-100-16-32-64", space())
    assert {name: str(value) for name, value in knobs.items()} == {
        "scope": "block", "stem": "conv", "transition": "pool", "carry": "pool", "head": "pool",
        "up": "deconv(activation=relu, norm=batch)", "stem_ratio": "0", "hubs": "0", "compression": "0.0",
        "count": "3", "topology": "sparse", "aggregation": "concat", "unit": "dense_bottleneck",
        "n_layers_1": "16", "n_layers_2": "16", "n_layers_3": "16", "n_layers_4": "16",
        "width_ratio_2": "2.0", "width_ratio_3": "2.0", "width_ratio_4": "1.0",
    }  # fmt: skip
    assert notes == ("no compression",)


@pytest.mark.parametrize(
    ("name", "topology", "aggregation", "depths", "said"),
    [
        ("densenet-40-12", "dense", "concat", (12, 12, 12), "no compression"),
        ("delugenet-146", "dense", "depthwise", (8, 16, 24), "its entry unit is a layer"),
        ("sparsenet-40-24-sum", "sparse", "sum", (6, 6, 6), ""),
        ("resnet-56", "dense", "sum", (9, 9, 9), "dense x sum: its shortcuts add up all earlier layers"),
        ("wrn-28-10", "dense", "sum", (4, 4, 4), "dense x sum: its shortcuts"),
        ("delugenet-218-base-1x1", "dense", "sum", (12, 24, 36), "dense x sum: its shortcuts"),
        ("log-densenet-v2-12-24", "log_dense", "concat", (12, 12, 12), "without its context"),
        ("loglog-densenet-32-24", "loglog_dense", "concat", (32, 32, 32), "over the whole depth"),
    ],
)
def test_families(name: str, topology: str, aggregation: str, depths: tuple[int, ...], said: str) -> None:
    knobs, notes = preset_knobs(name, space())
    assert (str(knobs["topology"]), str(knobs["aggregation"])) == (topology, aggregation)
    assert tuple(knobs[f"n_layers_{b}"] for b in range(1, 4)) == depths
    assert said in "; ".join(notes)


def test_a_rule_over_the_whole_depth_is_searched_where_the_space_has_it() -> None:
    assert preset_knobs("log-densenet-v1-12-24", space())[0]["scope"] == "global"
    knobs, notes = preset_knobs("log-densenet-v1-12-24", space(scope="block"))
    assert knobs["scope"] == "block"
    assert "scope block for global" in notes


def test_numbers_are_clipped_and_said() -> None:
    narrow = space(**blocks(n_layers={"low": 2, "high": 10, "step": 4}, width_ratio=1.5, count=2))
    knobs, notes = preset_knobs("delugenet-146", narrow)
    assert (knobs["n_layers_1"], knobs["n_layers_2"]) == (6, 10)  # of 6 and 10 the lesser, for 8
    assert "its first 2 of 3 blocks" in notes
    assert "n_layers 6-10 for 8-16" in notes
    assert "width_ratio 1.5 for 2" in notes


def test_more_blocks_are_like_the_last() -> None:
    knobs, notes = preset_knobs("delugenet-146", space(**blocks(count={"low": 4, "high": 4})))
    assert (knobs["count"], knobs["n_layers_4"], knobs["width_ratio_4"]) == (4, 24, 1.0)
    assert "4 blocks for 3" in notes


def test_a_unit_that_the_space_lacks_is_said() -> None:
    knobs, notes = preset_knobs("densenet-40-12", space(**blocks(unit="basic")))
    assert str(knobs["unit"]) == "basic"
    assert "unit basic for conv" in notes


def test_categories_of_each_block() -> None:
    knobs, _ = preset_knobs("densenet-40-12", space(**blocks(per_block=["topology"]), scope="block"))
    assert {str(knobs[f"topology_{b}"]) for b in range(1, 5)} == {"dense"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sparsenet-40-24-base", "unknown preset .sparsenet-40-24-base."),
        (
            "delugenet-146-paper",
            r"has aggregation depthwise\(form=paper\), the space sum, concat, depthwise: put",
        ),
        ("evenly-spaced-densenet-12-24", r"has topology evenly_spaced, the space chain, .*The space has "),
        ("fractalnet-20", r"'fractalnet-20' is a graph of its own, which is no topology x aggregation"),
    ],
)
def test_what_the_space_lacks_is_refused(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        preset_knobs(name, space())


def test_every_preset_is_a_member_or_refused() -> None:
    """No preset ends in anything but knobs that the space takes, or our own error."""
    wide, found = space(), 0
    for name in list_presets():
        try:
            knobs, _ = preset_knobs(name, wide)
        except SpecError:
            continue
        searched = {key: knobs[key] for key in wide.knobs() if key != "macs_budget"}
        assert set(searched) == set(wide.knobs()) - {"macs_budget"}
        shape = shape_of(wide, {**knobs, "macs_budget": 1})
        assert [block.topology for block in shape.blocks] == [knobs["topology"]] * knobs["count"]
        found += 1
    assert found > 60


def test_depths_are_those_of_the_preset() -> None:
    name = "sparsenet-bc-100-16-32-64"
    knobs, _ = preset_knobs(name, space())
    shape = shape_of(space(), {**knobs, "macs_budget": 1})
    assert [block.n_layers for block in shape.blocks] == [block.n_layers for block in preset(name).blocks]


# ---- the first trials of a study -----------------------------------------------------------------------


def test_budgets_are_spread_from_end_to_end() -> None:
    warm = {"presets": ["densenet-40-12"], "budgets": 3}
    config = make_config(warm_start=warm)
    assert [start.knobs["macs_budget"] for start in first_trials(config)] == [50_000, 100_000, 200_000]
    ladder = make_config(space=SPACE | {"budget": {"macs": [200_000, 50_000, 60_000]}}, warm_start=warm)
    assert [start.knobs["macs_budget"] for start in first_trials(ladder)] == [50_000, 60_000, 200_000]
    one = make_config(space=SPACE | {"budget": {"macs": 80_000}}, warm_start=warm)
    assert len(first_trials(one)) == 1  # the same network three times is one


def test_given_knobs_end_with_the_first_trials() -> None:
    config = make_config(warm_start={"presets": ["densenet-40-12", "resnet-20"]})
    assert given_knobs(config, 0) == first_trials(config)[0].knobs
    assert given_knobs(config, 2) is None  # two presets, and no designs of another study
    assert given_knobs(make_config(), 0) is None


def test_the_first_trials_are_trained_and_the_rest_is_drawn(tmp_path: Path, made_up: None) -> None:
    warm = {"presets": ["densenet-40-12", "resnet-20"], "budgets": 2}
    config = make_config(warm_start=warm, sampler="nsga2(population_size=4)", n_trials=10)
    study = Study.from_config(tmp_path / "study", config)
    study.run(device="cpu")
    trials = study.trials()
    starts = first_trials(config)
    assert [trial.params for trial in trials[:4]] == [start.knobs for start in starts]
    for trial, member in zip(trials, check_start(config), strict=False):
        assert trial.user_attrs["network"] == member.spec.to_full_dict()
        assert member.meets_budget
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in trials]
    assert generations == [0] * 4 + [1] * 4 + [2] * 2, "given trials are the first generation"


@pytest.mark.parametrize("sampler", ["random", "tpe(n_startup_trials=2)", "nsga2(population_size=3)"])
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, made_up: None, sampler: str) -> None:
    config = make_config(warm_start={"presets": ["densenet-40-12", "resnet-20"]}, sampler=sampler)
    whole = Study.from_config(tmp_path / "whole", config)
    whole.run(8, device="cpu")
    for count in (1, 3, 4, 8):
        parts = Study.from_config(tmp_path / "parts", config)
        parts.run(count, device="cpu")
    assert [t.params for t in parts.trials()] == [t.params for t in whole.trials()]
    assert [t.values for t in parts.trials()] == [t.values for t in whole.trials()]


def test_a_preset_too_dear_is_refused_before_the_study(tmp_path: Path) -> None:
    deep = SPACE | {
        "blocks": SPACE["blocks"] | {"n_layers": {"any_of": [1, 12]}, "count": 1},
        "budget": {"macs": 9_000, "min_width": 8, "tolerance": 0.9},
    }
    config = make_config(space=deep, warm_start={"presets": ["densenet-40-12"]})
    with pytest.raises(BudgetError, match=r"warm_start: densenet-40-12: "):
        check_start(config)


def test_lines_name_each_trial_and_what_is_lost() -> None:
    config = make_config(warm_start={"presets": ["densenet-40-12"]})
    (line,) = start_lines(config)
    assert line.startswith("trial 0 is densenet-40-12 at 100 k MACs: dense x concat, layers ")
    assert "n_layers 3-3 for 12-12" in line
    assert start_lines(make_config()) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "warm_start: name presets or a study"),
        ({"presets": ["resnet-20", "resnet-20"]}, r"warm_start\.presets: 'resnet-20' is named twice"),
        (
            {"study": "x", "trials": 0, "prior": False},
            "warm_start: trials = 0 and prior = false take nothing",
        ),
        ({"presets": ["resnet-20"], "budgets": 0}, r"warm_start\.budgets: should be greater"),
    ],
)
def test_a_table_that_says_nothing_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_config(warm_start=table)


def test_an_unknown_preset_names_its_place() -> None:
    config = make_config(warm_start={"presets": ["densenet-40-13"]})
    with pytest.raises(
        SpecError, match=r"^warm_start\.presets: unknown preset 'densenet-40-13'.*Did you mean"
    ):
        first_trials(config)


def test_another_start_is_another_study(tmp_path: Path, made_up: None) -> None:
    from connsearch.errors import StudyError

    Study.from_config(tmp_path / "study", make_config(warm_start={"presets": ["resnet-20"]}))
    with pytest.raises(StudyError, match=r"holds another study: warm_start\.presets is"):
        Study.from_config(tmp_path / "study", make_config(warm_start={"presets": ["resnet-32"]}))
    with pytest.raises(StudyError, match="holds another study: warm_start"):
        Study.from_config(tmp_path / "study", make_config())


def test_a_study_file_has_the_table(tmp_path: Path) -> None:
    config = make_config(warm_start={"presets": ["resnet-20"], "study": "../runs/other"})
    (tmp_path / "study.toml").write_text(config.to_toml())
    read = StudyConfig.from_toml(tmp_path / "study.toml")
    assert read.identity() == config.identity()
    assert read.warm_start is not None
    assert read.warm_start.directory == tmp_path / "../runs/other"
