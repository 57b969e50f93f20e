"""Trials whose networks are one network, perhaps spelled otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import SPACE, make_config

from connsearch.search.config import StudyConfig
from connsearch.search.objective import evaluate_network
from connsearch.search.retrain import retrain_exactly
from connsearch.search.study import Study
from connsearch.search.twins import network_hash

TWO_SPELLINGS: dict[str, Any] = {
    **SPACE,
    "blocks": {
        "count": 1,
        "topology": {"any_of": ["chain", "nearest(k=1)"]},
        "aggregation": "sum",
        "n_layers": 2,
    },
    "budget": {"macs": 200_000, "tolerance": 0.2},
}
"""Two topologies that read the same: all trials have one network."""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Study]:
    def start(**changes: Any) -> Study:
        config: StudyConfig = make_config(space=TWO_SPELLINGS, n_trials=4, **changes)
        study = Study.from_config(tmp_path / "study", config)
        study.run(device="cpu")
        return study

    return start


def test_two_spellings_have_one_hash_and_a_wider_network_another() -> None:
    config = make_config(space=TWO_SPELLINGS)
    chain, nearest = (config.space.member({"topology": name}) for name in ("chain", "nearest(k=1)"))
    assert chain.spec != nearest.spec
    assert network_hash(chain.spec) == network_hash(nearest.spec)
    wider = make_config(space=TWO_SPELLINGS | {"budget": {"macs": 400_000}}).space.member(
        {"topology": "chain"}
    )
    assert network_hash(wider.spec) != network_hash(chain.spec)


def test_a_duplicate_is_trained_with_seeds_of_its_own(run: Callable[..., Study]) -> None:
    first, *others = run().trials()
    assert {trial.params["topology"] for trial in [first, *others]} == {"chain", "nearest(k=1)"}
    assert "twin" not in first.user_attrs
    assert [trial.user_attrs["twin"] for trial in others] == [0, 0, 0]
    losses = [trial.user_attrs["curve"][0]["train_loss"] for trial in [first, *others]]
    assert len(set(losses)) == len(losses)


def test_a_result_is_reused_and_can_be_repeated(
    run: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def counted(spec: Any, config: Any, **given: Any) -> Any:
        trained.append(given["trial"])
        return evaluate_network(spec, config, **given)

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", counted)
    study = run(duplicates="reuse")
    first, *others = study.trials()
    assert trained == [0]
    for trial in others:
        assert (trial.values, trial.user_attrs["curve"]) == (first.values, first.user_attrs["curve"])
        assert trial.user_attrs["environment"] == first.user_attrs["environment"]
        assert (trial.user_attrs["twin"], trial.user_attrs["seeds_of"]) == (0, 0)
    assert retrain_exactly(study, 3).equal


def test_what_diverged_is_not_reused(run: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    from made_up import diverged_outcome

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", diverged_outcome)
    study = run(duplicates="reuse")
    assert all("twin" not in trial.user_attrs for trial in study.trials())
