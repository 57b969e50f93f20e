"""Recipes: what they fill, that what is given wins, and that what is recorded stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from connsearch.config import read_toml
from connsearch.errors import SpecError, StudyError
from connsearch.search.config import StudyConfig
from connsearch.search.study import check_same
from connsearch.train import TrainConfig
from connsearch.train.recipes import RECIPES, Recipe

SPACE = {
    "input": {"channels": 1, "height": 8, "width": 8},
    "n_classes": 10,
    "blocks": {"n_layers": {"low": 1, "high": 3}},
    "budget": {"macs": 100_000},
}
PAPER = {
    "epochs": 300,
    "batch_size": 64,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "decay_norms": True,
    "schedule": "step",
    "milestones": (0.5, 0.75),
    "gamma": 0.1,
    "label_smoothing": 0.0,
    "augment": True,
    "ema": 0.0,
}


def config(**values: Any) -> TrainConfig:
    return TrainConfig.from_dict({"dataset": "digits"} | values)


def study(**train: Any) -> StudyConfig:
    return StudyConfig.from_dict({"space": SPACE, "train": {"dataset": "digits"} | train})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fills_what_is_not_given_and_nothing_else(name: str) -> None:
    filled, plain = config(recipe=name, threads=2), config(threads=2)
    values = RECIPES[name].values
    for key in TrainConfig.model_fields:
        if key in ("recipe", "filled_from"):
            assert getattr(filled, key) == name
        else:
            assert getattr(filled, key) == values.get(key, getattr(plain, key)), key
    assert values.keys() <= TrainConfig.model_fields.keys() - {"dataset", "recipe", "filled_from", "threads"}


@pytest.mark.parametrize("name", RECIPES)
def test_its_values_are_shown_as_a_file_has_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(f'train = {{ dataset = "digits", {RECIPES[name]} }}')
    written = TrainConfig.from_dict(read_toml(path)["train"])
    assert written.identity() == config(recipe=name).identity()


def test_the_paper_s_recipe_has_the_paper_s_numbers() -> None:
    filled = config(recipe="delugenet")
    assert {key: getattr(filled, key) for key in PAPER} == PAPER


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_given_wins_even_if_it_is_the_default(name: str) -> None:
    default = config()
    for key in RECIPES[name].values:
        given_value = getattr(default, key)
        assert getattr(config(recipe=name, **{key: given_value}), key) == given_value, key


def test_a_study_names_a_recipe_and_sets_some_values_itself(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    table = "\n".join(
        [
            "space.input = { channels = 1, height = 8, width = 8 }",
            "space.n_classes = 10",
            "space.blocks.n_layers = 2",
            "space.budget.macs = 100_000",
            '[train]\ndataset = "digits"\nrecipe = "delugenet"\nepochs = 30',
        ]
    )
    path.write_text(table)
    read = StudyConfig.from_toml(path)
    assert (read.train.epochs, read.train.schedule) == (30, "step")
    other = StudyConfig.from_toml(path, ["train.recipe=fast", "train.lr=0.3"])
    assert (other.train.epochs, other.train.schedule, other.train.lr) == (30, "one_cycle", 0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"recipe": "fats"},
            r"^recipe: unknown recipe 'fats'\. Did you mean 'fast'\? Known: delugenet, fast, ",
        ),
        ({"recipe": 3}, r"^recipe: should be a valid string, got 3"),
        ({"recipe": ["fast"]}, r"^recipe: should be a valid string, got \['fast'\]"),
        (
            {**TrainConfig(dataset="digits").identity(), "recipe": "fast"},
            r"^recipe: 'fast' fills nothing, all that it says is given: leave it out, or what it is to",
        ),
        ({"recipe": "fast", "lr": -1.0}, r"^lr: should be greater than 0, got -1"),
        ({"recipe": "fast", "warmup_epochs": 1.0}, r"^warmup_epochs = 1.0 is not for 'one_cycle'.*set peak"),
        (
            {"recipe": "fast", "filled_from": "delugenet"},
            r"^filled_from: these values were filled from recipe 'delugenet', not from 'fast': leave out",
        ),
        ({"filled_from": "fast"}, r"^filled_from: these values were filled from recipe 'fast', not from ''"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as found:
        config(**values)
    assert "\n" not in str(found.value)


def test_a_mistake_in_a_study_has_its_place_there() -> None:
    with pytest.raises(SpecError, match=r"^train\.recipe: unknown recipe 'fsat'\. Did you mean 'fast'\?"):
        study(recipe="fsat")


WRITINGS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "short": lambda c: TrainConfig.from_dict(json.loads(json.dumps(c.to_dict()))),
    "full": lambda c: TrainConfig.from_dict(json.loads(json.dumps(c.to_full_dict()))),
    "json": lambda c: TrainConfig.from_json(c.to_json()),
}


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_record_stays_when_its_recipe_changes(
    monkeypatch: pytest.MonkeyPatch, writing: str, change: str
) -> None:
    before = config(recipe="fast", lr=0.3, epochs=5)
    data = {"short": before.to_dict(), "full": before.to_full_dict(), "json": before.to_json()}[writing]
    if change == "gone":
        monkeypatch.delitem(RECIPES, "fast")
    else:
        monkeypatch.setitem(RECIPES, "fast", Recipe("Other.", {"lr": 9.0, "mixup": 0.5, "grad_clip": 1.0}))
        assert config(recipe="fast").mixup == 0.5, "the test can fail"
    read = TrainConfig.from_json(data) if isinstance(data, str) else TrainConfig.from_dict(data)
    assert read == before
    assert read.recipe == "fast"
    assert WRITINGS[writing](read) == before, "and so does a record of the record"
    assert read.model_copy(update={"epochs": 7}) == before.replaced(epochs=7), "and a copy"


def test_a_recorded_study_stays_when_its_recipe_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = study(recipe="fast")
    record = json.dumps(there.to_full_dict())
    monkeypatch.setitem(RECIPES, "fast", Recipe("Other.", {"lr": 9.0}))
    assert StudyConfig.from_json(record) == there
    with pytest.raises(StudyError, match=r"holds another study: train\.\w+ is .* there, .* here"):
        check_same(Path("runs/x"), StudyConfig.from_json(record), study(recipe="fast"))


def test_a_study_is_the_same_however_its_values_were_written() -> None:
    named = study(recipe="delugenet", epochs=4)
    written = study(**{**RECIPES["delugenet"].values, "epochs": 4})
    assert named != written
    check_same(Path("runs/x"), named, written)


def test_a_copy_with_another_recipe_is_filled_anew() -> None:
    mine = config(recipe="fast", lr=0.3)
    other = mine.model_copy(update={"recipe": "delugenet"})
    assert other == config(recipe="delugenet", lr=0.3)
    assert mine.model_copy(update={"recipe": ""}).replaced(filled_from="") == config(lr=0.3)
    assert config(lr=0.3).model_copy(update={"recipe": "fast"}) == mine
    record = TrainConfig.from_dict(mine.to_full_dict())
    with pytest.raises(SpecError, match="filled_from: these values were filled from recipe 'fast', not from"):
        record.model_copy(update={"recipe": "delugenet"})


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {"dataset": st.just("digits"), "recipe": st.sampled_from(["", *RECIPES])},
        optional={
            "epochs": st.sampled_from([2, 12, 300]),
            "lr": st.sampled_from([0.1, 0.3]),
            "decay_norms": st.booleans(),
            "schedule": st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
            "ema": st.sampled_from([0.0, 0.99]),
            "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
            "pipeline": st.sampled_from(["none", "fused"]),
        },
    )
)
def test_every_writing_gives_the_value_back(data: dict[str, Any]) -> None:
    before = TrainConfig.from_dict(data)
    for read in WRITINGS.values():
        assert read(before) == before
        assert hash(read(before)) == hash(before)
    for key, value in data.items():
        assert getattr(before, key) == value or key == "dataset"


@pytest.mark.parametrize(
    ("precision", "layout", "device", "bfloat16", "last"),
    [
        ("auto", "auto", "cpu", False, False),
        ("auto", "auto", "cuda:1", True, True),
        ("float32", "auto", "cuda", False, False),
        ("bfloat16", "auto", "cpu", True, True),
        ("bfloat16", "channels_first", "cuda", True, False),
        ("float32", "channels_last", "cpu", False, True),
    ],
)
def test_auto_follows_the_device(
    precision: str, layout: str, device: str, bfloat16: bool, last: bool
) -> None:
    how = config(precision=precision, layout=layout)
    assert (how.in_bfloat16(device), how.in_channels_last(device)) == (bfloat16, last)
