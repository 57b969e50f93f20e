"""All that a study recorded, as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import diverged_outcome, made_up_outcome, make_config
from optuna.trial import FrozenTrial, TrialState, create_trial

from connsearch.errors import StudyError
from connsearch.search.reading.plain import records_of
from connsearch.search.reading.tables import (
    chosen,
    curves_table,
    trials_table,
    trials_text,
    write_csv,
)
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec

DEEP = 2  # blocks


def mixed_outcome(spec: NetworkSpec, train_config: object, **more: Any) -> Any:
    """Fail, diverge or end well, by the network."""
    if len(spec.blocks) == DEEP and spec.blocks[0].topology.name == "chain":
        raise RuntimeError("no such luck")
    if spec.blocks[0].n_layers == 1:
        return diverged_outcome(spec, train_config)
    return made_up_outcome(spec, train_config, **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connsearch.search.attempt.evaluate_network", mixed_outcome)
        patch.setattr("os.fsync", lambda file: None)
        made = Study.from_config(tmp_path_factory.mktemp("tables") / "a", make_config(n_trials=30))
        made.run(device="cpu")
    return made


@pytest.fixture
def frame(study: Study) -> pd.DataFrame:
    return study.trials_frame()


def test_a_row_has_what_is_recorded(study: Study, frame: pd.DataFrame) -> None:
    assert frame["trial"].tolist() == list(range(30))
    assert {"complete", "failed"} == set(frame["state"])
    for trial, row in zip(study.trials(), records_of(frame), strict=True):
        attrs = trial.user_attrs
        assert row["macs"] == attrs["cost"]["macs"]
        assert row["hash"] == attrs["hash"]
        assert row["val_error"] == attrs.get("val_error")
        assert [row["told_val_error"], row["told_macs"]] == trial.values
        assert {name: row[f"knob_{name}"] for name in trial.params} == trial.params
        assert row["network"] == attrs["network"]
        assert row["env_torch"] == attrs["environment"]["torch"]
        assert (row["host"], row["attempts"]) == (attrs["lease"]["host"], 1)
        assert row["reason"] == attrs.get("reason")
        assert row["twin"] == attrs.get("twin")
        assert row["wall_seconds"] == trial.duration.total_seconds()
        assert row["ended"] == trial.datetime_complete.isoformat()


def test_nothing_that_is_recorded_is_lost(study: Study) -> None:
    trial = study.trials()[0]
    trial = create_trial(
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, "latency": {"cpu": {"ms": 1.5}}, "note": "by hand", "tried": [1, 2]},
    )
    (row,) = records_of(trials_table([trial], ["val_error", "macs"]))
    assert (row["latency.cpu.ms"], row["note"], row["tried"]) == (1.5, "by hand", [1, 2])


def test_failed_and_diverged_trials_have_no_made_up_numbers(frame: pd.DataFrame) -> None:
    lost = chosen(frame, states=["failed"])
    assert len(lost) > 0
    assert lost["val_error"].isna().all()
    assert lost["seconds"].isna().all()
    assert (lost["reason"] == "RuntimeError: no such luck").all()
    assert lost["error"].str.contains("Traceback").all()
    assert (lost["constraint_failed"] == 1).all()
    diverged = chosen(frame, states=["diverged"])
    assert len(diverged) > 0
    assert (diverged["state"] == "complete").all()
    assert (diverged["constraint_diverged"] == 1).all()


def test_a_running_and_a_waiting_trial(study: Study) -> None:
    lease = {"host": "here", "pid": 7, "epoch": 3, "attempt": 2, "time": 0.0}
    running = create_trial(state=TrialState.RUNNING, user_attrs={"lease": lease})
    waiting = create_trial(state=TrialState.WAITING)
    first, second = records_of(trials_table([running, waiting], ["val_error", "macs"]))
    assert (first["state"], first["epochs"], first["pid"], first["attempts"]) == ("unfinished", 3, 7, 2)
    assert (second["state"], second["epochs"], second["host"]) == ("waiting", None, None)


def test_no_trial() -> None:
    frame = trials_table([], ["val_error", "macs"])
    assert frame.empty
    assert trials_text(frame) == "no trial"
    assert records_of(frame) == []
    assert list(curves_table([]).columns)[:2] == ["trial", "epoch"]


@pytest.mark.parametrize("trials", [[], [create_trial(state=TrialState.WAITING)]], ids=["none", "waiting"])
def test_where_nothing_ended_yet_all_can_be_asked_that_can_be_asked_later(trials: list[FrozenTrial]) -> None:
    frame = trials_table(trials, ["val_error", "macs"])
    assert chosen(frame, states=["complete"]).empty
    assert chosen(frame, states=["diverged"]).empty
    assert len(chosen(frame, sort="macs", reverse=True)) == len(trials)
    with pytest.raises(StudyError, match=r"^unknown state 'fail'\. Did you mean 'failed'\?"):
        chosen(frame, states=["fail"])
    with pytest.raises(StudyError, match=r"^no column 'val_eror' to sort by\. Did you mean 'val_error'\?"):
        chosen(frame, sort="val_eror")


def test_curves_are_long(study: Study) -> None:
    curves = study.curves_frame()
    with_curve = [trial for trial in study.trials() if trial.user_attrs.get("curve")]
    assert curves["trial"].tolist() == [trial.number for trial in with_curve]
    assert (
        curves.to_dict("records")[0] == {"trial": with_curve[0].number} | with_curve[0].user_attrs["curve"][0]
    )


# ---- choosing --------------------------------------------------------------------------------------------


def test_sorted_trials_have_the_missing_last(frame: pd.DataFrame) -> None:
    up, down = chosen(frame, sort="val_error"), chosen(frame, sort="val_error", reverse=True)
    known = up["val_error"].dropna()
    assert known.is_monotonic_increasing
    assert up["val_error"].iloc[len(known) :].isna().all()
    assert down["val_error"].iloc[0] == known.max()
    assert down["val_error"].iloc[-1:].isna().all()
    assert chosen(frame, sort="macs", n=3)["macs"].tolist() == sorted(frame["macs"])[:3]
    assert chosen(frame, sort="topology")["topology"].is_monotonic_increasing


def test_a_column_of_tables_can_be_sorted_by(frame: pd.DataFrame) -> None:
    assert len(chosen(frame, sort="network")) == 30


@pytest.mark.parametrize(
    ("reverse", "sense", "trials"),
    [(False, "minimize", [2, 1, 3, 0]), (True, "minimize", [0, 2, 1, 3]), (False, "maximize", [1, 3, 2, 0])],
)
def test_of_equal_rows_the_better_comes_first(reverse: bool, sense: str, trials: list[int]) -> None:
    rows = {"trial": [0, 1, 2, 3], "val_error": [0.5, 0.25, 0.25, 0.25], "macs": [1, 9, 4, 9]}
    found = chosen(
        pd.DataFrame(rows).astype({"macs": "Int64"}),
        sort="val_error", reverse=reverse, objectives={"val_error": "minimize", "macs": sense},
    )  # fmt: skip
    assert found["trial"].tolist() == trials


def test_what_cannot_be_chosen(frame: pd.DataFrame) -> None:
    with pytest.raises(StudyError, match=r"^no column 'mac' to sort by\. Did you mean 'macs'\?"):
        chosen(frame, sort="mac")
    with pytest.raises(StudyError, match=r"^unknown state 'fail'\. Did you mean 'failed'\?"):
        chosen(frame, states=["fail"])


# ---- writing ---------------------------------------------------------------------------------------------


def test_the_file_reads_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_csv(frame, tmp_path / "t.csv")
    back = pd.read_csv(tmp_path / "t.csv", parse_dates=["started", "ended"])
    assert list(back.columns) == list(frame.columns)
    assert back["macs"].tolist() == frame["macs"].tolist()
    assert back["val_error"].fillna(-1).tolist() == frame["val_error"].fillna(-1).tolist()
    assert [json.loads(cell) for cell in back["network"]] == frame["network"].tolist()
    assert back["ended"].tolist() == frame["ended"].tolist()


def test_records_are_plain(frame: pd.DataFrame) -> None:
    text = json.dumps(records_of(frame), allow_nan=False)
    assert json.loads(text)[0]["macs"] == frame["macs"][0]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_the_table_fits_the_terminal(frame: pd.DataFrame, width: int) -> None:
    lines = trials_text(frame, width).splitlines()
    assert len(lines) == 31
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == ["trial", "state", "val_error"]
    assert ("topology" in lines[0]) == (width >= 60)


def test_what_is_sorted_by_is_shown(frame: pd.DataFrame) -> None:
    assert trials_text(frame, 60, first="env_torch").splitlines()[0].split()[:2] == ["trial", "env_torch"]
