"""Real trainings of a study that prunes: repeated from the record, cut off, killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eager import EPOCHS, HASTY, epochs, pruned, run

from connsearch.search.attempt import _Attempt
from connsearch.search.hooks import Progress
from connsearch.search.objective import Outcome
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.retrain import retrain_exactly
from connsearch.search.study import Study
from connsearch.train.result import EpochRecord

TPE = {"name": "tpe", "n_startup_trials": 3}


def record(study: Study) -> list[Any]:
    def curve(trial: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in trial.user_attrs["curve"]]

    return [(t.params, t.values, curve(t), t.user_attrs.get(PRUNED)) for t in study.trials()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run(tmp_path_factory.mktemp("trained") / "study", 6, pruner=HASTY, sampler=TPE)


def test_a_pruned_trial_is_repeated_up_to_where_it_ended(
    trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = pruned(trained)[0]
    trial = trained.trials()[number]
    last = trial.user_attrs[PRUNED]["epoch"]
    assert last < EPOCHS
    seen: list[int] = []
    found = retrain_exactly(trained, number, on_epoch=lambda record: seen.append(record.epoch))
    assert found.equal
    assert found.epochs == last
    assert seen == list(range(1, last + 1))
    longer = {**trial.user_attrs[PRUNED], "epoch": last + 1}
    trials = trained.trials()
    monkeypatch.setattr(trials[number], "user_attrs", {**trial.user_attrs, PRUNED: longer})
    monkeypatch.setattr(trained, "trials", lambda: trials)
    assert retrain_exactly(trained, number).difference == f"differs: {last} epochs recorded, {last + 1} now"


@pytest.mark.parametrize("epoch", [1, 2])
def test_cut_off_at_an_epoch_and_resumed_equals_never_stopped(
    trained: Study, tmp_path: Path, epoch: int
) -> None:
    """Every trial is cut off at that epoch, after its checkpoint and before the decision."""
    seen: set[int] = set()

    def once(number: int, record: EpochRecord) -> None:
        if record.epoch == epoch and number not in seen:
            seen.add(number)
            raise KeyboardInterrupt

    study = Study.from_config(tmp_path, trained.config)
    for _ in range(7):
        try:
            study.run(6, device="cpu", progress=Progress(epoch_ended=once))
        except KeyboardInterrupt:
            study = Study.load(tmp_path)
    assert record(study) == record(trained)
    assert len(seen) == sum(n >= epoch for n in epochs(trained))
    assert 0 < len(pruned(study)) < 6


def test_killed_between_decision_and_end_equals_never_killed(
    trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, number = Study.from_config(tmp_path, trained.config), pruned(trained)[0]
    record_outcome = _Attempt._record_outcome

    def interrupted(attempt: _Attempt, outcome: Outcome) -> None:
        if outcome.pruned is not None:
            raise KeyboardInterrupt
        record_outcome(attempt, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(_Attempt, "_record_outcome", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.run(6, device="cpu")
    cut_off = Study.load(tmp_path).trials()[number]
    assert not cut_off.state.is_finished()
    assert cut_off.user_attrs[PRUNED] == trained.trials()[number].user_attrs[PRUNED]
    Study.load(tmp_path).run(6, device="cpu")
    assert record(Study.load(tmp_path)) == record(trained)
