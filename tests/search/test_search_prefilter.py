"""The pre-filter: when a proxy may pick, what it picks, and that a study that is stopped picks the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up import SPACE, made_up_error, make_config
from optuna.trial import FrozenTrial, TrialState, create_trial

from connsearch.cost import network_cost
from connsearch.errors import DataError, SpecError
from connsearch.search.config import StudyConfig
from connsearch.search.failures import FAILED, failure_of
from connsearch.search.hooks import Progress
from connsearch.search.memory import OutOfMemoryError
from connsearch.search.proxies.prefilter import PROXIES_OF, Prefilter, judge, plan_line, verdict_on
from connsearch.search.reading.plain import records_of
from connsearch.search.reading.tables import trials_table
from connsearch.search.storages import JOURNAL
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec

TABLE: dict[str, Any] = {"proxy": "snip", "candidates": 3, "after": 10}


def good(spec: NetworkSpec) -> float:
    """A proxy that knows the errors that are made up."""
    return -made_up_error(spec)


def large(spec: NetworkSpec) -> float:
    """A proxy that is another word for MACs."""
    return float(network_cost(spec).macs)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, made_up: None) -> Callable[[Callable[[NetworkSpec], float]], None]:
    """Take a function of the network for the proxy."""

    def take(value: Callable[[NetworkSpec], float]) -> None:
        def measure_proxies(
            spec: NetworkSpec,
            train: object,
            names: Sequence[str],
            *,
            study_seed: int,
            trial: int,
            device: str,
        ) -> dict[str, float]:
            return {name: value(spec) for name in names}

        monkeypatch.setattr("connsearch.search.proxies.scores.measure_proxies", measure_proxies)

    return take


def decided(trial: FrozenTrial) -> dict[str, Any]:
    """What was decided before a trial was drawn."""
    found = verdict_on(trial)
    assert found is not None
    return found


def run(path: Path, counts: Sequence[int], **changes: Any) -> list[FrozenTrial]:
    config: StudyConfig = make_config(**{"prefilter": TABLE, **changes})
    for count in counts:
        study = Study.from_config(path, config)
        study.run(count, device="cpu")
    return study.trials()


# ---- the verdict ---------------------------------------------------------------------------------------


def trial(error: float, macs: float, value: float | None, **more: Any) -> FrozenTrial:
    attrs = {"val_error": error, "cost": {"macs": macs}, PROXIES_OF: {"snip": value}}
    return create_trial(values=[error, macs], user_attrs=attrs, **more)


def test_it_may_pick_when_it_orders_errors_better_than_macs() -> None:
    trials = [trial(n / 20, 100 + n * 7 % 20, -n) for n in range(20)]
    verdict = judge(Prefilter(**TABLE), trials)
    assert verdict.picks
    assert verdict.trials == 20
    assert verdict.lead is not None
    assert verdict.lead > 0.5
    assert str(verdict).startswith("snip picks: lead over MACs +")


def test_it_may_not_where_macs_do_as_well() -> None:
    trials = [trial(n / 20, 100 - n, -n) for n in range(20)]
    verdict = judge(Prefilter(**TABLE), trials)
    assert (verdict.lead, verdict.picks) == (0.0, False)
    assert str(verdict) == "snip does not pick: lead over MACs +0.00 [+0.00, +0.00] on 20 trials"


def test_it_may_not_by_chance() -> None:
    errors = [0.3, 0.1, 0.4, 0.15, 0.9, 0.26, 0.5, 0.35, 0.8, 0.97, 0.93, 0.23]
    trials = [trial(error, 100.0, value) for value, error in enumerate(errors)]
    assert not judge(Prefilter(**TABLE), trials).picks


def test_at_one_budget_macs_order_nothing_and_a_proxy_must_still_be_right() -> None:
    right = [trial(n / 20, 100.0, -n) for n in range(20)]
    wrong = [trial(n / 20, 100.0, n) for n in range(20)]
    assert judge(Prefilter(**TABLE), right).picks
    assert not judge(Prefilter(**TABLE), wrong).picks


def test_only_trials_that_reached_something_and_have_the_proxy_count() -> None:
    trials = [trial(n / 20, 100.0, -n) for n in range(9)]
    unknown = trial(0.5, 100.0, None)
    failing = trial(0.5, 100.0, -3.0, constraints={FAILED: 1.0})
    running = create_trial(state=TrialState.RUNNING, user_attrs=dict(unknown.user_attrs))
    verdict = judge(Prefilter(**TABLE), [*trials, unknown, failing, running])
    assert (verdict.trials, verdict.lead, verdict.picks) == (9, None, False)
    assert str(verdict) == "snip does not pick yet: 9 finished trials"


# ---- in a study ----------------------------------------------------------------------------------------


def test_it_picks_the_best_of_several_at_one_budget(tmp_path: Path, proxy: Any) -> None:
    proxy(good)
    trials = run(tmp_path / "filtered", [16], seed=4)
    plain = run(tmp_path / "plain", [16], seed=4, prefilter=None)
    assert [decided(t)["trials"] for t in trials] == list(range(16)), "those with lower numbers"
    assert [decided(t)["picks"] for t in trials] == [False] * 10 + [True] * 6
    assert [t.params for t in trials[:10]] == [t.params for t in plain[:10]], "drawn as ever"
    for ours, other in zip(trials[10:], plain[10:], strict=True):
        record = decided(ours)
        values = record["candidates"]
        assert len(values) == 3
        assert values[record["picked"]] == max(values) == ours.user_attrs[PROXIES_OF]["snip"]
        assert values[0] == -other.user_attrs["val_error"], "the first is what is drawn without a filter"
        assert ours.params["macs_budget"] == other.params["macs_budget"]
    picked = [decided(t)["picked"] for t in trials[10:]]
    assert set(picked) > {0}, "others than the first are picked"


def test_it_picks_none_where_it_is_another_word_for_macs(tmp_path: Path, proxy: Any) -> None:
    proxy(large)
    trials = run(tmp_path / "filtered", [14])
    plain = run(tmp_path / "plain", [14], prefilter=None)
    assert [t.params for t in trials] == [t.params for t in plain]
    assert [decided(t)["picks"] for t in trials] == [False] * 14
    assert decided(trials[13])["lead"] is not None


@pytest.mark.parametrize("sampler", ["random", "tpe(n_startup_trials=4)", "nsga2(population_size=4)"])
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, proxy: Any, sampler: str) -> None:
    proxy(good)
    whole = run(tmp_path / "whole", [14], sampler=sampler)
    parts = run(tmp_path / "parts", [3, 10, 12, 14], sampler=sampler)
    assert [t.params for t in parts] == [t.params for t in whole]
    assert [decided(t) for t in parts] == [decided(t) for t in whole]
    assert decided(whole[13])["picks"]


def test_a_trial_that_was_cut_off_is_not_filtered_again(
    tmp_path: Path, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy(good)
    whole = run(tmp_path / "whole", [13])
    run(tmp_path / "parts", [12])
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("connsearch.search.attempt.evaluate_network", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", [13])
    cut_off = Study.load(tmp_path / "parts").trials()[12]
    assert not cut_off.state.is_finished()
    assert decided(cut_off)["picks"]
    monkeypatch.setattr("connsearch.search.proxies.prefilter.judge", None)  # calling it would raise
    parts = run(tmp_path / "parts", [13])
    assert parts[12].params == whole[12].params


def test_candidates_that_are_no_networks_come_last(
    tmp_path: Path, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sampler's first draw has no proxy, another one is taken."""
    from connsearch.search.proxies import prefilter

    proxy(good)
    asked: list[int] = []

    def first_has_none(*given: Any) -> float | None:
        asked.append(1)
        return None if len(asked) % 3 == 1 else -float(len(asked) % 3)

    monkeypatch.setattr(prefilter, "_proxy", first_has_none)
    trials = run(tmp_path / "study", [12])
    for each in trials[10:]:
        assert decided(each)["candidates"] == [None, -2.0, 0.0]
        assert decided(each)["picked"] == 2


def failing_second(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the second candidate of each trial have no proxy."""
    asked: Counter[int] = Counter()

    def measure_proxies(
        spec: NetworkSpec, train: object, names: Sequence[str], *, study_seed: int, trial: int, device: str
    ) -> dict[str, float]:
        asked[trial] += 1
        if trial >= TABLE["after"] and asked[trial] == 2:
            raise error
        return dict.fromkeys(names, good(spec))

    monkeypatch.setattr("connsearch.search.proxies.scores.measure_proxies", measure_proxies)


@pytest.mark.parametrize(
    "error",
    [OutOfMemoryError("out of memory on cpu: no"), RuntimeError("no kernel"), SpecError("no layer")],
    ids=lambda error: type(error).__name__,
)
def test_a_candidate_whose_proxy_fails_is_not_picked_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: None, error: Exception
) -> None:
    failing_second(monkeypatch, error)
    said: list[str] = []
    study = Study.from_config(tmp_path / "study", make_config(prefilter=TABLE))
    study.run(12, device="cpu", progress=Progress(note=said.append))
    assert study.status().states == {"complete": 12, "failed": 0, "pruned": 0, "unfinished": 0}
    for each in study.trials()[10:]:
        first, second, third = decided(each)["candidates"]
        assert (second, decided(each)["picked"]) == (None, 0 if first >= third else 2)
    told = [text for text in said if "has no proxy" in text]
    assert told == [
        f"trial {number}: pre-filter: a candidate has no proxy: {failure_of(error)}" for number in (10, 11)
    ]


def test_a_data_set_that_is_gone_ends_the_study_and_not_the_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: None
) -> None:
    failing_second(monkeypatch, DataError("it is gone"))
    with pytest.raises(DataError, match=r"^it is gone$"):
        run(tmp_path / "study", [11])
    assert len(run(tmp_path / "study", [11])) == 11


def test_what_a_kill_leaves_of_an_append_has_the_decision_or_no_knobs(
    tmp_path: Path, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy(good)
    whole = decided(run(tmp_path / "whole", [11])[10])
    journal = tmp_path / "study" / JOURNAL
    run(tmp_path / "study", [10])
    begun = len(journal.read_bytes().splitlines())
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("connsearch.search.attempt.evaluate_network", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "study", [11])
    lines = journal.read_bytes().splitlines(keepends=True)
    knobs = next(at for at in range(begun, len(lines)) if b"fixed_params" in lines[at])
    for kept in (knobs, knobs + 1, knobs + 2):
        journal.write_bytes(b"".join(lines[:kept]))
        assert decided(run(tmp_path / "study", [11])[10]) == whole


def test_tables_have_what_was_decided(tmp_path: Path, proxy: Any) -> None:
    proxy(good)
    trials = run(tmp_path / "study", [11])
    rows = records_of(trials_table(trials, ["val_error", "macs"]))
    assert [row["prefilter.picks"] for row in rows] == [False] * 10 + [True]
    assert rows[10]["prefilter.lead"] == decided(trials[10])["lead"]


def test_given_trials_are_not_filtered(tmp_path: Path, proxy: Any) -> None:
    proxy(good)
    trials = run(tmp_path / "study", [3], warm_start={"presets": ["densenet-40-12", "resnet-20"]})
    assert [verdict_on(t) is not None for t in trials] == [False, False, True]
    assert all(PROXIES_OF in t.user_attrs for t in trials), "they are data for the verdict all the same"


def test_it_is_said_when_the_verdict_changes(tmp_path: Path, proxy: Any) -> None:
    proxy(good)
    said: list[str] = []
    study = Study.from_config(tmp_path / "study", make_config(prefilter=TABLE))
    study.run(13, device="cpu", progress=Progress(note=said.append))
    assert len(said) == 1
    assert said[0].startswith("trial 10: pre-filter: snip picks: lead over MACs +")


def test_a_study_of_one_budget(tmp_path: Path, proxy: Any) -> None:
    proxy(good)
    trials = run(tmp_path / "study", [14], space=SPACE | {"budget": {"macs": 120_000}})
    assert decided(trials[13])["picks"]
    assert "macs_budget" not in trials[13].params


def test_the_real_proxy_is_recorded(tmp_path: Path, made_up: None) -> None:
    from connsearch.search.proxies.scores import measure_proxies

    trials = run(tmp_path / "study", [2])
    config = make_config()
    for each in trials:
        spec = NetworkSpec.from_dict(each.user_attrs["network"])
        found = measure_proxies(spec, config.train, ["snip"], study_seed=0, trial=each.number)
        assert each.user_attrs[PROXIES_OF] == found


# ---- the table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"proxy": "nas"},
            r"prefilter\.proxy: should be 'naswot', 'synflow', 'grad_norm' or 'snip', got 'nas'",
        ),
        ({"candidates": 1}, r"prefilter\.candidates: should be greater than or equal to 2"),
        ({"after": 9}, r"prefilter\.after: should be greater than or equal to 10"),
    ],
)
def test_a_wrong_table_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_config(prefilter=table)


def test_the_proxies_of_the_table_are_those_there_are() -> None:
    from typing import get_args

    from connsearch.search.proxies.scores import PROXIES

    assert list(get_args(Prefilter.model_fields["proxy"].annotation)) == list(PROXIES)


def test_the_plan_says_what_it_will_do() -> None:
    assert plan_line(Prefilter()) == (
        "naswot picks 1 of 4 candidates at one budget, from 20 finished trials on, as long as it orders "
        "their errors better than MACs do"
    )
