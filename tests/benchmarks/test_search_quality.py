from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import optuna
import pandas as pd
import pytest
import search_quality
from search_plot import draw_searches
from search_quality import SAMPLERS, WAYS, Search, interval, judge, run
from search_report import FIGURES as REPORTED, difference, rows, verdict
from search_table import CHANCE, Question, Shape, Table

from connsearch.errors import SpecError

OPTIONS = (("chain", "dense"), ("sum", "concat"), (2, 4, 8), (3, 6, 12, 24))
LINES = len(list(itertools.product(*OPTIONS))) * 2


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def frame() -> pd.DataFrame:
    rng, lines = np.random.default_rng(0), []
    for topology, aggregation, depth, width in itertools.product(*OPTIONS):
        macs = 100 * depth * width**2 * (1 + (aggregation == "concat") * depth)
        better = 0.8 if topology == "dense" else 1.0
        for seed in range(2):
            error = min(0.9, better * 30 / math.sqrt(macs) + 0.1 * rng.random())
            name = f"{topology}/{aggregation}/{depth}/{width}"
            lines.append((topology, aggregation, depth, width, seed, macs, error, name))
    columns = ["topology", "aggregation", "n_layers", "width", "seed", "macs", "val_error", "network"]
    return pd.DataFrame(lines, columns=columns)


TABLE = Table(frame())
FRONT = Question("front", TABLE, 20_000, 200_000, whole_front=True)
ONE = Question("one budget", TABLE, 50_000, 200_000, whole_front=False)
NARROW = Question("narrow", TABLE, 460_000, 461_000, whole_front=True)  # one network of 48


# ---- the table -----------------------------------------------------------------------------------------


def test_a_network_is_found_by_its_shape_and_width() -> None:
    number = TABLE.at(("dense", "concat", 1), 2)
    assert TABLE.knobs[number] == ("dense", "concat", 4, 12)
    assert TABLE.macs[number] == 100 * 4 * 144 * 5
    assert TABLE.mean[number] == pytest.approx(TABLE.errors[number].sum() / 2)


def test_two_spellings_of_a_network_are_one_with_all_their_trainings() -> None:
    lines = frame()
    same = (lines.topology == "chain") & (lines.n_layers == 4) & (lines.width == 12)
    lines.loc[same, ["network", "macs"]] = "one", 57_600
    table = Table(lines)
    spelled = [table.at(("chain", aggregation, 1), 2) for aggregation in OPTIONS[1]]
    assert spelled[0] == spelled[1]
    assert len(table.knobs) == len(TABLE.knobs) - 1
    assert sorted(table.errors[spelled[0]]) == sorted(lines[same].val_error)
    assert table.mean[spelled[0]] == pytest.approx(lines[same].val_error.mean())


@pytest.mark.parametrize("lost", [[0], [0, 1]], ids=["a training", "a network"])
def test_a_table_with_gaps_is_refused(lost: list[int]) -> None:
    with pytest.raises(
        ValueError, match=rf"has 96 trainings, the table {LINES - len(lost)} lines: finish it"
    ):
        Table(frame().drop(index=lost))


def test_a_table_with_a_training_twice_is_refused() -> None:
    lines = frame()
    lines.iloc[1] = lines.iloc[0]
    with pytest.raises(ValueError, match="has 96 trainings, the table 96 lines"):
        Table(lines)


# ---- budgets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(itertools.product(OPTIONS[0], OPTIONS[1], range(3))), ids=str)
def test_the_network_within_a_budget_is_the_widest_that_is_allowed(shape: Shape) -> None:
    for budget in np.geomspace(FRONT.low, FRONT.high, 17):
        network = FRONT.within(shape, budget)
        topology, aggregation, depth, _ = TABLE.knobs[network]
        same = [n for n, knobs in enumerate(TABLE.knobs) if knobs[:3] == (topology, aggregation, depth)]
        fits = [n for n in same if FRONT.low <= TABLE.macs[n] <= budget]
        assert FRONT.allowed[network]
        assert depth <= OPTIONS[2][shape[2]]
        if fits:
            assert TABLE.macs[network] == max(TABLE.macs[fits])
        if depth < OPTIONS[2][shape[2]]:  # layers are taken off only where they must
            wanted = (topology, aggregation, OPTIONS[2][shape[2]])
            deep = [n for n, knobs in enumerate(TABLE.knobs) if knobs[:3] == wanted]
            assert not [n for n in deep if FRONT.low <= TABLE.macs[n] <= budget]


def test_every_allowed_network_is_the_answer_to_some_budget() -> None:
    steps = {depth: step for step, depth in enumerate(OPTIONS[2])}
    for network in np.flatnonzero(FRONT.allowed):
        topology, aggregation, depth, _ = TABLE.knobs[network]
        assert FRONT.within((topology, aggregation, steps[depth]), TABLE.macs[network]) == network


def test_a_kind_without_an_allowed_network_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no chain x sum within 1,000,000\.\.2,000,000 MACs"):
        Question("none", TABLE, 1_000_000, 2_000_000, whole_front=True).within(("chain", "sum", 2), 2e6)


# ---- how good an answer is -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_volume_is_the_mean_over_budgets_of_what_the_error_is_below_chance(seed: int) -> None:
    networks = np.random.default_rng(seed).choice(len(TABLE.knobs), 12, replace=False)
    usable = [n for n in networks if FRONT.low <= TABLE.macs[n] <= FRONT.high]
    edges = np.linspace(math.log(FRONT.low), math.log(FRONT.high), 20_001)
    budgets = np.exp((edges[1:] + edges[:-1]) / 2)
    errors = [min([CHANCE, *(TABLE.mean[n] for n in usable if TABLE.macs[n] <= b)]) for b in budgets]
    assert FRONT.volume(list(networks)) == pytest.approx(CHANCE - np.mean(errors), abs=1e-3)


@pytest.mark.parametrize("question", [FRONT, ONE], ids=lambda q: q.name)
def test_all_networks_are_the_best_answer_and_none_the_worst(question: Question) -> None:
    everything = list(range(len(TABLE.knobs)))
    assert question.share(everything) == 1
    assert question.regret(everything) == 0
    assert question.share([]) == 0
    assert question.share([n for n in everything if not question.allowed[n]]) == 0


def test_a_user_picks_by_what_was_seen() -> None:
    cheap, dear, banned = TABLE.at(("chain", "sum", 1), 2), TABLE.at(("dense", "sum", 2), 2), 0
    assert FRONT.allowed[[cheap, dear]].all()
    assert not FRONT.allowed[banned]
    assert TABLE.mean[dear] < TABLE.mean[cheap]
    assert FRONT.answer([(cheap, 0.2), (dear, 0.3), (banned, 0.0)]) == [cheap]
    assert sorted(FRONT.answer([(cheap, 0.2), (dear, 0.1)])) == sorted([cheap, dear])
    assert ONE.answer([(cheap, 0.2), (dear, 0.1), (dear, 0.5)]) == [cheap]  # 0.3 in the mean
    assert ONE.answer([(dear, 0.2), (cheap, 0.2)]) == [cheap]
    assert FRONT.answer([(banned, 0.0)]) == []


# ---- searches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [FRONT, ONE], ids=lambda q: q.name)
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
@pytest.mark.parametrize("way", WAYS)
def test_a_search_trains_so_many_networks_and_repeats_itself(
    question: Question, sampler: str, way: str
) -> None:
    search, again = (run(question, sampler, way, seed=3, n_trials=15) for _ in range(2))
    networks = [network for network, _ in search.trials]
    assert search.trials == again.trials
    assert len(networks) == 15
    assert all(error in TABLE.errors[network] for network, error in search.trials)
    if way == "constraint":
        assert not question.allowed[networks].all()
    else:
        assert question.allowed[networks].all()
    assert (search.asks > 15) == (way == "rejection")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_search_with_gaussian_processes(way: str) -> None:
    assert len(run(FRONT, "gp", way, seed=0, n_trials=12).trials) == 12


def test_what_is_rejected_for_ever_is_drawn_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search_quality.MOST_ASKS, "tpe", 2)
    search = run(NARROW, "tpe", "rejection", seed=0, n_trials=3)
    assert search.random_draws == 3
    assert search.asks > 6
    assert NARROW.allowed[[network for network, _ in search.trials]].all()


def test_a_constraint_tells_the_sampler_how_far_out_a_network_is() -> None:
    search = run(FRONT, "random", "constraint", seed=0, n_trials=20)
    for trial, (network, _) in zip(search.study.trials, search.trials, strict=True):
        over, under = (trial.constraints[f"macs_{side}"] for side in ("over", "under"))
        assert (over <= 0 and under <= 0) == FRONT.allowed[network]


def test_rejected_asks_are_not_told() -> None:
    search = run(FRONT, "tpe", "rejection", seed=0, n_trials=12)
    finished = [t for t in search.study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(finished) == 12 < len(search.study.trials) == search.asks


def test_searches_of_several_seeds_differ() -> None:
    found = [run(FRONT, "random", "construction", seed, 5).trials for seed in range(4)]
    assert len({tuple(trials) for trials in found}) == 4


# ---- figures -------------------------------------------------------------------------------------------


def test_the_interval_holds_the_median_and_narrows_with_searches() -> None:
    few, many = (np.random.default_rng(1).normal(size=(n, 1)) for n in (10, 1000))
    widths = []
    for values in (few, many):
        median, low, high = interval(values)[:, 0]
        assert median == np.median(values)
        assert low <= median <= high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]


def test_a_difference_is_called_only_where_the_interval_excludes_zero() -> None:
    ours, theirs = list(np.linspace(1, 2, 20)), list(np.linspace(0, 0.5, 20))
    assert difference(ours, theirs)[0] == pytest.approx(1.25)
    assert verdict(*difference(ours, theirs)[1:]) == "construction"
    assert verdict(*difference(theirs, ours)[1:]) == "the other"
    assert difference(ours, theirs, "mean")[0] == pytest.approx(1.25)
    assert verdict(*difference(ours, ours)[1:]) == "open"


def test_results_are_judged_reported_and_drawn() -> None:
    found = [judge(q, "random", way, n_seeds=3, n_trials=8) for q in (FRONT, ONE) for way in WAYS]
    lines = {(line["question"], line["sampler"], line["way"]): line for line in found}
    assert all(len(line["share"]["median"]) == 8 for line in found)
    assert [line["infeasible"] > 0 for line in found] == 2 * [False, False, True]
    for figure in REPORTED:
        report = list(rows(lines, figure))
        assert [row[1] for row in report] == list(WAYS)
        assert [row[5] == "" for row in report] == [True, False, False]
    panels = draw_searches(lines).axes
    assert [len(panel.lines) for panel in panels] == [3, 3]
    drawn = panels[0].lines[0].get_ydata()
    assert list(drawn) == pytest.approx(
        [100 * y for y in lines["front", "random", "construction"]["share"]["median"]]
    )


def test_a_search_needs_a_known_sampler() -> None:
    with pytest.raises(SpecError, match="unknown sampler 'genetic'"):
        Search(FRONT, search_quality.Ref("genetic"), 0).ask({})
