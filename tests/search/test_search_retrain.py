"""A trial's curve from its record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_up import diverged_outcome, make_config

from connsearch.errors import StudyError
from connsearch.search.retrain import _difference, retrain_exactly
from connsearch.search.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two trials that were trained for real, by a sampler that looks at what came before."""
    train = {**make_config().train.to_full_dict(), "epochs": 2}
    study = Study.from_config(tmp_path_factory.mktemp("retrain") / "study", make_config(train=train))
    study.run(2, device="cpu")
    return study


def test_the_curve_is_reproduced(study: Study) -> None:
    found = retrain_exactly(study, 1)
    assert found.equal
    assert found.changed == {}
    assert str(found) == "trial 1: equal, all 2 epochs value for value"


def change(study: Study, monkeypatch: pytest.MonkeyPatch, **attrs: Any) -> None:
    """Change what the record says."""
    trials = study.trials()
    frozen = trials[1]
    monkeypatch.setattr(frozen, "user_attrs", {**frozen.user_attrs, **attrs})
    monkeypatch.setattr(study, "trials", lambda: trials, raising=True)


def test_another_curve_and_another_environment_are_told(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    attrs = study.trials()[1].user_attrs
    curve = [dict(epoch) for epoch in attrs["curve"]]
    curve[1]["train_loss"] += 1e-9
    change(study, monkeypatch, curve=curve)
    found = retrain_exactly(study, 1)
    assert not found.equal
    loss = attrs["curve"][1]["train_loss"]
    assert str(found).splitlines() == [
        f"trial 1: differs from epoch 2 on: train_loss {curve[1]['train_loss']!r} recorded, {loss!r} now",
        "machine and versions are those of the record: a bug, or a data set that has changed",
    ]
    change(study, monkeypatch, curve=attrs["curve"], environment={**attrs["environment"], "torch": "2.4.0"})
    found = retrain_exactly(study, 1)
    torch = attrs["environment"]["torch"]
    assert str(found).splitlines() == [
        "trial 1: equal, all 2 epochs value for value", f"torch    2.4.0 recorded, {torch} here",
    ]  # fmt: skip
    assert json.loads(json.dumps(found.to_dict()))["changed"] == {
        "torch": {"recorded": "2.4.0", "here": torch}
    }


def test_times_are_not_compared() -> None:
    one, other = {"epoch": 1, "seconds": 1.0}, {"epoch": 1, "seconds": 2.0}
    assert _difference([one], [other]) == ""
    assert _difference([one], []) == "differs: 1 epochs recorded, 0 now"


def test_a_trial_without_a_curve(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"study: no trial 2: it has 2, counted from 0$"):
        retrain_exactly(study, 2)
    other = Study.from_config(tmp_path, make_config())
    other._study.ask()
    with pytest.raises(StudyError, match=r": trial 0 is not finished: go on with the study first$"):
        retrain_exactly(other, 0)
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.memory.free_bytes", lambda device: 0)
        other.run(1)
    with pytest.raises(
        StudyError, match=r": trial 0 failed \(out of memory on cpu, predicted\): there is no"
    ):
        retrain_exactly(other, 0)


def test_a_trial_that_diverged_must_diverge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.from_config(tmp_path, make_config())
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.attempt.evaluate_network", diverged_outcome)
        study.run(1)
    assert retrain_exactly(study, 0).difference == "differs: 0 epochs recorded, 1 now"
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.retrain.evaluate_network", diverged_outcome)
        assert retrain_exactly(study, 0).equal
