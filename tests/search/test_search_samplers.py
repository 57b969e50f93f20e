"""A study that was stopped and resumed has the trials of one that never was, whatever the sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up import made_up_outcome, make_config
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.search.choices import AnyOf, FloatRange, IntRange
from connsearch.search.samplers import SAMPLERS, distributions, make_sampler
from connsearch.search.seeds import stream_seed
from connsearch.search.storages.journal import Journal
from connsearch.search.study import Study

N = 12
EARLY = {"tpe": {"n_startup_trials": 4}, "gp": {"n_startup_trials": 9}, "nsga2": {"population_size": 4}}


def sampler(name: str) -> dict[str, Any]:
    """The sampler, soon out of its random start."""
    return {"name": name, **EARLY.get(name, {})}


def trials(study: Study) -> list[tuple[int, str, dict[str, Any], list[float]]]:
    return [(t.number, t.state.name, t.params, t.values) for t in study.trials()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trials of a study that ran at one go, by sampler."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            study = Study.from_config(tmp_path_factory.mktemp(name), make_config(sampler=sampler(name)))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("connsearch.search.attempt.evaluate_network", made_up_outcome)
                study.run(N)
            known[name] = trials(study)
        return known[name]

    return of


every_sampler = pytest.mark.parametrize("name", sorted(SAMPLERS))
every_sampler_gp_slow = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "gp" else []) for n in sorted(SAMPLERS)]
)


@every_sampler_gp_slow
@pytest.mark.usefixtures("made_up")
def test_the_same_study_twice_gives_the_same_trials(name: str, tmp_path: Path, unbroken: Any) -> None:
    study = Study.from_config(tmp_path, make_config(sampler=sampler(name)))
    assert study.run(N) == N
    assert trials(study) == unbroken(name)
    assert len({str(params) for _, _, params, _ in trials(study)}) > N // 2


@pytest.mark.slow
@every_sampler
@pytest.mark.usefixtures("made_up")
def test_a_study_in_three_parts_gives_the_same_trials(name: str, tmp_path: Path, unbroken: Any) -> None:
    config = make_config(sampler=sampler(name))
    assert Study.from_config(tmp_path, config).run(3) == 3
    assert Study.from_config(tmp_path, config).run(N // 2) == N // 2 - 3
    resumed = Study.load(tmp_path)
    assert resumed.run(N) == N - N // 2
    assert trials(resumed) == unbroken(name)


@every_sampler_gp_slow
@pytest.mark.parametrize("done", [0, 2, N - 2], ids="after-{}".format)
@pytest.mark.parametrize("n_knobs", [None, 0, 1, 3, 7], ids="{}-knobs".format)
@pytest.mark.usefixtures("made_up")
def test_a_trial_that_was_cut_off_while_it_was_asked_gives_the_same(
    name: str, done: int, n_knobs: int | None, tmp_path: Path, unbroken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.from_config(tmp_path, make_config(sampler=sampler(name)))
    study.run(done)
    with monkeypatch.context() as patch:
        cut_off_in(patch, n_knobs)
        with pytest.raises(KeyboardInterrupt):
            study.run(done + 1)
    cut_off = study.trials()[done]
    assert cut_off.state.name == ("RUNNING" if n_knobs == 7 else "WAITING")
    assert len(cut_off.params) == (n_knobs or 0)
    assert len(cut_off.system_attrs.get("fixed_params", {})) == (0 if n_knobs is None else 7)

    resumed = Study.load(tmp_path)
    assert resumed.run(done + 1) == 1
    assert trials(resumed) == unbroken(name)[: done + 1]


def cut_off_in(patch: pytest.MonkeyPatch, n_knobs: int | None) -> None:
    """End a worker when so many knobs of a trial are on the disk; None for while they are drawn."""

    def stop(*args: object, **more: object) -> Any:
        raise KeyboardInterrupt

    if n_knobs is None:
        patch.setattr("optuna.samplers.BaseSampler.before_trial", stop)
        for each in (TPESampler, NSGAIISampler, GPSampler, RandomSampler):
            patch.setattr(each, "before_trial", stop)
        return
    if n_knobs == 7:
        patch.setattr("connsearch.search.attempt.evaluate_network", stop)
        return
    append = Journal.append_logs

    def torn(journal: Journal, logs: list[dict[str, Any]]) -> None:
        n_others = sum("system_attr" in log for log in logs)
        if not any("param_name" in log for log in logs):
            append(journal, logs)
            return
        append(journal, logs[: n_others + n_knobs])
        stop()

    patch.setattr(Journal, "append_logs", torn)


@every_sampler
@pytest.mark.usefixtures("made_up")
def test_another_seed_gives_other_trials(name: str, tmp_path: Path, unbroken: Any) -> None:
    study = Study.from_config(tmp_path, make_config(sampler=sampler(name), seed=1))
    study.run(3)
    assert trials(study) != unbroken(name)[:3]


@every_sampler
@pytest.mark.usefixtures("made_up")
def test_a_space_with_one_member_and_a_space_with_a_ladder(name: str, tmp_path: Path) -> None:
    for macs, n in ((60_500, 0), ([60_500, 118_000], 2), ({"low": 60_500, "high": 60_500}, 1)):
        space = {
            "input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 4,
            "blocks": {"count": 1, "n_layers": 2}, "budget": {"macs": macs},
        }  # fmt: skip
        study = Study.from_config(tmp_path / str(n), make_config(space=space, sampler=sampler(name)))
        assert study.run(6) == 6
        assert study.status().states["complete"] == 6
        assert len({t.params.get("macs_budget") for t in study.trials()}) == max(n, 1)


# ---- parts ---------------------------------------------------------------------------------------------


def test_knobs_as_distributions() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    knobs = {
        "topology": AnyOf((Ref("dense"), Ref("sparse", (("base", 3),)))),
        "depth": IntRange(2, 9, step=3),
        "macs": IntRange(10, 99, log=True),
        "ratio": FloatRange(1.0, 2.0, log=True),
    }
    assert distributions(knobs) == {
        "topology": CategoricalDistribution(["dense", "sparse(base=3)"]),
        "depth": IntDistribution(2, 8, step=3),
        "macs": IntDistribution(10, 99, log=True),
        "ratio": FloatDistribution(1.0, 2.0, log=True),
    }


def test_streams_of_seeds_differ_and_stay() -> None:
    seeds = {
        (study, trial, stream): stream_seed(study, trial, stream)
        for study in range(3)
        for trial in range(20)
        for stream in ("sampler", "init", "train")
    }
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    assert seeds[0, 7, "train"] == 194365079  # a study of yesterday goes on today


def test_a_parameter_of_a_sampler_is_checked() -> None:
    with pytest.raises(SpecError, match=r"^sampler: sampler 'nsga2' has no parameter 'popsize'\. "):
        make_config(sampler={"name": "nsga2", "popsize": 3})


@pytest.mark.parametrize(
    ("name", "parameter", "least"),
    [("nsga2", "population_size", 2), ("tpe", "n_startup_trials", 0), ("gp", "n_startup_trials", 0)],
)
@pytest.mark.usefixtures("made_up")
def test_a_parameter_of_a_sampler_has_a_least_value(
    name: str, parameter: str, least: int, tmp_path: Path
) -> None:
    study = Study.from_config(tmp_path / "study", make_config(sampler={"name": name, parameter: least}))
    assert study.run(4) == 4
    message = f"^sampler '{name}': {parameter} must be {least} or more, got {least - 1}$"
    with pytest.raises(SpecError, match=message):
        Study.from_config(tmp_path / "new", make_config(sampler={"name": name, parameter: least - 1}))
    assert not (tmp_path / "new").exists()


def test_every_number_of_a_sampler_has_a_least_value() -> None:
    for name in SAMPLERS:
        for parameter in SAMPLERS.parameters(name):
            with pytest.raises(
                SpecError, match=rf"^sampler '{name}': {parameter} must be \d or more, got -5$"
            ):
                make_sampler(SAMPLERS.ref(name, **{parameter: -5}), 0)
