"""Studies that prune: what is decided, recorded, told and read, and that a kill changes none of it."""

from __future__ import annotations

import copy
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eager import EAGER, EPOCHS, HALVING, HASTY, config, epochs, pruned, run
from made_up import diverged_outcome, made_up_error, make_config
from rich.console import Console

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.search.failures import reached
from connsearch.search.given import Given
from connsearch.search.hooks import Progress
from connsearch.search.objective import Outcome
from connsearch.search.progress import ConsoleProgress
from connsearch.search.pruning.replay import replay
from connsearch.search.pruning.rules import PRUNED, Pruned, make_pruner
from connsearch.search.pruning.stops import curves_of
from connsearch.search.reading.records import front_frame, status_of
from connsearch.search.samplers import SAMPLERS
from connsearch.search.session import closing_line
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.result import EpochRecord, StopTraining, TrainResult


def falling_error(spec: NetworkSpec, epoch: int) -> float:
    """Return an error that falls from epoch to epoch, and where ranks change on the way."""
    last = made_up_error(spec)
    return last + (1 - last) * (1 - epoch / EPOCHS) * ((network_cost(spec).macs * 31 % 100) / 100)


def falling_outcome(
    spec: NetworkSpec,
    train_config: object,
    *,
    on_epoch: Callable[[EpochRecord], None],
    **_: Any,
) -> Outcome:
    """Stand in for `evaluate_network`."""
    curve: list[EpochRecord] = []
    for epoch in range(1, EPOCHS + 1):
        error = falling_error(spec, epoch)
        curve.append(EpochRecord(epoch, 0.1, 1.5, error, 1.5, error, 0.5))
        try:
            on_epoch(curve[-1])
        except StopTraining:
            break
    return Outcome(network_cost(spec), TrainResult(tuple(curve), diverged=False, seconds=0.5))


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", falling_outcome)


# ---- what is decided -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize("pruner", [EAGER, HALVING], ids=lambda pruner: pruner["name"])
def test_a_study_prunes_what_its_replay_would(tmp_path: Path, pruner: dict[str, Any]) -> None:
    """The sampler draws at random, so that the trials are those of the study that never prunes."""
    whole = run(tmp_path / "whole", pruner="none")
    assert {*epochs(whole)} == {EPOCHS}
    study = run(tmp_path / "pruned", pruner=pruner)
    rule = make_pruner(study.config.pruner, EPOCHS)
    expected = replay(rule, curves_of(whole.trials(), whole.config.objectives))
    assert epochs(study) == expected.epochs
    assert {*expected.epochs} >= {1, 2, EPOCHS}
    for trial in study.trials():
        if PRUNED in trial.user_attrs:
            why, curve = Pruned(**trial.user_attrs[PRUNED]), trial.user_attrs["curve"]
            errors = [epoch["val_error"] for epoch in curve]
            assert (why.epoch, why.val_error) == (len(curve), min(errors))
            assert why.bound < why.val_error
            assert 2 <= why.peers <= trial.number
            assert why.dominated_by >= 1
            assert trial.values[0] == trial.user_attrs["val_error"] == errors[-1]


@pytest.mark.usefixtures("falling")
def test_what_the_study_itself_asks_for_is_trained_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = run(tmp_path / "drawn")
    assert pruned(drawn)
    monkeypatch.setattr(
        "connsearch.search.attempt.given",
        lambda config, number, trials: Given(drawn.trials()[number].params, number),
    )
    assert {*epochs(run(tmp_path / "given"))} == {EPOCHS}


@pytest.mark.usefixtures("falling")
def test_a_decision_on_record_holds(tmp_path: Path) -> None:
    """As where another attempt had decided with other trials before it, or its checkpoint is lost."""
    study = Study.from_config(tmp_path, config(pruner={**EAGER, "min_peers": 9}))
    study.run(3, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        study.run(4, device="cpu", progress=Progress(trial_started=_interrupt))
    why = Pruned(2, 0.5, 0.25, 9, 4).to_dict()
    study._study._storage.set_trial_user_attr(study.trials()[3]._trial_id, PRUNED, why)
    study.run(4, device="cpu")
    assert study.trials()[3].user_attrs[PRUNED] == why
    assert epochs(study) == (EPOCHS, EPOCHS, EPOCHS, 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# ---- what others see of it -----------------------------------------------------------------------------


@pytest.mark.usefixtures("falling")
def test_pruned_trials_are_counted_and_never_ranked(tmp_path: Path) -> None:
    study = run(tmp_path / "study")
    out = pruned(study)
    status = study.status()
    assert status.states == {"complete": 16 - len(out), "failed": 0, "pruned": len(out), "unfinished": 0}
    assert status.finished == 16
    assert f", {len(out)} pruned; best trial" in closing_line(study)
    front = study.pareto_front()
    assert {*front.trials["trial"]} == {*range(16)} - {*out}
    assert not any(reached(study.trials()[number]) for number in out)


@pytest.mark.usefixtures("falling")
def test_the_best_is_not_a_pruned_one(tmp_path: Path) -> None:
    """Whatever its error: one trial is pruned by order, and has the least error of all."""
    study = Study.from_config(tmp_path, config(pruner="none"))
    study.run(4, device="cpu")
    best = min(study.trials(), key=lambda trial: trial.values[0])
    trials = copy.deepcopy(study.trials())
    trials[best.number].user_attrs[PRUNED] = Pruned(1, 0.5, 0.25, 3, 1).to_dict()
    found = status_of(trials, 4, study.config.objectives).best
    assert found is not None
    assert found["trial"] != best.number
    assert best.number not in set(front_frame(trials, ("val_error", "macs"))["trial"])


def test_progress_says_why_and_does_not_take_it_for_the_best() -> None:
    member = make_config().space.member(
        {"macs_budget": 50_000, "count": 1, "topology": "chain", "aggregation": "sum",
         "n_layers_1": 1, "n_layers_2": 1, "width_ratio_2": 1.0}
    )  # fmt: skip
    record = EpochRecord(1, 0.1, 1.5, 0.25, 1.5, 0.25, 0.5)
    outcome = Outcome(
        network_cost(member.spec),
        TrainResult((record,), diverged=False, seconds=0.5),
        Pruned(1, 0.25, 0.125, 8, 4),
    )
    stream = io.StringIO()
    console, best = Console(file=stream, width=400), {"trial": 0, "val_error": 0.5, "macs": 1.0}
    objectives = {"val_error": "minimize", "macs": "minimize"}
    with ConsoleProgress(5, lambda: 1, EPOCHS, console, objectives=objectives, best=best) as shown:
        shown.hooks().trial_ended(1, outcome)
    line = stream.getvalue()
    assert (
        ", 0.5 s, pruned after epoch 1: error 25.0 %, over 12.5 % of 8 trials · best 50.0 % (trial 0)" in line
    )


@pytest.mark.usefixtures("falling")
def test_a_pruned_trial_is_nobodys_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = run(tmp_path, duplicates="reuse")
    first = pruned(study)[0]
    knobs = study.trials()[first].params
    monkeypatch.setattr(
        "connsearch.search.attempt.given", lambda config, number, trials: Given(knobs, number)
    )
    study.run(17, device="cpu")
    last = study.trials()[16]
    assert last.user_attrs["hash"] == study.trials()[first].user_attrs["hash"]
    assert "twin" not in last.user_attrs
    assert len(last.user_attrs["curve"]) == EPOCHS


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "gp" else []) for n in sorted(SAMPLERS)]
)
def test_every_sampler_goes_on_after_pruned_failed_and_diverged_trials(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(spec: NetworkSpec, train_config: object, **given: Any) -> Outcome:
        if given["trial"] == 3:
            raise ValueError("broken")
        return (diverged_outcome if given["trial"] == 4 else falling_outcome)(spec, train_config, **given)

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", sometimes)
    early = {"tpe": {"n_startup_trials": 8}, "gp": {"n_startup_trials": 10}, "nsga2": {"population_size": 5}}
    study = run(tmp_path, 11, sampler={"name": name, **early.get(name, {})})
    assert study.status().finished == 11
    assert study.status().reasons == {"ValueError: broken": 1, "diverged": 1}
    assert any(number < 10 for number in pruned(study))
    assert {trial.state.name for trial in study.trials()} == {"COMPLETE"}


@pytest.mark.usefixtures("falling")
def test_two_workers_prune_and_lose_nothing(tmp_path: Path) -> None:
    """What each trial was compared with is then a matter of who was faster; the record holds what it was."""
    Study.from_config(tmp_path, config())
    workers = [
        threading.Thread(target=lambda: Study.load(tmp_path).run(device="cpu"), daemon=True) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    study = Study.load(tmp_path)
    assert [trial.number for trial in study.trials()] == list(range(16))
    assert study.status().finished == 16
    assert pruned(study)
    for trial in study.trials():
        why = trial.user_attrs.get(PRUNED, {"epoch": EPOCHS, "peers": 0})
        assert len(trial.user_attrs["curve"]) == why["epoch"]
        assert why["peers"] <= trial.number


def test_only_trials_of_lower_numbers_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 2 is cut off, and taken over when trial 3 has ended."""
    errors = {0: 0.1, 1: 0.2, 2: 0.9, 3: 0.05}

    def constant(spec: NetworkSpec, config: Any, *, trial: int, on_epoch: Any, **_: Any) -> Outcome:
        monkeypatch.setattr(f"{__name__}.falling_error", lambda spec, epoch: errors[trial])
        return falling_outcome(spec, config, on_epoch=on_epoch)

    def cut_off(number: int, record: EpochRecord) -> None:
        if number == 2:
            other.start()
            end = time.monotonic() + 60
            while time.monotonic() < end and not any(t.state.is_finished() for t in study.trials()[3:]):
                time.sleep(0.01)
            raise KeyboardInterrupt

    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", constant)
    study = Study.from_config(tmp_path, config(pruner={**HASTY, "band": 1e9}))
    other = threading.Thread(target=lambda: Study.load(tmp_path).run(4, device="cpu"), daemon=True)
    with pytest.raises(KeyboardInterrupt):
        study.run(4, device="cpu", progress=Progress(epoch_ended=cut_off))
    other.join(60)
    why = Study.load(tmp_path).trials()[2].user_attrs[PRUNED]
    assert (why["epoch"], why["peers"], why["bound"]) == (1, 2, pytest.approx(0.15))


# ---- the configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": "medain"}, r"^pruner: unknown pruner 'medain'\. Did you mean 'median'\? Known: "),
        ({"pruner": {"name": "median", "bnd": 2}}, r"^pruner: pruner 'median' has no parameter 'bnd'\. "),
        ({"pruner": {"name": "median", "band": 0.5}}, r"^pruner: pruner 'median': band must be 1 or more"),
        ({"pruner": {"name": "median", "first_epoch": 4}},
         r"^pruner: pruner 'median' could never act: its first_epoch is 4, the last of a trial 4; lower"),
        ({"objectives": {"macs": "minimize"}},
         r"^pruner: 'median' compares errors: add val_error = 'minimize' to the objectives, or leave "),
        ({"objectives": {"macs": "minimize", "val_error": "maximize"}}, "^pruner: 'median' compares errors"),
    ],
)  # fmt: skip
def test_a_pruner_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        config(**changes)


def test_another_pruner_is_another_study() -> None:
    assert config().identity()["pruner.band"] == 4.0
    assert config(pruner="none").identity()["pruner"] == "none"
