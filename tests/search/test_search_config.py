from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.search.choices import IntRange
from connsearch.search.config import OBJECTIVES, StudyConfig
from connsearch.search.samplers import SAMPLERS
from connsearch.search.space import SearchSpace

ROOT = Path(__file__).parents[2]

SPACE = """
input = { channels = 1, height = 8, width = 8 }
n_classes = 4
[blocks]
n_layers = { low = 1, high = 3 }
[budget]
macs = 100_000
"""
STUDY = """
schema = 1
question = "Why?"
space = "spaces/small.toml"
objectives = { val_error = "minimize", macs = "minimize" }
n_trials = 5
seed = 3
[sampler]
name = "tpe"
n_startup_trials = 4
[train]
dataset = "digits"
epochs = 2
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/small.toml").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def test_the_space_lies_in_its_own_file_or_inline(files: Path) -> None:
    config = StudyConfig.from_toml(files / "study.toml")
    assert config.space == SearchSpace.from_toml(files / "spaces/small.toml")
    assert (config.question, config.n_trials, config.seed) == ("Why?", 5, 3)
    assert config.sampler == Ref("tpe", (("n_startup_trials", 4),))
    assert config.objectives == {"val_error": "minimize", "macs": "minimize"}
    inline = files / "inline.toml"
    inline.write_text(config.to_toml())
    assert "small.toml" not in inline.read_text()
    assert StudyConfig.from_toml(inline) == config


def test_the_path_of_the_space_is_relative_to_the_study(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = files / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert StudyConfig.from_toml("../study.toml").space.n_classes == 4


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_studies_are_read(file: Path) -> None:
    config = StudyConfig.from_toml(file)
    assert config.question
    config.space.check()


def test_overrides_take_the_place_of_what_the_file_says(files: Path) -> None:
    config = StudyConfig.from_toml(
        files / "study.toml",
        [
            "seed=7",
            "train.epochs = 9",
            "train.dataset=synthetic(n_train=64)",
            "sampler=random",
            'question="Because = so"',
            "space.budget.macs={ low = 100_000, high = 200_000 }",
            "space.blocks.n_layers.high=4",
            "space.blocks.topology=chain",
            "objectives={ params = 'maximize' }",
        ],
    )
    assert (config.seed, config.train.epochs, config.n_trials) == (7, 9, 5)
    assert config.train.dataset == Ref("synthetic", (("n_train", 64),))
    assert config.sampler == Ref("random")
    assert config.question == "Because = so"
    assert config.space.budget.macs == IntRange(100_000, 200_000, log=True)
    assert config.space.blocks.n_layers == IntRange(1, 4)
    assert config.space.blocks.topology.value == Ref("chain")
    assert config.objectives == {"params": "maximize"}


def test_an_override_reaches_into_a_table_that_is_not_there(files: Path) -> None:
    (files / "plain.toml").write_text('space = "spaces/small.toml"')
    config = StudyConfig.from_toml(files / "plain.toml", ["train.dataset=digits", "train.lr=1"])
    assert config.train.lr == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set takes key=value, got 'seed'"),
        ("=3", "--set takes key=value, got '=3'"),
        ("seed.x=3", "--set seed.x=3: 'seed' is a value, not a table"),
        ("seeds=3", "{}: seeds: unknown key. Did you mean 'seed'? Known: "),
        ("seed=", "{}: seed: must be an integer, got ''"),
        ("seed=-1", "{}: seed: should be greater than or equal to 0, got -1"),
        ("seed=[1", "{}: seed: must be an integer, got '[1'"),
        ("n_trials=0", "{}: n_trials: should be greater than or equal to 1, got 0"),
        ("train.epochs=many", "{}: train.epochs: must be an integer, got 'many'"),
        ("train.dataset=digts", "{}: train.dataset: unknown dataset 'digts'. "
                                "Did you mean 'digits'? Known: cifar_binary, digits, hub, idx, "
                                "image_folder, mask_folder, parquet, synthetic."),
        ("sampler=tpee", "{}: sampler: unknown sampler 'tpee'. "
                         "Did you mean 'tpe'? Known: gp, nsga2, random, tpe."),
        ("space.blocks.count=0", "{}: space.blocks.count: must be at least 1, got 0"),
        ("space.blocks.topology=densee", "{}: space.blocks.topology: unknown topology 'densee'. "
                                         "Did you mean 'dense'? Known: "),
        ("objectives={}", "{}: objectives: name at least one objective"),
        ("objectives.val_eror=minimize",
         "{}: objectives: unknown objective 'val_eror'. Did you mean 'val_error'? "
         "Known: inference_bytes, macs, params, training_bytes, val_error, val_iou_error."),
        ("objectives.val_iou_error=minimize",
         "{}: objectives: val_error and val_iou_error are two errors: name one"),
        ("objectives.macs=smallest",
         "{}: objectives.macs: should be 'minimize' or 'maximize', got 'smallest'"),
        ("objectives=[1]", "{}: objectives: must be a table, got [1]"),
    ],
)  # fmt: skip
def test_a_bad_override_is_named(files: Path, override: str, message: str) -> None:
    study = files / "study.toml"
    with pytest.raises(SpecError, match=f"^{re.escape(message.replace('{}', str(study), 1))}"):
        StudyConfig.from_toml(study, [override])


def test_every_objective_has_a_direction(files: Path) -> None:
    for left_out in ("val_error", "val_iou_error"):
        names = [name for name in OBJECTIVES if name != left_out]
        all_of_them = ", ".join(f"{name} = 'maximize'" for name in names)
        config = StudyConfig.from_toml(files / "study.toml", [f"objectives={{ {all_of_them} }}"])
        assert config.objectives == dict.fromkeys(names, "maximize")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "spaces/small.toml: no such file"),
        ("[blocks", "spaces/small.toml: is no TOML: "),
        ("", "spaces/small.toml: blocks: is missing (and 1 more)"),
        (SPACE + "[more]", "spaces/small.toml: more: unknown key. "),
        (SPACE.replace("100_000", "'x'"), "spaces/small.toml: budget.macs: must be an integer, got 'x'"),
    ],
)
def test_what_is_wrong_with_the_space_names_its_own_file(
    files: Path, content: str | None, message: str
) -> None:
    space = files / "spaces/small.toml"
    if content is None:
        space.unlink()
    else:
        space.write_text(content)
    with pytest.raises(SpecError, match=f"^{re.escape(f'{files}/{message}')}"):
        StudyConfig.from_toml(files / "study.toml")


def test_a_study_needs_a_space(files: Path) -> None:
    (files / "bare.toml").write_text("seed = 1")
    with pytest.raises(SpecError, match=r"bare\.toml: space: is missing$"):
        StudyConfig.from_toml(files / "bare.toml")


SAME = [["question=other"], ["n_trials=99"], ["sampler.name=tpe"], ["train.lr=0.1"], ["seed=3"]]
OTHER: list[tuple[list[str], dict[str, Any]]] = [
    (["seed=4"], {"seed": 4}),
    (["train.epochs=3"], {"train.epochs": 3}),
    (["sampler=random"], {"sampler": "random"}),
    (["space.n_classes=5"], {"space.n_classes": 5}),
    (["objectives.macs=maximize"], {"objectives.macs": "maximize"}),
    (["space.blocks.n_layers=2"], {"space.blocks.n_layers": 2}),
]


@pytest.mark.parametrize("overrides", SAME, ids=str)
def test_what_leaves_a_study_the_same(files: Path, overrides: list[str]) -> None:
    study = files / "study.toml"
    assert StudyConfig.from_toml(study, overrides).identity() == StudyConfig.from_toml(study).identity()


@pytest.mark.parametrize(("overrides", "difference"), OTHER, ids=str)
def test_what_makes_another_study(files: Path, overrides: list[str], difference: dict[str, Any]) -> None:
    study = files / "study.toml"
    old = StudyConfig.from_toml(study).identity()
    new = StudyConfig.from_toml(study, overrides).identity()
    assert {key: value for key, value in new.items() if old.get(key) != value} == difference


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_can_be_named(files: Path, name: str) -> None:
    assert StudyConfig.from_toml(files / "study.toml", [f"sampler={name}"]).sampler == Ref(name)
