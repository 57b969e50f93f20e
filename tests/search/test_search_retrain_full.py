"""Winners of a study trained in full: which, how, and what of them comes out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from made_up import make_config

from connsearch.cost import network_cost
from connsearch.errors import DataError, SpecError, StudyError, TrainError
from connsearch.search.memory import OutOfMemoryError
from connsearch.search.retrain_full import (
    front_trials,
    full_config,
    read_retrained,
    retrain_trials,
    winner_of,
)
from connsearch.search.retrained import Retrained, RetrainedTrials, Winner
from connsearch.search.study import Study
from connsearch.spec import NetworkSpec
from connsearch.train import SeedResult, Summary, TrainConfig, load_trained


@pytest.fixture
def study(tmp_path: Path, made_up: None) -> Study:
    """Four trials whose errors are made up."""
    study = Study.from_config(tmp_path / "study", make_config())
    study.run(4, device="cpu")
    return study


def seed_result(seed: int, error: float | None) -> SeedResult:
    return SeedResult(seed, 1, error is None, 1.0, 0.2, None, None, 0.3, error, None)


def row(trial: int, macs: int, *errors: float | None) -> Retrained:
    spec = NetworkSpec.from_dict({"blocks": [{"n_layers": 1, "width": 4}], "n_classes": 4})
    results = tuple(seed_result(seed, error) for seed, error in enumerate(errors))
    summary = Summary("net", macs, 900, "synthetic", ("train", "val"), 96, 32, 1, results)
    return Retrained(Winner(trial, spec, "dense", "sum", macs, 900, 0.25), summary)


# ---- which, and how ------------------------------------------------------------------------------------


def test_a_winner_is_what_the_study_recorded(study: Study) -> None:
    attrs = study.trials()[2].user_attrs
    winner = winner_of(study, 2)
    assert winner.spec == NetworkSpec.from_dict(attrs["network"])
    assert winner.macs == network_cost(winner.spec).macs
    assert winner.val_error == attrs["val_error"]
    assert front_trials(study) == study.pareto_front().points["trial"].tolist()


def test_a_study_without_a_front(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "study", make_config())
    with pytest.raises(
        StudyError, match=r"study: no trial yet that can be ranked: there is no front to retrain$"
    ):
        front_trials(study)


def test_the_studys_own_training_unless_something_is_said() -> None:
    studied = make_config().train
    assert full_config(studied, None) == studied
    changed = full_config(studied, None, ["lr=0.5", "epochs=7"])
    assert changed == studied.model_copy(update={"lr": 0.5, "epochs": 7})


def test_a_recipe_takes_the_place_of_what_it_says_and_of_nothing_else() -> None:
    studied = make_config().train.model_copy(update={"threads": 2, "lr": 0.7, "head_weight": 0.9})
    found = full_config(studied, "delugenet", ["epochs=5"])
    pure = TrainConfig.from_dict({"dataset": studied.dataset, "recipe": "delugenet", "epochs": 5})
    assert (found.lr, found.schedule, found.batch_size) == (pure.lr, "step", pure.batch_size)
    assert (found.threads, found.head_weight, found.epochs) == (2, 0.9, 5)
    again = full_config(found, "fast")  # of a study that had a recipe itself
    assert (again.recipe, again.schedule, again.epochs) == ("fast", "one_cycle", 5)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("fst", [], r"^recipe: unknown recipe 'fst'\. Did you mean 'fast'\?"),
        (None, ["lrr=1"], r"^lrr: unknown key\. Did you mean 'lr'\?"),
        (None, ["lr"], r"^--set takes key=value, got 'lr'$"),
    ],
)
def test_a_mistake_in_a_configuration(recipe: str | None, changes: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        full_config(make_config().train, recipe, changes)


# ---- training ------------------------------------------------------------------------------------------


def test_what_comes_of_it(study: Study, tmp_path: Path) -> None:
    found = retrain_trials(study, [2, 0, 2], study.config.train, (0, 1))
    where = study.directory / "retrained"
    assert {path.name for path in where.iterdir() if path.is_dir()} == {"trial-0", "trial-2"}
    assert [each.winner.macs for each in found.rows] == sorted(each.winner.macs for each in found.rows)
    assert found.rows[0].summary.train_images == 64 + 32
    trained = load_trained(where / "trial-2" / "seed-1" / "weights.safetensors")
    assert trained.network.spec == winner_of(study, 2).spec
    assert json.loads((where / "summary.json").read_text()) == found.to_dict()
    with (where / "summary.csv").open() as file:
        assert [int(line["trial"]) for line in csv.DictReader(file)] == [r.winner.trial for r in found.rows]
    later = retrain_trials(study, [1], study.config.train, (0,))
    assert {each.winner.trial for each in later.rows} == {0, 1, 2}
    assert read_retrained(study) == later
    other = tmp_path / "other"
    retrain_trials(study, [1], full_config(study.config.train, None, ["epochs=2"]), (0,), output=other)
    assert read_retrained(study, other).rows[0].summary.epochs == 2


def test_another_configuration_or_study_in_the_same_directory(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    retrain_trials(study, [0], study.config.train, (0,), output=out)
    with pytest.raises(
        TrainError, match=r"out: holds other trainings: train\.lr is 0\.1 there, 0\.2 here: give"
    ):
        retrain_trials(study, [1], full_config(study.config.train, None, ["lr=0.2"]), (0,), output=out)
    other = Study.from_config(tmp_path / "other", make_config(seed=5))
    other.run(1, device="cpu")
    with pytest.raises(TrainError, match=r"out: holds other trainings: study\.seed is 0 there, 5 here"):
        retrain_trials(other, [0], other.config.train, (0,), output=out)


def test_what_cannot_be_retrained_is_told_before_anything_is_written(study: Study) -> None:
    config = study.config.train
    with pytest.raises(StudyError, match=r"study: no trial 9: it has 4, counted from 0$"):
        retrain_trials(study, [0, 9], config, (0,))
    with pytest.raises(
        StudyError, match=r"retrained: no trial is retrained there: `connsearch retrain DIR --front`"
    ):
        read_retrained(study)
    with pytest.raises(DataError, match=r"^dataset 'synthetic' holds 3 x 16 x 16"):
        retrain_trials(study, [0], full_config(config, None, ["dataset=synthetic"]), (0,))
    assert not (study.directory / "retrained").exists()


def test_what_does_not_fit_into_memory(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.memory.free_bytes", lambda device: 10)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory on cpu, predicted: .* 10B are free$"):
        retrain_trials(study, [0], study.config.train, (0,))
    assert not (study.directory / "retrained").exists()


# ---- as text and numbers -------------------------------------------------------------------------------


def test_a_table_of_winners() -> None:
    rows = (row(4, 60_000, 0.10, 0.11, 0.12), row(1, 150_000, 0.05, None), row(3, 160_000, None))
    assert str(RetrainedTrials("runs/x", rows)) == (
        "runs/x: 3 trials, 1 epoch on 96 training + validation images\n"
        "trial  topology  aggregation   MACs  params  val error      test error     low     high   seeds\n"
        "    4  dense     sum           60 k     900    25.00 %  11.00 ± 1.00 %  8.52 %  13.48 %       3\n"
        "    1  dense     sum          150 k     900    25.00 %          5.00 %       -        -  1 of 2\n"
        "    3  dense     sum          160 k     900    25.00 %               -       -        -  0 of 1\n"
        "val error: of the study, one seed; test error: mean ± standard deviation of fresh seeds on 32 "
        "images; low, high: 95 % interval of the mean\n"
        "2 trainings diverged: they are in no mean"
    )


def test_numbers_of_a_winner() -> None:
    found: dict[str, Any] = row(4, 60_000, 0.10, 0.11, 0.12).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (found["test_error"], found["test_error_deviation"]) == pytest.approx((0.11, 0.01))
    assert (found["test_error_min"], found["test_error_max"], found["seeds"]) == (0.10, 0.12, 3)
    nothing = row(3, 160_000, None).to_dict()
    assert found.keys() == nothing.keys()
    assert (nothing["test_error"], nothing["test_error_low"], nothing["diverged"]) == (None, None, 1)
