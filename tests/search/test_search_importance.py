"""Which knobs matter, on errors made up so that the answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_up import SPACE, make_config
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, create_trial

from connsearch.errors import StudyError
from connsearch.search.reading.equal_macs import explained_by_macs, ranks, standing
from connsearch.search.reading.importance import Importance, KnobImportance, importance_of
from connsearch.search.reading.knob_shares import METHODS, Sample, applies, shares_of
from connsearch.search.samplers import distributions
from connsearch.search.space import SearchSpace

FLAT: dict[str, Any] = {**SPACE, "blocks": {**SPACE["blocks"], "count": 1}}
Knobs = dict[str, Any]
Made = Callable[[Knobs, float], float]


def draw(knob: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(knob, CategoricalDistribution):
        return knob.choices[rng.integers(len(knob.choices))]
    low, high = knob.low, knob.high  # type: ignore[attr-defined]
    if getattr(knob, "log", False):
        drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return round(drawn) if isinstance(low, int) else drawn
    return int(rng.integers(low, high + 1)) if isinstance(low, int) else float(rng.uniform(low, high))


def make_trials(
    n: int,
    error: Made,
    space: dict[str, Any] = FLAT,
    change: Callable[[Knobs, np.random.Generator], None] = lambda knobs, rng: None,
    seed: int = 0,
) -> list[FrozenTrial]:
    """Return trials whose error is a function of knobs and MACs, which are the budget."""
    rng = np.random.default_rng(seed)
    knobs = distributions(SearchSpace.from_dict(space).knobs())
    trials = []
    for number in range(n):
        drawn = {name: draw(knob, rng) for name, knob in knobs.items()}
        change(drawn, rng)
        macs = drawn["macs_budget"]
        value = error(drawn, macs / 50_000) * float(np.exp(0.05 * rng.normal()))
        trial = create_trial(
            values=[value, macs],
            params=drawn,
            distributions=knobs,
            user_attrs={"cost": {"macs": macs}, "val_error": value},
        )
        trial.number = number
        trials.append(trial)
    return trials


def look(trials: list[FrozenTrial], space: dict[str, Any] = FLAT, **more: Any) -> dict[str, KnobImportance]:
    found = importance_of(trials, make_config(space=space), n_resamples=3, **more)
    return {knob.knob: knob for knob in found.knobs}


# ---- at equal MACs ---------------------------------------------------------------------------------------


def better_topology_at_smaller_budgets(knobs: Knobs, rng: np.random.Generator) -> None:
    """Draw "dense" at small budgets mostly, as a sampler may that has learnt."""
    small = knobs["macs_budget"] < 100_000
    knobs["topology"] = "dense" if rng.random() < (0.9 if small else 0.1) else "chain"


def cancelling(knobs: Knobs, size: float) -> float:
    """Somewhat better with "dense", much better with more MACs."""
    return 0.2 / size**2 * (0.7 if knobs["topology"] == "dense" else 1.0)


def test_a_topology_that_matters_only_at_equal_macs() -> None:
    trials = make_trials(80, cancelling, change=better_topology_at_smaller_budgets)
    errors = {
        name: [t.values[0] for t in trials if t.params["topology"] == name] for name in ("chain", "dense")
    }
    assert np.mean(errors["dense"]) > np.mean(errors["chain"])  # seems worse
    raw, equal = look(trials), look(trials, at_equal_macs=True)
    assert raw["macs_budget"].share > 3 * raw["topology"].share  # type: ignore[operator]
    assert max(equal.values(), key=lambda knob: knob.share or 0).knob == "topology"
    assert equal["topology"].stands_out
    assert equal["topology"].share > 0.6  # type: ignore[operator]
    assert [knob.knob for knob in equal.values() if knob.stands_out] == ["topology"]


def test_macs_predict_what_they_make() -> None:
    macs = np.geomspace(5e5, 8e6, 60)
    noise = np.random.default_rng(0).normal(size=60)
    assert explained_by_macs(-np.log(macs), macs) > 0.99
    assert explained_by_macs(noise, macs) < 0.1
    assert explained_by_macs(np.ones(60), macs) == 0.0


def test_the_standing_does_not_know_the_trend_nor_the_spread() -> None:
    rng = np.random.default_rng(0)
    macs = np.exp(rng.uniform(np.log(5e5), np.log(8e6), 200))
    skill = rng.normal(size=200)
    x = np.log(macs)
    found = standing(-3 * x + (1 + 4 * (x.max() - x)) * skill, macs)
    assert np.corrcoef(found, skill)[0, 1] > 0.95
    assert abs(np.corrcoef(found, x)[0, 1]) < 0.1
    small, large = x < np.median(x), x >= np.median(x)
    assert found[small].std() == pytest.approx(found[large].std(), rel=0.3)


def test_standing_on_a_ladder_compares_within_a_rung() -> None:
    macs = np.repeat([1e6, 2e6, 4e6], 20)
    values = np.tile(np.arange(20.0), 3) + np.repeat([100.0, 30.0, 0.0], 20)
    found = standing(values, macs)
    assert (np.diff(found.reshape(3, 20), axis=1) > 0).all()
    np.testing.assert_allclose(standing(np.arange(5.0), np.full(5, 1e6)).mean(), 0, atol=1e-12)
    assert standing(np.ones(12), np.geomspace(1, 9, 12)).tolist() == [0.0] * 12


def test_ranks_do_not_see_how_far_out_a_value_is() -> None:
    assert ranks(np.array([1.0, 2.0, 3.0])).tolist() == ranks(np.array([1.0, 2.0, 1e9])).tolist()


# ---- what is estimated -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_knob_that_matters_comes_first(method: str) -> None:
    trials = make_trials(60, lambda knobs, size: 0.1 if knobs["aggregation"] == "concat" else 0.3)
    found = importance_of(trials, make_config(space=FLAT), method=method, n_resamples=4)
    assert found.knobs[0].knob == "aggregation"
    assert found.knobs[0].stands_out
    assert found.predicted > 0.5
    assert [knob.share for knob in found.knobs] == sorted((k.share for k in found.knobs), reverse=True)
    assert found.warning == ""


@pytest.mark.slow
def test_a_maximised_objective_has_the_same_importance() -> None:
    trials = make_trials(30, lambda knobs, size: 0.1 * size)
    up = importance_of(trials, make_config(space=FLAT), n_resamples=2)
    config = make_config(space=FLAT, objectives={"val_error": "maximize", "macs": "minimize"})
    down = importance_of(trials, config, n_resamples=2)
    assert up.knobs[0].knob == down.knobs[0].knob == "macs_budget"
    other = importance_of(trials, make_config(space=FLAT), "macs", n_resamples=2)
    assert other.knobs[0].knob == "macs_budget"


def test_noise_is_called_unreliable() -> None:
    draw_noise = np.random.default_rng(1)
    found = importance_of(
        make_trials(20, lambda knobs, size: draw_noise.uniform(0.1, 0.9)),
        make_config(space=FLAT),
        n_resamples=8,
    )
    assert "20 trials are few for 4 knobs" in found.warning
    assert "next to nothing" in found.warning
    assert "no knob stands out from chance" in found.warning
    assert str(found).splitlines()[-1].startswith("unreliable: ")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures() -> None:
    trials = make_trials(15, cancelling)
    one, two = (importance_of(trials, make_config(space=FLAT), n_resamples=2) for _ in range(2))
    assert one == two
    assert one != importance_of(trials, make_config(space=FLAT), n_resamples=2, seed=1)


def test_equal_values_are_explained_by_nothing() -> None:
    trials = make_trials(12, cancelling)
    for trial in trials:
        trial.values = [0.5, 1.0]
    found = importance_of(trials, make_config(space=FLAT), n_resamples=2, at_equal_macs=True)
    assert {knob.share for knob in found.knobs} == {0.0}
    assert found.warning


# ---- knobs that apply only sometimes ---------------------------------------------------------------------


def depth_of_the_second_block(knobs: Knobs, size: float) -> float:
    """Depend on the second block's depth, where there is one, and on nothing else."""
    return 0.3 + (0.1 * (knobs["n_layers_2"] - 2) if knobs["count"] == 2 else 0.0)


@pytest.mark.slow
def test_a_knob_counts_for_the_trials_that_have_it() -> None:
    trials = make_trials(100, depth_of_the_second_block, space=SPACE)
    knobs = look(trials, space=SPACE)
    second = knobs["n_layers_2"]
    n_two = sum(trial.params["count"] == 2 for trial in trials)
    assert second.applies == n_two < 100
    assert knobs["n_layers_1"].applies == 100
    assert second.stands_out
    values = np.array([trial.values[0] for trial in trials])
    some = ranks(values)[[trial.params["count"] == 2 for trial in trials]]
    part = n_two / 100 * some.var() / ranks(values).var()
    assert second.share == pytest.approx(part, rel=0.2)  # all of the spread of those


def test_too_few_trials_with_a_knob_give_no_figure() -> None:
    trials = make_trials(40, depth_of_the_second_block, space=SPACE)
    for trial in trials[:]:
        trial.params = {**trial.params, "count": 1}
    for trial in trials[:3]:
        trial.params = {**trial.params, "count": 2}
    space = SearchSpace.from_dict(SPACE)
    sample = Sample.of(trials, space, np.arange(40.0))
    for method in METHODS:
        assert shares_of(sample, method, seed=0)["n_layers_2"] is None
    text = str(importance_of(trials, make_config(), n_resamples=2))
    assert [line.split()[1] for line in text.splitlines() if line.startswith("n_layers_2")] == ["-"]


@pytest.mark.parametrize(
    ("knob", "params", "expected"),
    [
        ("topology", {"count": 1}, True),
        ("topology_2", {"count": 1}, False),
        ("n_layers_2", {"count": 2}, True),
        ("width_ratio_2", {"count": 1}, False),
        ("macs_budget", {"count": 1}, True),
        ("transition", {"count": 1}, False),
        ("transition", {"count": 2}, True),
        ("carry", {"count": 2, "scope": "global"}, True),
        ("carry", {"count": 2, "scope": "block"}, False),
        ("carry", {"count": 2}, False),
        ("n_layers_2", {}, False),
    ],
)
def test_where_a_knob_applies(knob: str, params: Knobs, expected: bool) -> None:
    assert applies(knob, params, SearchSpace.from_dict(SPACE)) is expected


# ---- what cannot be asked --------------------------------------------------------------------------------


def test_what_cannot_be_asked() -> None:
    config, trials = make_config(space=FLAT), make_trials(9, cancelling)
    with pytest.raises(StudyError, match="needs at least 10 trials that can be ranked, there are 9"):
        importance_of(trials, config)
    trials = make_trials(10, cancelling)
    with pytest.raises(
        StudyError,
        match=r"^no objective 'seconds'\. Known: inference_bytes, macs, params, training_bytes, val_error\.$",
    ):
        importance_of(trials, config, "seconds")
    with pytest.raises(StudyError, match=r"^unknown method 'anova'\. Did you mean 'fanova'\?"):
        importance_of(trials, config, method="anova")
    fixed = {**FLAT, "budget": {"macs": 100_000}}
    fixed["blocks"] = {"count": 1, "n_layers": 2}
    with pytest.raises(StudyError, match="searches no knob"):
        importance_of(trials, make_config(space=fixed))


def test_plain_data() -> None:
    knob = KnobImportance("topology", 0.5, 0.4, 0.6, 0.1, 12)
    found = Importance("val_error", True, "fanova", 12, 0.3, 0.6, (knob,))
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["knobs"] == [
        {"knob": "topology", "share": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1, "applies": 12,
         "stands_out": True}
    ]  # fmt: skip
    assert plain["warning"] == ""
    assert str(found) == (
        "importance of knobs for val_error at equal MACs (fanova, 12 trials)\n"
        "MACs alone predict 60 % of the spread; the rest is looked at here; "
        "the knobs predict 30 % of it in trials not seen\n"
        "knob      share  90 % of bootstraps  chance  applies\n"
        "topology   50 %        40 % to 60 %    10 %       12  above chance"
    )
