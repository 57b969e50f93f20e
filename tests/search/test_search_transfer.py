"""What a study takes from another one: designs as first trials, results as a prior for its sampler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from made_up import SPACE, diverged_outcome, made_up_error, make_config
from optuna.trial import TrialState, create_trial

from connsearch.errors import StudyError
from connsearch.search.config import StudyConfig
from connsearch.search.samplers import distributions, make_sampler
from connsearch.search.storages import COPY
from connsearch.search.study import Study
from connsearch.search.transfer.prior import View, comparable, prior_trials, seen_by
from connsearch.search.transfer.studies import best_first
from connsearch.search.transfer.warm_start import EarlierTrial, WarmStart, start_lines

LARGE = SPACE | {"budget": {"macs": {"low": 200_000, "high": 800_000}}}
SAMPLERS = ("random", "tpe(n_startup_trials=4)", "nsga2(population_size=4)")


@pytest.fixture
def small(tmp_path: Path, made_up: None) -> Study:
    """A finished study at small budgets."""
    study = Study.from_config(tmp_path / "small", make_config(n_trials=12))
    study.run(device="cpu")
    return study


def large(small: Study, **changes: Any) -> StudyConfig:
    warm = changes.pop("warm_start", {"trials": 3})
    return make_config(**{"space": LARGE, "warm_start": {"study": str(small.directory), **warm}, **changes})


def blocks(**changes: Any) -> dict[str, Any]:
    return LARGE | {"blocks": SPACE["blocks"] | changes}


def warm_start(study: Study) -> WarmStart:
    assert study.config.warm_start is not None
    return study.config.warm_start


def earlier(study: Study) -> tuple[EarlierTrial, ...]:
    taken = warm_start(study).earlier
    assert taken is not None
    return taken.trials


# ---- what is taken -------------------------------------------------------------------------------------


def test_trials_come_over_at_their_place_in_the_budget(small: Study, tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "large", large(small))
    there = {trial.number: trial for trial in small.trials()}
    assert sorted(trial.trial for trial in earlier(study)) == sorted(there)
    for trial in earlier(study):
        old = there[trial.trial]
        assert trial.knobs["macs_budget"] == pytest.approx(4 * old.params["macs_budget"], rel=1e-4)
        rest = {name: value for name, value in trial.knobs.items() if name != "macs_budget"}
        assert rest == {name: value for name, value in old.params.items() if name != "macs_budget"}
        assert trial.error == old.user_attrs["val_error"]
        spec = study.config.space.member(trial.knobs).spec
        from connsearch.cost import network_cost

        assert trial.counted == {"macs": network_cost(spec).macs}


def test_the_front_is_trained_first(small: Study, tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "large", large(small, n_trials=5))
    study.run(device="cpu")
    front = set(small.pareto_front().points["trial"])
    firsts = [trial for trial in earlier(study) if trial.first]
    assert len(firsts) == 3
    assert {trial.trial for trial in firsts} <= front or front <= {trial.trial for trial in firsts}
    assert [trial.params for trial in study.trials()[:3]] == [trial.knobs for trial in firsts]


def test_the_other_study_is_never_needed_again(small: Study, tmp_path: Path, made_up: None) -> None:
    config = large(small, sampler="tpe(n_startup_trials=4)")
    whole = Study.from_config(tmp_path / "whole", config)
    whole.run(9, device="cpu")
    Study.from_config(tmp_path / "parts", config).run(4, device="cpu")
    shutil.rmtree(small.directory)
    for count in (5, 7, 9):
        Study.from_config(tmp_path / "parts", config).run(count, device="cpu")
    parts = Study.load(tmp_path / "parts")
    assert [t.params for t in parts.trials()] == [t.params for t in whole.trials()]
    assert [t.values for t in parts.trials()] == [t.values for t in whole.trials()]
    assert earlier(parts) == earlier(whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopped_and_resumed_equals_never_stopped(small: Study, tmp_path: Path, sampler: str) -> None:
    config = large(small, sampler=sampler)
    Study.from_config(tmp_path / "whole", config).run(11, device="cpu")
    for count in (2, 3, 6, 8, 11):
        Study.from_config(tmp_path / "parts", config).run(count, device="cpu")
    parts, whole = (Study.load(tmp_path / name).trials() for name in ("parts", "whole"))
    assert [t.params for t in parts] == [t.params for t in whole]


def test_the_prior_is_no_trial_of_the_study(small: Study, tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "large", large(small, n_trials=6))
    study.run(device="cpu")
    assert len(study.trials()) == 6
    assert study.status().finished == 6
    assert set(study.pareto_front().trials["trial"]) == set(range(6))
    copy = (study.directory / COPY).read_text()
    assert "earlier" not in copy, "the copy for people does not list them"
    assert len(json.loads(study._study.user_attrs["config"])["warm_start"]["earlier"]["trials"]) == 12


def test_the_path_is_relative_to_the_file(small: Study, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    file = tmp_path / "studies" / "large.toml"
    file.write_text(make_config(space=LARGE, warm_start={"study": "../small"}).to_toml())
    study = Study.from_config(tmp_path / "large", StudyConfig.from_toml(file))
    assert len(earlier(study)) == 12


def test_designs_alone(small: Study, tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "large", large(small, warm_start={"trials": 2, "prior": False}))
    assert [trial.first for trial in earlier(study)] == [True, True]
    assert seen_by(make_sampler(study.config.sampler, 0), study._study, study.config, {}) is study._study


def test_one_budget_there_is_spread_over_the_budgets_here(tmp_path: Path, made_up: None) -> None:
    there = make_config(space=SPACE | {"budget": {"macs": 100_000}}, n_trials=6)
    small = Study.from_config(tmp_path / "small", there)
    small.run(device="cpu")
    with pytest.raises(StudyError, match=r"knob 'macs_budget' is searched here and fixed there at 100,000"):
        Study.from_config(tmp_path / "large", large(small))
    config = large(small, warm_start={"prior": False, "trials": 3})
    study = Study.from_config(tmp_path / "large", config)
    assert [trial.knobs["macs_budget"] for trial in earlier(study)] == [200_000, 400_000, 800_000]


def test_a_fixed_knob_is_a_value(small: Study, tmp_path: Path) -> None:
    """Fixed here, it takes the trials that have its value; fixed there, all of them have that value."""
    study = Study.from_config(tmp_path / "large", large(small, space=blocks(aggregation="sum")))
    count = sum(trial.params["aggregation"] == "sum" for trial in small.trials())
    assert len(earlier(study)) == count
    assert any(f"{12 - count} of its trials left out: aggregation is concat there" in line
               for line in start_lines(study.config))  # fmt: skip
    again = large(study, space=LARGE)
    study.run(4, device="cpu")
    back = Study.from_config(tmp_path / "again", again)
    assert {trial.knobs["aggregation"] for trial in earlier(back)} == {"sum"}


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"count": {"low": 1, "high": 3}},
            r"small: knob 'n_layers_3' is here, not there: give both spaces the same",
        ),
        ({"count": 1}, r"small: knob 'n_layers_2' is there, not here"),
        ({"per_block": ["topology"]}, r"small: knob 'topology' is there, not here"),
        ({"topology": "log_dense"}, r"small: none of its 12 trials fits this space \(topology is "),
    ],
)
def test_other_knobs_are_refused(small: Study, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Study.from_config(tmp_path / "large", large(small, space=blocks(**changes)))
    assert not (tmp_path / "large").exists()


def test_no_study_there(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^warm_start\.study: .*nowhere: no study there"):
        Study.from_config(tmp_path / "new", make_config(warm_start={"study": str(tmp_path / "nowhere")}))


def test_nothing_finished_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", diverged_outcome)
    small = Study.from_config(tmp_path / "small", make_config(n_trials=2))
    small.run(device="cpu")
    with pytest.raises(StudyError, match="small: has no finished trial to begin with"):
        Study.from_config(tmp_path / "large", large(small))


# ---- which are best ------------------------------------------------------------------------------------


def test_best_first_takes_front_after_front() -> None:
    losses = np.array([[0.1, 9], [0.5, 1], [0.2, 9.5], [0.3, 5], [0.6, 2], [0.9, 9.9]])
    assert best_first(losses, 3) == [1, 3, 0]  # the front, by its second column
    assert best_first(losses, 2) == [1, 0]  # its ends
    assert best_first(losses, 5) == [1, 3, 0, 4, 2]
    assert best_first(losses, 99) == [1, 3, 0, 4, 2, 5]
    assert best_first(np.array([[0.3], [0.1], [0.2]]), 2) == [1, 2]


# ---- what samplers see ---------------------------------------------------------------------------------


def made(errors: list[float]) -> list[EarlierTrial]:
    return [
        EarlierTrial(trial=n, knobs={"x": n / 10}, error=error, counted={"macs": 100.0 + n})
        for n, error in enumerate(errors)
    ]


KNOBS = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


def own(x: float, error: float) -> optuna.trial.FrozenTrial:
    return create_trial(values=[error, 1.0], params={"x": x}, distributions=KNOBS)


def test_errors_move_by_the_designs_trained_in_both() -> None:
    trials = made([0.5, 0.2, 0.8])
    assert comparable(trials, [], []) == [0.5, 0.2, 0.8]
    moved = comparable(trials, [own(0.0, 0.2), own(0.77, 0.01)], [0.2, 0.01])  # x = 0 was trained in both
    assert moved == pytest.approx([0.2, 1 / (1 + 16), 0.5])  # odds of 1 become 1/4, so all are divided by 4
    assert np.argsort(moved).tolist() == [1, 0, 2]


def test_errors_move_by_their_medians_while_no_design_is_in_both() -> None:
    moved = comparable(made([0.5, 0.2, 0.8]), [own(0.9, 0.2)], [0.2])
    assert moved == pytest.approx([0.2, 1 / (1 + 16), 0.5])


def test_perfect_errors_stay_finite_and_ordered() -> None:
    moved = comparable(made([0.0, 0.5, 1.0]), [own(0.1, 0.0)], [0.0])
    assert np.isfinite(moved).all()
    assert moved == sorted(moved)


def test_own_trials_take_the_place_of_earlier_ones() -> None:
    sampler, trials = make_sampler(make_config().sampler, 0), made([0.5, 0.2, 0.8])
    assert [len(shown(sampler, trials, n)) for n in range(5)] == [3, 2, 1, 0, 0]
    left = shown(sampler, trials, 1)
    assert [trial.params["x"] for trial in left] == [0.1, 0.2]
    assert [trial.number for trial in left] == [-2, -1]
    assert [trial.values[1] for trial in left] == [101.0, 102.0]


def test_to_a_genetic_algorithm_they_are_the_first_generation() -> None:
    sampler = make_sampler(make_config(sampler="nsga2").sampler, 0)
    found = shown(sampler, made([0.5, 0.2, 0.8]), 5)
    assert [trial.system_attrs for trial in found] == [{"NSGAIISampler:generation": 0}] * 3


def shown(
    sampler: optuna.samplers.BaseSampler, trials: list[EarlierTrial], n_own: int
) -> list[optuna.trial.FrozenTrial]:
    mine = [own(0.95, 0.3)] * n_own
    return prior_trials(
        trials, mine, [0.3] * n_own, objectives=["val_error", "macs"], knobs=KNOBS, sampler=sampler
    )


def test_a_view_shows_them_in_front_and_records_nothing() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, params={"x": 0.5}, distributions=KNOBS))
    extra = create_trial(value=2.0, params={"x": 0.25}, distributions=KNOBS)
    view = View.of(study, [extra])
    assert [t.params["x"] for t in view._get_trials()] == [0.25, 0.5]
    assert [t.params["x"] for t in view._get_trials(states=(TrialState.COMPLETE,), use_cache=True)] == [
        0.25,
        0.5,
    ]
    assert view._get_trials(states=(TrialState.RUNNING,)) == []
    assert len(study.trials) == 1
    assert view._storage is study._storage


@pytest.mark.parametrize("sampler", ["tpe(n_startup_trials=4)", "nsga2(population_size=4)"])
def test_a_sampler_learns_from_the_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: None, sampler: str
) -> None:
    """In the other study all but one aggregation are hopeless: the first draws here have that one."""
    from made_up import made_up_outcome

    def error(spec: Any) -> float:
        good = spec.blocks[0].aggregation.name == "concat"
        return made_up_error(spec) / 10 if good else 0.9

    monkeypatch.setattr("made_up.made_up_error", error)
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", made_up_outcome)
    small = Study.from_config(
        tmp_path / "small", make_config(n_trials=30, objectives={"val_error": "minimize"})
    )
    small.run(device="cpu")
    counts = {}
    for prior in (True, False):
        hits = []
        for seed in range(5):
            config = large(
                small, warm_start={"trials": 1, "prior": prior}, sampler=sampler, seed=seed,
                objectives={"val_error": "minimize"},
            )  # fmt: skip
            study = Study.from_config(tmp_path / f"large-{prior}-{seed}", config)
            study.run(4, device="cpu")
            hits += [trial.params["aggregation"] == "concat" for trial in study.trials()[1:]]
        counts[prior] = sum(hits)
    assert counts[True] >= 12 > counts[False], "of 15 drawn trials"


def test_knobs_of_the_prior_are_those_of_the_study(small: Study, tmp_path: Path) -> None:
    """TPE and the others drop a knob from what they draw together if one trial has it otherwise."""
    study = Study.from_config(tmp_path / "large", large(small, sampler="tpe(n_startup_trials=4)"))
    study.run(4, device="cpu")
    knobs = distributions(study.config.space.knobs())
    sampler = make_sampler(study.config.sampler, 0)
    view = seen_by(sampler, study._study, study.config, knobs)
    assert len(view._get_trials(deepcopy=False)) == 12 - 4 + 4
    space = sampler.infer_relative_search_space(view, study.trials()[0])
    assert space.keys() == knobs.keys()
