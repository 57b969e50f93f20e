"""What pruning would have cost: the scripts that say so."""

from __future__ import annotations

import json
from pathlib import Path

import pruning_replay
import pytest
from pruning_told import WAYS, curves_by_network, search
from search_quality import questions
from search_table import Table

from connsearch.search.config import StudyConfig
from connsearch.search.pruning.rules import PRUNERS, make_pruner
from connsearch.search.study import Study

QUESTION, CURVES = questions(Table.read())["front"], curves_by_network()


@pytest.mark.parametrize("epochs", [3, 9])
def test_every_rule_that_is_compared_can_act(epochs: int) -> None:
    found = pruning_replay.rules(epochs)
    assert len({*found}) == len(found) > 10
    for label in found:
        make_pruner(PRUNERS.parse(label), epochs)


def test_studies_are_drawn_from_the_table_without_repetition() -> None:
    studies = pruning_replay.table_studies(60, 3)
    assert [len(curves) for curves in studies] == [60] * 3
    assert studies[0] != studies[1]
    assert all(80_000 <= curve.macs <= 640_000 and len(curve.errors) == 3 for curve in studies[0])
    line = pruning_replay.judge("none", studies)
    assert line["saved"] == line["regret"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    loose = pruning_replay.judge("median(first_epoch=1, dominated_by=0)", studies)
    tight = pruning_replay.judge("median(first_epoch=1)", studies)
    assert loose["saved"]["mean"] > tight["saved"]["mean"] > 0.1
    assert loose["regret"]["mean"] > 2 * tight["regret"]["mean"]


def test_a_recorded_study_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {
        "input": {"channels": 1, "height": 8, "width": 8},
        "n_classes": 4,
        "blocks": {"n_layers": {"low": 1, "high": 3}},
        "budget": {"macs": 100_000},
    }
    dataset = "synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32, n_test=32)"
    train = {"dataset": dataset, "epochs": 3, "batch_size": 32}
    config = StudyConfig.from_dict({"space": space, "train": train, "sampler": "random", "n_trials": 4})
    study = Study.from_config(tmp_path / "study", config)
    study.run(device="cpu")
    recorded, shuffled = pruning_replay.recorded_studies(str(study.directory), 2)
    errors = [[e["val_error"] for e in trial.user_attrs["curve"]] for trial in study.trials()]
    assert [list(curve.errors) for curve in recorded] == errors
    assert sorted(map(hash, recorded)) == sorted(map(hash, shuffled))
    written: list[dict[str, object]] = []
    monkeypatch.setattr(pruning_replay, "append", lambda name, line: written.append({"name": name, **line}))
    rule = "median(first_epoch=1, min_peers=1, dominated_by=0)"
    monkeypatch.setattr("sys.argv", ["x", "--study", str(study.directory), "--orders", "2", "--rules", rule])
    pruning_replay.main()
    assert capsys.readouterr().out.startswith(f"{rule} epochs saved ")
    (line,) = json.loads(json.dumps(written))
    assert (line["name"], line["of"], line["epochs"], line["trials"], line["studies"]) == (
        "pruning_replay", "study", 3, 4, 2,
    )  # fmt: skip


def test_what_cannot_be_replayed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--study", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^Error: .*: no study there: run one with"):
        pruning_replay.main()
    monkeypatch.setattr("sys.argv", ["x", "--rules", "medain"])
    with pytest.raises(SystemExit, match=r"^Error: unknown pruner 'medain'\. Did you mean 'median'\?"):
        pruning_replay.main()


@pytest.mark.parametrize("way", WAYS)
def test_a_search_spends_its_epochs_and_no_more(way: str) -> None:
    found, n_trials = search(QUESTION, CURVES, "random", way, seed=0, epochs=90)
    if way == "never pruned":
        assert n_trials == len(found.trials) == 30
    else:
        assert n_trials > 30 > len(found.trials)
    states = [trial.state.name for trial in found.study.get_trials()[:n_trials]]
    assert ("PRUNED" in states) == (way == "state")
    marked = sum(bool(trial.constraints) for trial in found.study.get_trials()[:n_trials])
    assert (marked == n_trials - len(found.trials)) == (way in ("constraint", "never pruned"))


def test_curves_are_those_of_the_tables_networks() -> None:
    table = QUESTION.table
    assert len(CURVES) == len(table.macs)
    for number in (0, 100, 251):
        assert sorted(curve[-1] for curve in CURVES[number]) == sorted(table.errors[number].tolist())
