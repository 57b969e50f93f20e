from __future__ import annotations

import optuna
import pytest
from search_quality import Search, curves
from search_table import Table
from search_transfer import EARLIER_TRIALS, STARTS, arguments, begun, draws, judge, network, run, transfers

from connsearch.registry import Ref

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.read()


@pytest.mark.parametrize("name", ["front, 8 x", "front, 4 x", "one budget, 7 x"])
def test_earlier_trials_are_in_terms_of_the_large_budgets(table: Table, name: str) -> None:
    transfer = transfers(table)[name]
    earlier = begun(transfer, "random", 0)
    assert sorted(trial.trial for trial in earlier) == list(range(EARLIER_TRIALS))
    for trial in earlier:
        assert transfer.large.low <= trial.counted["macs"] <= transfer.large.high
        assert ("macs_budget" in trial.knobs) == transfer.large.whole_front
    if not transfer.large.whole_front:
        assert earlier[0].error == min(trial.error for trial in earlier)


def test_a_search_begins_with_what_it_is_given_and_else_is_an_ordinary_one(table: Table) -> None:
    transfer = transfers(table)["front, 8 x"]
    earlier = begun(transfer, "random", 0)
    plain = run(transfer.large, "tpe", 0, 12, "nothing", earlier)
    again = Search(transfer.large, Ref("tpe"), 0)
    for _ in range(12):
        trial = again.ask(draws(transfer.large))
        again.train(trial, network(transfer.large, trial.params))
    assert plain.trials == again.trials
    designs = run(transfer.large, "tpe", 0, 12, "designs", earlier)
    assert [t.params for t in designs.study.trials[:5]] == [trial.knobs for trial in earlier[:5]]
    prior = run(transfer.large, "tpe", 0, 12, "prior", earlier)
    assert prior.trials != plain.trials, "sixty results are seen from the first trial on"
    for search in (designs, prior):
        assert len(search.study.trials) == len(search.trials) == 12


def test_a_line_is_beside_the_search_that_began_with_nothing(table: Table) -> None:
    transfer = transfers(table)["one budget, 7 x"]
    nothing, both = judge(transfer, "random", ["nothing", "both"], 2, 5)
    assert nothing["gain"]["mean"] == [0.0]
    assert both["after_trials"] == [5]
    shares = [
        curves(run(transfer.large, "random", seed, 5, start, begun(transfer, "random", seed)))["share"][-1]
        for start in STARTS if start in ("nothing", "both") for seed in range(2)
    ]  # fmt: skip
    assert both["gain"]["mean"][0] == pytest.approx((sum(shares[2:]) - sum(shares[:2])) / 2, abs=1e-4)


def test_words_of_the_command_line_are_separated_as_its_usage_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = arguments(["front, 8 x", "one budget, 7 x"])
    given = ["--samplers", "tpe,nsga2", "--starts", "designs,prior", "--questions", "front, 8 x"]
    found = parser.parse_args(given)
    assert (found.samplers, found.starts) == (["tpe", "nsga2"], ["designs", "prior"])
    assert found.questions == ["front, 8 x"]
    everything = parser.parse_args([])
    assert everything.questions == ["front, 8 x", "one budget, 7 x"]
    assert (everything.samplers, everything.starts) == (["tpe", "nsga2"], [*STARTS])
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--samplers", "tpe;nsga2"])
    assert "--samplers: unknown 'tpe;nsga2'. Did you mean" in capsys.readouterr().err
