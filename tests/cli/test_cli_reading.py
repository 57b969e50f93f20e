"""`trials`, `history`, `importance`, `log` on a study whose trials are made up."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from made_up_study import made_up_study
from tiny import Call, Result, failed

from connsearch.search.config import StudyConfig
from connsearch.search.study import Study

N = 16


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a study in `d`, two of whose trials failed."""
    return made_up_study(tmp_path_factory.mktemp("reading"), N)


@pytest.fixture
def study(directory: Path, here: Path) -> Study:
    """The study, copied to `d` in the working directory."""
    shutil.copytree(directory / "d", here / "d")
    return Study.load("d")


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


# ---- trials ----------------------------------------------------------------------------------------------


def test_trials(call: Call, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    result = call("trials", "d")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split()[:5] == ["trial", "state", "val_error", "macs", "params"]
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(N))
    assert max(map(len, lines)) <= 90


def test_trials_that_are_chosen(call: Call, study: Study) -> None:
    best = call("trials", "d", "--state", "complete", "--sort", "val_error", "-n", 2).out.splitlines()
    complete = [trial for trial in study.trials() if "reason" not in trial.user_attrs]
    expected = sorted(complete, key=lambda trial: (trial.user_attrs["val_error"], trial.number))[:2]
    assert [int(line.split()[0]) for line in best[1:]] == [trial.number for trial in expected]
    assert best[0].split()[:2] == ["trial", "val_error"]
    worst = call("trials", "d", "--sort", "macs", "--reverse", "-n", 1).out.splitlines()[1]
    costs = {trial.user_attrs["cost"]["macs"] for trial in study.trials()}
    number = int(worst.split()[0])
    assert study.trials()[number].user_attrs["cost"]["macs"] == max(costs)
    lost = json.loads(call("trials", "d", "--state", "failed", "--json").out)["trials"]
    assert {row["reason"] for row in lost} == {"RuntimeError: no such luck"}
    assert call("trials", "d", "--state", "waiting") == Result(0, "no trial\n", "")


def test_trials_to_files(call: Call, study: Study, here: Path) -> None:
    result = call("trials", "d", "--state", "complete", "--csv", "t.csv", "--curves", "c.csv", "--json")
    assert (result.code, result.err) == (0, "wrote t.csv\nwrote c.csv\n")
    plain = json.loads(result.out)
    assert plain["objectives"] == ["val_error", "macs"]
    rows = rows_of(here / "t.csv")
    assert [int(row["trial"]) for row in rows] == [row["trial"] for row in plain["trials"]]
    assert [row["hash"] for row in rows] == [row["hash"] for row in plain["trials"]]
    assert list(rows[0]) == list(plain["trials"][0])
    curves = rows_of(here / "c.csv")
    assert [(int(row["trial"]), int(row["epoch"])) for row in curves] == [
        (row["trial"], epoch) for row in plain["trials"] for epoch in (1, 2)
    ]


# ---- history, importance ---------------------------------------------------------------------------------


def test_history(call: Call, study: Study, here: Path) -> None:
    result = call("history", "d", "--plot", "h.png", "--plot", "h.svg", "--csv", "h.csv")
    assert (result.code, result.err) == (0, "wrote h.png\nwrote h.svg\nwrote h.csv\n")
    assert result.out.splitlines()[-1] == "hypervolume measured from val_error 100.0 %, macs 90 k"
    rows = rows_of(here / "h.csv")
    assert len(rows) == N
    assert float(rows[-1]["hypervolume"]) == pytest.approx(study.pareto_front().hypervolume)
    assert (here / "h.png").read_bytes().startswith(b"\x89PNG")
    assert "measured from val_error 100.0 %, macs 90 k" in (here / "h.svg").read_text()


def test_history_from_another_point(call: Call, study: Study) -> None:
    result = call("history", "d", "--reference", "val_error=0.5", "--reference", "macs=9e4", "--json")
    plain = json.loads(result.out)
    assert plain["reference"] == {"val_error": 0.5, "macs": 90_000.0}
    assert len(plain["history"]) == N
    assert {row["val_error"] for row in plain["history"]} >= {None}
    assert call("history", "d", "--reference", "val_error=0.5") == failed(
        "the reference needs a value of every objective: add macs=VALUE"
    )


def test_importance(call: Call, study: Study, here: Path) -> None:
    result = call("importance", "d", "--resamples", 2, "--plot", "i.png")
    assert (result.code, result.err) == (0, "wrote i.png\n")
    lines = result.out.splitlines()
    assert re.fullmatch(r"importance of knobs for val_error \(fanova, \d+ trials\)", lines[0])
    assert lines[3].split()[0] == "macs_budget"  # errors follow the cost
    assert re.match(r"unreliable: \d+ trials are few for 3 knobs", lines[-1])
    plain = call("importance", "d", "--resamples", 2, "--at-equal-macs", "--method", "ped-anova", "--json")
    found = json.loads(plain.out)
    assert (found["at_equal_macs"], found["method"]) == (True, "ped-anova")
    assert {knob["knob"] for knob in found["knobs"]} == {"macs_budget", "topology", "n_layers_1"}


@pytest.mark.parametrize("counted", ["params", "inference_bytes"])
def test_importance_for_what_is_counted(call: Call, study: Study, counted: str) -> None:
    result = call("importance", "d", "--objective", counted, "--resamples", 2)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"importance of knobs for {counted} (fanova, ")


# ---- log -------------------------------------------------------------------------------------------------


def test_log(call: Call, study: Study, here: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    assert call("log", "d", "--tensorboard", "tb") == Result(0, f"tb: {N} new runs\n", "")
    assert call("log", "d", "--tensorboard", "tb") == Result(0, "tb: 0 new runs\n", "")
    assert len(list(here.glob("tb/trial-*/*tfevents*"))) == N


def test_log_needs_to_be_told_where(call: Call, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("log", "d")
    assert result.code == 2
    assert "give --tensorboard OUT or --mlflow URI, or both" in result.err
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert call("log", "d", "--mlflow", "sqlite:///m.db") == failed(
        "MLflow's runs need mlflow: pip install 'connsearch[mlflow]'"
    )
    assert call("log", "d", "--tensorboard", "tb") == failed(
        "TensorBoard's files need tensorboard: pip install 'connsearch[tensorboard]'"
    )


# ---- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trials", "d", "--sort", "mac"], r"no column 'mac' to sort by\. Did you mean 'macs'\?.*"),
        (["trials", "d", "--state", "done"], r"unknown state 'done'\. .*Known: complete, .*"),
        (["trials", "d", "--csv", "nowhere/t.csv"], "nowhere/t.csv: there is no directory nowhere: .*"),
        (["history", "d", "--y", "val_eror"], r"the trials have no column 'val_eror'\. Did you mean .*"),
        (["history", "d", "--y", "trial"], "'trial' numbers the trials, none is the best: .*"),
        (["history", "d", "--y", "trial", "--plot", "h.png"], "'trial' numbers the trials, .*"),
        (["history", "d", "--plot", "h.gif"],
         r"h\.gif: cannot draw to a file ending in '\.gif'\. Known: \.pdf, \.png, \.svg\."),
        (["history", "d", "--plot", "h.html"], r"h\.html: cannot draw to a file ending in '\.html'\..*"),
        (["importance", "d", "--objective", "val_eror"], r"no objective 'val_eror'\. Did you mean .*"),
        (["importance", "d", "--method", "anova"], r"unknown method 'anova'\. Did you mean 'fanova'\?.*"),
        *[([command, "nowhere", *more], "nowhere: no study there: .*")
          for command, *more in (["trials"], ["history"], ["importance"], ["log", "--tensorboard", "tb"])],
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes(call: Call, study: Study, here: Path, args: list[str], message: str) -> None:
    before = sorted(here.rglob("*"))
    result = call(*args)
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(f"Error: {message}\n", result.err), result.err
    assert sorted(here.rglob("*")) == before


def test_a_study_that_has_just_begun(call: Call, here: Path) -> None:
    Study.from_config("d", StudyConfig.from_toml("study.toml"))
    assert call("trials", "d") == Result(0, "no trial\n", "")
    assert call("trials", "d", "--state", "complete", "--sort", "val_error") == Result(0, "no trial\n", "")
    assert json.loads(call("trials", "d", "--json").out)["trials"] == []
    assert call("history", "d") == failed("there is no complete trial to draw yet: run the study first")
    assert call("importance", "d") == failed(
        "importance needs at least 10 trials that can be ranked, there are 0"
    )
