"""Tournaments: who takes part, which seeds they get, what is said of them, what survives a stop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import SPACE as SMALL, TRAIN, StandIn, make_config

from connsearch.cost import network_cost
from connsearch.errors import SpecError, StudyError
from connsearch.search.config import StudyConfig
from connsearch.search.retrain import retrain_exactly
from connsearch.search.study import Study
from connsearch.search.tournament.contestants import shape_of, tournament_of
from connsearch.search.tournament.session import read_tournament, run_tournament
from connsearch.search.tournament.standings import Standings, standings_of
from connsearch.search.tournament.statistics import bootstrap_interval, holm, sign_flip_p
from connsearch.spec.network import NetworkSpec

SPACE = {**SMALL, "budget": {"macs": {"low": 100_000, "high": 400_000}, "tolerance": 0.05}}
SKILL = {"chain": 0.30, "dense": 0.20, "sparse(base=3)": 0.22, "sum": 0.05, "concat": 0.0, "depthwise": 0.02}
PAIRS = ["chain x sum", "dense x sum", "dense x concat", "sparse(base=3) x sum", "sparse(base=3) x concat"]


def names(spec: NetworkSpec) -> tuple[str, str]:
    return spec.blocks[0].topology.label, spec.blocks[0].aggregation.label


def error_of(spec: NetworkSpec, seeds: int) -> float:
    """Return an error that depends on the network, and on it and the seeds together."""
    topology, aggregation = names(spec)
    luck = np.random.default_rng([seeds, network_cost(spec).params]).normal() * 0.01
    return round(SKILL[topology] + SKILL[aggregation] + float(luck), 6)


class Trainer(StandIn):
    """Remembers calls, fails or diverges when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: tuple[str, str] | None = None
        self.diverges: tuple[str, str] | None = None

    def reach(self, spec: NetworkSpec, study_seed: int, trial: int) -> tuple[float, bool]:
        self.trained.append((names(spec), trial))
        if names(spec) == self.fails and trial == 1:
            raise ValueError("no luck")
        return error_of(spec, trial), names(spec) == self.diverges and trial == 1


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    found = Trainer()
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", found)
    monkeypatch.setattr("connsearch.search.tournament.statistics.N_PERMUTED", 499)
    return found


def tournament(space: dict[str, Any] | None = None, **table: Any) -> StudyConfig:
    return tournament_of(make_config(space=space or SPACE, tournament={"seeds": 3, **table}))


@pytest.fixture
def run(tmp_path: Path, trainer: Trainer) -> Callable[..., Standings]:
    def start(space: dict[str, Any] | None = None, **table: Any) -> Standings:
        return run_tournament(tmp_path / "t", tournament(space, **table), "cpu")

    return start


# ---- who takes part ------------------------------------------------------------------------------------


def test_what_is_not_said_comes_from_the_middle_of_the_space() -> None:
    config = tournament_of(make_config(space=SPACE))
    assert config.tournament is not None
    assert config.tournament.seeds == 5
    shape = shape_of(config)
    assert (shape.macs, shape.count, shape.n_layers, shape.width_ratio) == (200_000, 2, 2, 1.5)
    assert str(shape) == "200 kMACs, 2 blocks of 2 layers, width ratio 1.5"
    said = tournament_of(
        make_config(space=SPACE, tournament={"macs": 300_000, "count": 1, "n_layers": 3, "width_ratio": 2.0})
    )
    assert str(shape_of(said)) == "300 kMACs, 1 block of 3 layers"


def test_other_categories_take_their_first_value_and_are_named() -> None:
    blocks = {**SPACE["blocks"], "unit": {"any_of": ["conv", "basic"]}}
    assert str(shape_of(tournament({**SPACE, "blocks": blocks}))).endswith(", unit conv")


def test_one_network_under_several_names_is_one_contestant() -> None:
    table = tournament().tournament
    assert table is not None
    assert [c.pair for c in table.contestants] == PAIRS
    assert table.contestants[0].pairs == ("chain x sum", "chain x concat")
    assert table.left_out == ()


def test_a_subset_takes_part() -> None:
    config = tournament(topologies=["dense", "sparse(base=3)"], aggregations=["concat", "depthwise"])
    assert config.tournament is not None
    assert [c.pair for c in config.tournament.contestants] == [
        "dense x concat", "dense x depthwise", "sparse(base=3) x concat", "sparse(base=3) x depthwise",
    ]  # fmt: skip
    assert config.n_trials == 3 * 4


def test_pairs_that_do_not_meet_the_budget_are_named_and_left_out(run: Callable[..., Standings]) -> None:
    found = run(macs=51_000, n_layers=2, count=2, width_ratio=1.0)
    left = {each.pair: each.reason for each in found.left_out}
    ran = {name for row in found.rows for name in row.contestant.pairs}
    assert left.keys() | ran == {
        f"{t} x {a}" for t in ("chain", "dense", "sparse(base=3)") for a in ("sum", "concat")
    }
    assert re.fullmatch(
        r"macs: the least possible is [\d,]+ \(widths 4, 4 of 4 layers\), over the budget of 51,000: "
        "raise macs or use fewer layers",
        left["dense x concat"],
    )
    assert f"left out: dense x concat: {left['dense x concat']}" in str(found)
    for row in found.rows:
        assert 0.95 * 51_000 <= row.macs <= 51_000


def test_a_network_far_below_its_budget_is_no_fair_opponent() -> None:
    space = {**SPACE, "budget": {"macs": 400_000, "params": 3_000}}
    with pytest.raises(
        SpecError, match=r"^tournament: .*comes to [\d.]+ % of its budget only, 98 % are needed"
    ):
        tournament(space)


def test_one_network_makes_no_tournament() -> None:
    with pytest.raises(
        SpecError,
        match=r"^tournament: a tournament needs two different networks at 200 k?MACs: chain x sum is the ",
    ):
        tournament(topologies=["chain"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"seeds": 0}, r"^tournament\.seeds: should be greater than or equal to 1, got 0$"),
        ({"macs": "2M"}, r"^tournament\.macs: must be an integer, got '2M'$"),
        ({"width_ratio": 1e3}, r"^tournament\.width_ratio: should be less than or equal to 100, got 1000"),
        ({"topologies": ["dens"]}, r"^tournament\.topologies\[0\]: unknown topology 'dens'\. Did you mean"),
        ({"aggregations": ["sum", "sum"]}, r"^tournament\.aggregations: names must differ, got sum, sum$"),
        ({"seed": 3}, r"^tournament\.seed: unknown key\. Did you mean 'seeds'\?"),
    ],
)  # fmt: skip
def test_wrong_values(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_config(tournament=table)


def test_a_tournament_of_a_tournament_is_itself(tmp_path: Path) -> None:
    config = tournament()
    assert tournament_of(config) == config
    (tmp_path / "t.toml").write_text(config.to_toml())
    assert StudyConfig.from_toml(tmp_path / "t.toml") == config
    assert StudyConfig.from_dict(json.loads(json.dumps(config.to_full_dict()))) == config


def test_nothing_draws_prunes_or_filters_its_trials() -> None:
    limits = {"inference_ms": 50.0}
    pruner = {"name": "median", "first_epoch": 1}
    train = {**TRAIN, "epochs": 2}
    asked = make_config(space=SPACE, train=train, pruner=pruner, constraints=limits, duplicates="reuse")
    config, plain = tournament_of(asked), make_config()
    assert (config.pruner, config.constraints) == (plain.pruner, plain.constraints)
    assert (config.duplicates, config.warm_start, config.prefilter) == ("replicate", None, None)


def test_the_table_alone_makes_a_study_no_tournament(tmp_path: Path, made_up: None) -> None:
    config = make_config(tournament={"seeds": 2})
    assert make_config(tournament={"seeds": 2, "macs": 90_000}).identity() == config.identity()
    study = Study.from_config(tmp_path, config)
    study.run(3)
    assert len({trial.params["macs_budget"] for trial in study.trials()}) == 3
    with pytest.raises(StudyError, match=r"^this study is no tournament"):
        standings_of(config, study.trials())


# ---- seeds ---------------------------------------------------------------------------------------------


def test_seeds_are_completed_round_by_round_and_alike_for_all(
    run: Callable[..., Standings], trainer: Trainer, tmp_path: Path
) -> None:
    run()
    pairs = [tuple(pair.split(" x ")) for pair in PAIRS]
    assert trainer.trained == [(pair, seeds) for seeds in range(3) for pair in pairs]
    trials = Study.load(tmp_path / "t").trials()
    assert [trial.user_attrs.get("seeds_of", trial.number) for trial in trials] == [
        seeds for seeds in range(3) for _ in pairs
    ]


def test_weights_and_batches_are_those_of_the_recorded_seeds(tmp_path: Path) -> None:
    config = tournament(topologies=["dense"], seeds=2)
    run_tournament(tmp_path / "t", config, "cpu")
    study = Study.load(tmp_path / "t")
    assert retrain_exactly(study, 3).equal
    curves = [trial.user_attrs["curve"][0]["train_loss"] for trial in study.trials()]
    assert len(set(curves)) == 4


# ---- stopping and going on -----------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 7])
def test_stopped_and_resumed_equals_never_stopped(
    run: Callable[..., Standings], trainer: Trainer, tmp_path: Path, after: int
) -> None:
    unbroken = run_tournament(tmp_path / "unbroken", tournament(), "cpu")
    trainer.trained.clear()
    trainer.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        run()
    resumed = run()
    assert resumed == unbroken
    assert len(trainer.trained) == 15


def test_an_unfinished_tournament_is_read_over_its_complete_rounds(
    run: Callable[..., Standings], trainer: Trainer, tmp_path: Path
) -> None:
    trainer.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run()
    with pytest.raises(StudyError, match=r"^no round is complete yet: 3 of 5 contestants were trained"):
        read_tournament(tmp_path / "t")
    trainer.stop_after = 12
    with pytest.raises(KeyboardInterrupt):
        run()
    found = read_tournament(tmp_path / "t", tournament())
    assert (found.rounds, found.asked, found.is_complete) == (2, 3, False)
    assert all(len(row.errors) == 2 for row in found.rows)
    assert "unfinished: 2 of 3 rounds are complete" in str(found)


def test_more_seeds_go_on_and_another_budget_does_not(
    run: Callable[..., Standings], trainer: Trainer
) -> None:
    first = run()
    more = run(seeds=4)
    assert len(trainer.trained) == 20
    assert {row.contestant: row.errors[:3] for row in more.rows} == {
        row.contestant: row.errors for row in first.rows
    }
    with pytest.raises(
        StudyError, match=r"holds another study: space\.budget\.macs is 200000 there, 120000 here"
    ):
        run(macs=120_000)


@pytest.mark.slow
def test_two_workers_train_what_one_does(tmp_path: Path) -> None:
    config = tournament(topologies=["dense", "sparse(base=3)"], seeds=2)
    one = run_tournament(tmp_path / "one", config, "cpu")
    two = run_tournament(tmp_path / "two", config, "cpu", workers=2)
    assert two == one


# ---- what is said --------------------------------------------------------------------------------------


def matrix(found: Standings) -> dict[str, np.ndarray]:
    return {row.contestant.pair: np.array(row.errors) for row in found.rows}


def test_ranks_means_and_differences(run: Callable[..., Standings]) -> None:
    found = run(seeds=6)
    errors = matrix(found)
    means = {pair: float(values.mean()) for pair, values in errors.items()}
    assert [row.contestant.pair for row in found.rows] == sorted(means, key=lambda pair: means[pair])
    best = errors[found.rows[0].contestant.pair]
    for rank, row in enumerate(found.rows, 1):
        values = errors[row.contestant.pair]
        assert (row.rank, row.mean) == (rank, pytest.approx(values.mean()))
        assert row.interval == bootstrap_interval(values)
        assert row.behind == pytest.approx((values - best).mean())
    assert found.rows[-1].contestant.pair == "chain x sum"
    assert found.rows[-1].behind_interval == bootstrap_interval(errors["chain x sum"] - best)
    assert found.rows[-1].p < 0.01
    assert found.rows[0].p == 1.0


def test_comparisons_are_paired_and_those_of_a_shared_network_count_once(
    run: Callable[..., Standings],
) -> None:
    found = run(seeds=6)
    errors = matrix(found)
    by = {(each.better, each.worse): each for each in found.comparisons}
    assert by.keys() == {
        ("concat", "sum"), ("dense", "chain"), ("sparse(base=3)", "chain"), ("dense", "sparse(base=3)"),
    }  # fmt: skip
    differences = {
        ("concat", "sum"): np.concatenate(
            [errors[f"{t} x sum"] - errors[f"{t} x concat"] for t in ("dense", "sparse(base=3)")]
        ),
        ("dense", "chain"): errors["chain x sum"] - (errors["dense x sum"] + errors["dense x concat"]) / 2,
        ("sparse(base=3)", "chain"): errors["chain x sum"]
        - (errors["sparse(base=3) x sum"] + errors["sparse(base=3) x concat"]) / 2,
        ("dense", "sparse(base=3)"): np.concatenate(
            [errors[f"sparse(base=3) x {a}"] - errors[f"dense x {a}"] for a in ("sum", "concat")]
        ),
    }
    corrected = holm([sign_flip_p(differences[each.better, each.worse]) for each in found.comparisons])
    for each, p in zip(found.comparisons, corrected, strict=True):
        expected = differences[each.better, each.worse]
        assert each.gain == pytest.approx(expected.mean())
        assert each.interval == pytest.approx(bootstrap_interval(expected))
        assert (each.p, each.n) == (pytest.approx(p), len(expected))
    assert by["concat", "sum"].over == ("dense", "sparse(base=3)")
    assert by["concat", "sum"].significant


def test_the_text(run: Callable[..., Standings]) -> None:
    found = run(seeds=6)
    lines = str(found).splitlines()
    assert lines[0] == "5 networks x 6 seeds at 200 kMACs, 2 blocks of 2 layers, width ratio 1.5"
    assert re.fullmatch(r"rank  network +params +MACs  error % +95 %  behind +95 % +p", lines[1])
    assert re.fullmatch(r"   1  \S+ x \w+ +[\d.]+ k +[\d.]+ k +\d+\.\d\d  \d+\.\d\d to \d+\.\d\d", lines[2])
    assert "one network, counted once: chain x sum = chain x concat" in lines
    assert "significant at 5 %, corrected for 4 comparisons:" in lines
    points = r"\d\.\d points \[\d\.\d, \d\.\d\] at 200 kMACs"
    n = r"12 differences over dense, sparse\(base=3\)"
    sentence = rf"  concat beats sum by {points} \(p = [\d.e-]+, {n}\)"
    assert any(re.fullmatch(sentence, line) for line in lines)


def test_few_seeds_are_said_to_be_few(run: Callable[..., Standings]) -> None:
    text = str(run(seeds=3))
    assert "with 3 seeds the second cannot be told from the best (p is 0.25 at least): that takes 6" in text
    assert "2 comparisons with chain rest on 3 differences or fewer, too few for 5 %: add seeds" in text
    assert tournament(seeds=1).n_trials == 5


def test_one_seed_has_no_interval(run: Callable[..., Standings]) -> None:
    found = run(seeds=1)
    assert {row.p for row in found.rows} == {1.0}
    assert "one seed ranks nothing" in str(found)
    plain = found.to_dict()
    assert plain["contestants"][0]["val_error_low"] is None
    json.dumps(plain, allow_nan=False)


def test_who_failed_is_named_and_who_diverged_is_counted(
    run: Callable[..., Standings], trainer: Trainer
) -> None:
    trainer.fails, trainer.diverges = ("dense", "sum"), ("dense", "concat")
    found = run()
    assert "dense x sum" not in matrix(found)
    assert [(left.pair, left.reason) for left in found.left_out] == [
        ("dense x sum", "1 of 3 trainings failed, trial 6 with: ValueError: no luck")
    ]
    assert "left out: dense x sum: 1 of 3 trainings failed" in str(found)
    last = found.rows[-1]
    assert (last.contestant.pair, last.diverged, last.errors[1]) == ("dense x concat", 1, 1.0)
    assert "dense x concat: 1 of 3 trainings diverged, which counts as an error of 100 %" in str(found)


def test_all_names_of_a_network_that_failed_are_named(
    run: Callable[..., Standings], trainer: Trainer
) -> None:
    trainer.fails = ("chain", "sum")
    found = run()
    assert [(left.pair, left.reason) for left in found.left_out] == [
        ("chain x sum", "1 of 3 trainings failed, trial 5 with: ValueError: no luck"),
        ("chain x concat", "one network with chain x sum"),
    ]


def test_plain_data_and_a_line_for_each_training(run: Callable[..., Standings], tmp_path: Path) -> None:
    found = run()
    found.to_csv(tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 15
    assert list(table.columns) == ["rank", "topology", "aggregation", "macs", "params", "seeds", "val_error"]
    assert table.groupby("rank")["val_error"].mean().tolist() == pytest.approx([r.mean for r in found.rows])
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["shape"] == {"macs": 200_000, "count": 2, "n_layers": 2, "width_ratio": 1.5, "others": []}
    assert [row["rank"] for row in plain["contestants"]] == [1, 2, 3, 4, 5]
    assert plain["contestants"][-1]["same_as"] == ["chain x concat"]
    assert {(c["better"], c["worse"]) for c in plain["comparisons"]} >= {("concat", "sum")}
    assert all(len(row["val_errors"]) == 3 for row in plain["contestants"])
    assert [row["p_corrected"] for row in plain["contestants"]] == [row.p for row in found.rows]
    assert [each["p_corrected"] for each in plain["comparisons"]] == [each.p for each in found.comparisons]
