"""Replicates: whose trials are repeated, who is trained next, when it is enough, what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import SPACE as SMALL, StandIn, made_up_outcome, make_config
from optuna.trial import FrozenTrial, TrialState, create_trial

from connsearch.cost import network_cost
from connsearch.errors import SpecError, StudyError
from connsearch.search.replicates.confirmed import ConfirmedFront, confirmed_front
from connsearch.search.replicates.plan import (
    Candidate,
    Planned,
    ReplicatesConfig,
    errors_of,
    replicates_of,
    schedule,
)
from connsearch.search.replicates.session import begin_replicates, read_replicates, run_replicates
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec

SPACE = {**SMALL, "budget": {"macs": {"low": 200_000, "high": 2_000_000}}}
"""Wide enough that ten trials are ten networks."""


class Trainer(StandIn):
    """An error that falls with the cost, and luck of the seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.luck = 0.01
        self.fails = False

    def reach(self, spec: NetworkSpec, study_seed: int, trial: int) -> tuple[float, bool]:
        macs = network_cost(spec).macs
        self.trained.append((macs, study_seed, trial))
        if self.fails:
            raise ValueError("no luck")
        luck = np.random.default_rng([study_seed, trial, macs]).normal() * self.luck
        return float(np.clip(0.1 + 10_000 / macs + luck, 0, 1)), False


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    found = Trainer()
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", found)
    return found


@pytest.fixture
def screen(tmp_path: Path, trainer: Trainer) -> Callable[..., Path]:
    """Run a study and return its directory."""

    def run(name: str = "s", **changes: Any) -> Path:
        study = Study.from_config(tmp_path / name, make_config(**{"n_trials": 10, "space": SPACE, **changes}))
        study.run(device="cpu")
        trainer.trained.clear()
        return study.directory

    return run


def confirm(directory: Path, n: int | None = None, **choices: Any) -> ConfirmedFront:
    return run_replicates(begin_replicates(directory, **choices)[0], n, "cpu")


# ---- whose trials --------------------------------------------------------------------------------------


def near(directory: Path, **choices: Any) -> list[int]:
    table = replicates_of(Study.load(directory), **choices)[0].replicates
    assert table is not None
    return sorted(candidate.trial for candidate in table.candidates)


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.02, 1.0])
def test_near_the_front_is_what_a_margin_says(screen: Callable[..., Path], margin: float) -> None:
    directory = screen()
    frame = Study.load(directory).pareto_front().trials
    expected = [
        row.trial
        for row in frame.itertuples()
        if row.val_error - frame[frame.macs <= row.macs].val_error.min() <= margin
    ]
    assert near(directory, margin=margin) == expected
    if margin == 0:
        assert near(directory, margin=0.0) == sorted(Study.load(directory).pareto_front().points["trial"])


def test_by_default_it_is_a_standard_error_of_the_validation_split(screen: Callable[..., Path]) -> None:
    directory = screen()
    frame = Study.load(directory).pareto_front().trials
    least = [frame[frame.macs <= macs].val_error.min() for macs in frame.macs]
    allowed = [(e * (1 - e) / 32) ** 0.5 for e in least]  # the data set has 32 images for validation
    expected = frame.trial[(frame.val_error - least <= allowed).to_numpy()]
    assert near(directory) == sorted(expected)


def test_the_nearest_are_taken_and_the_others_counted(screen: Callable[..., Path]) -> None:
    directory = screen()
    config, left_out = replicates_of(Study.load(directory), margin=1.0, most=3)
    assert config.replicates is not None
    assert (len(config.replicates.candidates), left_out) == (3, 7)
    front = set(Study.load(directory).pareto_front().points["trial"])
    assert {c.trial for c in config.replicates.candidates} <= front


def test_one_network_is_one_candidate(screen: Callable[..., Path]) -> None:
    space = {**make_config().space.to_dict(), "budget": {"macs": 200_000, "tolerance": 0.2}}
    space["blocks"] = {
        "count": 1, "topology": {"any_of": ["chain", "nearest(k=1)"]}, "aggregation": "sum", "n_layers": 2,
    }  # fmt: skip
    assert len(near(screen(space=space), margin=1.0)) == 1


def test_other_objectives_are_refused(screen: Callable[..., Path]) -> None:
    directory = screen(objectives={"macs": "maximize", "params": "minimize"})
    with pytest.raises(
        StudyError, match=r"^replicates need val_error and costs to be minimised, the objectives"
    ):
        begin_replicates(directory)


def test_a_study_without_a_finished_trial_has_none(tmp_path: Path) -> None:
    Study.from_config(tmp_path / "s", make_config())
    with pytest.raises(StudyError, match=r"s: no finished trial to repeat: run the study first$"):
        begin_replicates(tmp_path / "s")
    assert not (tmp_path / "s/replicates").exists()


def test_wrong_values() -> None:
    with pytest.raises(SpecError, match=r"^replicates\.candidates: "):
        make_config(replicates={"candidates": []})


# ---- who is next ---------------------------------------------------------------------------------------


def table_of(*macs: int) -> ReplicatesConfig:
    return ReplicatesConfig(
        candidates=tuple(
            Candidate(trial=i, knobs={"macs_budget": m}, val_error=0.1, costs={"macs": m}, macs=m, params=1,
                      topology="chain", aggregation="sum")
            for i, m in enumerate(macs)
        )
    )  # fmt: skip


def finished(table: ReplicatesConfig, planned: list[Planned], errors: list[float]) -> list[FrozenTrial]:
    """Return trials that trained what is planned, and reached these errors."""
    return [
        create_trial(
            state=TrialState.COMPLETE, values=[error], user_attrs={"val_error": error},
            params=dict(table.candidates[p.candidate].knobs),
            distributions={"macs_budget": _whole()},
        )
        for p, error in zip(planned, errors, strict=False)
    ]  # fmt: skip


def _whole() -> Any:
    from optuna.distributions import IntDistribution

    return IntDistribution(1, 10**9)


def test_first_every_candidate_has_two_seeds() -> None:
    table = table_of(1, 2, 3)
    expected = [Planned(c, s) for s in (0, 1) for c in (0, 1, 2)]
    assert schedule(table, []) == (expected, False)
    assert schedule(table, finished(table, expected, [0.1] * 5)) == (expected, False)


def test_what_is_far_apart_is_settled_at_once() -> None:
    table = table_of(1, 2, 3)
    planned = schedule(table, []).planned
    trials = finished(table, planned, [0.3, 0.2, 0.4, 0.301, 0.201, 0.401])
    assert schedule(table, trials) == (planned, True)
    assert errors_of(table, trials) == [[0.3, 0.301], [0.2, 0.201], [0.4, 0.401]]


def test_only_open_places_are_trained_further_and_who_lags_behind_first() -> None:
    table = table_of(1, 2, 3)
    trials = finished(table, schedule(table, []).planned, [0.3, 0.2, 0.201, 0.301, 0.203, 0.202])
    third = schedule(table, trials).planned
    assert third[6:] == [Planned(1, 2), Planned(2, 2)]
    # both are settled against each other, but now the second is near the first, which has fewer seeds
    trials += finished(table, third[6:], [0.5, 0.2])
    assert schedule(table, trials).planned[8:] == [Planned(0, 2)]


def test_a_candidate_whose_trainings_all_failed_is_let_go() -> None:
    table = table_of(1, 2)
    planned = schedule(table, []).planned
    trials = finished(table, planned, [0.3, 0.3, 0.301, 0.301])
    for trial in trials[1::2]:
        trial.user_attrs = {"reason": "no luck"}
    assert schedule(table, trials) == (planned, True)


def test_cheaper_networks_are_the_rivals() -> None:
    table = table_of(1, 2)
    planned = schedule(table, []).planned
    dominated = finished(table, planned, [0.1, 0.3, 0.101, 0.301])
    found = confirmed_front(make_config(replicates=table), dominated)
    assert found.front.points["trial"].tolist() == [0]
    better = finished(table, planned, [0.3, 0.1, 0.301, 0.101])
    assert confirmed_front(make_config(replicates=table), better).front.points["trial"].tolist() == [0, 1]
    assert all(row.settled for row in found.rows)


# ---- running -------------------------------------------------------------------------------------------


def test_it_ends_early_when_places_are_settled(screen: Callable[..., Path], trainer: Trainer) -> None:
    trainer.luck = 0.00001
    directory = screen()
    found = confirm(directory, 1_000, margin=1.0)
    assert found.settled
    assert len(trainer.trained) == found.n_trials == 20
    assert "every place is settled: each mean differs from the least one" in str(found)
    assert "by a 95 % interval looked at after each round" in str(found)


def test_it_ends_when_the_trainings_are_spent_and_goes_on_with_more(
    screen: Callable[..., Path], trainer: Trainer
) -> None:
    trainer.luck = 0.05
    directory = screen()
    found = confirm(directory, 25, margin=1.0)
    assert (found.n_trials, found.settled, len(trainer.trained)) == (25, False, 25)
    assert "open, as more seeds may change it: the places of trials" in str(found)
    assert confirm(directory, 30).n_trials == len(trainer.trained) == 30
    assert confirm(directory).n_trials == len(trainer.trained) == 50  # 5 for each of 10 candidates


def test_seeds_are_fresh_and_alike_for_all(screen: Callable[..., Path], trainer: Trainer) -> None:
    confirm(screen(), 20, margin=1.0)
    assert {seed for _, seed, _ in trainer.trained} == {replicates_seed()}
    assert [trial for _, _, trial in trainer.trained] == [0] * 10 + [1] * 10


def replicates_seed() -> int:
    seed = int(np.random.SeedSequence([0, 0x5EED]).generate_state(1)[0])
    assert seed != make_config().seed
    return seed


@pytest.mark.parametrize("after", [3, 23])
def test_stopped_and_resumed_equals_never_stopped(
    screen: Callable[..., Path], trainer: Trainer, after: int
) -> None:
    trainer.luck = 0.05
    unbroken = confirm(screen("unbroken"), 30, margin=1.0)
    directory = screen("stopped")
    trainer.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        confirm(directory, 30, margin=1.0)
    resumed = confirm(directory, 30)
    assert resumed.rows == unbroken.rows
    assert len(trainer.trained) == 30


def test_whose_trials_they_are_is_chosen_once(screen: Callable[..., Path]) -> None:
    directory = screen()
    confirm(directory, 4, margin=0.0)
    before = Study.load(directory / "replicates").config
    Study.load(directory).run(15, device="cpu")
    confirm(directory, 6)
    assert Study.load(directory / "replicates").config == before
    with pytest.raises(
        StudyError, match=r"replicates have begun there, and whose they are stays: remove it to"
    ):
        confirm(directory, margin=0.1)


def test_replicates_cannot_be_run_further_than_they_are_planned(
    screen: Callable[..., Path], trainer: Trainer
) -> None:
    trainer.luck = 0.00001
    study, _ = begin_replicates(screen(), margin=0.0)
    with pytest.raises(
        StudyError, match=r"^what replicate \d+ trains follows from those before it: run `connsear"
    ):
        study.run(1_000, device="cpu")


@pytest.mark.slow
def test_they_lie_in_the_studys_own_storage(
    screen: Callable[..., Path], tmp_path: Path, trainer: Trainer
) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    for name in ("one", "two"):
        Study.from_config(tmp_path / name, make_config(n_trials=6), url).run(device="cpu")
        found = confirm(tmp_path / name, 8, margin=0.5)
        assert found.n_trials == 8
        assert not (tmp_path / name / "replicates/journal.log").exists()
    (tmp_path / "one/replicates/storage.toml").unlink()  # as on another host
    (tmp_path / "one/replicates/study.toml").unlink()
    assert read_replicates(tmp_path / "one").n_trials == 8
    assert confirm(tmp_path / "one", 9).n_trials == 9


# ---- what it shows -------------------------------------------------------------------------------------


def test_fresh_seeds_show_how_lucky_the_front_was(screen: Callable[..., Path], trainer: Trainer) -> None:
    trainer.luck = 0.05
    directory = screen(n_trials=24)
    found = confirm(directory, 48, margin=1.0, most=24)
    front = Study.load(directory).pareto_front().points["trial"].tolist()
    optimism = {row.candidate.trial: row.mean - row.candidate.val_error for row in found.rows}
    assert found.optimism == pytest.approx(np.mean(list(optimism.values())))
    assert found.front_optimism == pytest.approx(np.mean([optimism[trial] for trial in front]))
    assert found.front_optimism > 0.01
    for row in found.rows:
        assert row.mean == pytest.approx(np.mean(row.errors))
        assert row.interval.low < row.mean < row.interval.high
    assert f"{100 * found.front_optimism:.2f} points too low" in str(found)


def test_the_front_is_that_of_the_means(screen: Callable[..., Path], tmp_path: Path) -> None:
    found = confirm(screen(), margin=1.0)
    rows = {row.candidate.trial: row for row in found.rows}
    beaten = [
        trial for trial, row in rows.items()
        if any(o.candidate.macs <= row.candidate.macs and o.mean < row.mean for o in rows.values())
    ]  # fmt: skip
    assert set(found.front.points["trial"]) == rows.keys() - set(beaten)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [point["trial"] for point in plain["points"]] == found.front.points["trial"].tolist()
    assert plain["hypervolume"] == found.front.hypervolume
    assert len(plain["candidates"]) == 10
    found.to_csv(tmp_path / "c.csv")
    header = (tmp_path / "c.csv").read_text().splitlines()[0].split(",")
    assert {"trial", "val_error", "val_error_low", "seeds", "screened_val_error", "on_front"} <= {*header}


def test_failures_are_counted_and_none_is_an_error(screen: Callable[..., Path], trainer: Trainer) -> None:
    directory = screen()
    trainer.fails = True
    with pytest.raises(StudyError, match=r"^no replicate is finished yet"):
        confirm(directory, 2)
    with pytest.raises(StudyError, match=r"^no replicate is finished yet"):
        read_replicates(directory)
    trainer.fails = False
    found = confirm(directory, 20)
    assert found.failed == 2
    assert "2 failed" in str(found).splitlines()[0]


def test_there_is_nothing_to_read_before_it_began(screen: Callable[..., Path]) -> None:
    directory = screen()
    with pytest.raises(StudyError, match=r"s: no replicates there: begin them with `connsearch replicate "):
        read_replicates(directory)
    with pytest.raises(StudyError, match=r"^this study repeats no trials"):
        confirmed_front(make_config(), [])


def test_the_made_up_study_has_a_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With errors that know no luck, fresh seeds give the same front."""
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", made_up_outcome)
    study = Study.from_config(tmp_path / "s", make_config(n_trials=12))
    study.run(device="cpu")
    found = confirm(tmp_path / "s", 100, margin=0.0)
    assert found.front.points["trial"].tolist() == study.pareto_front().points["trial"].tolist()
    assert found.optimism == found.front_optimism == 0.0


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        study = Study.from_config(tmp_path / f"{workers}", make_config(n_trials=4, space=SPACE))
        study.run(device="cpu")
        begun, _ = begin_replicates(study.directory, margin=1.0)
        found.append(run_replicates(begun, 11, "cpu", workers=workers))
    assert found[0].rows == found[1].rows
    assert found[0].n_trials == 11
