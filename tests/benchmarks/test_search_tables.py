from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import make_digits
import pandas as pd
import pytest
from make_digits import COLUMNS, CURVE, KNOBS, TABLE, Training, key, make, trainings

from connsearch.cost import network_cost
from connsearch.spec.resolve import resolve

WANTED = list(trainings(2))[:5]


def stand_in(training: Training) -> dict[str, Any]:
    """Return a line as training would, without training."""
    return {name: training._asdict().get(name, training.member) for name in COLUMNS}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Replace training by something quick, and return what is trained, in order."""
    found: list[Training] = []

    def row(training: Training) -> dict[str, Any]:
        found.append(training)
        return stand_in(training)

    monkeypatch.setattr(make_digits, "row", row)
    return found


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return pd.read_csv(TABLE)


# ---- the script ----------------------------------------------------------------------------------------


def test_every_network_is_trained_once_before_any_is_trained_twice() -> None:
    found = list(trainings(3))
    assert len(set(found)) == len(found)
    assert [t.seed for t in found] == sorted(t.seed for t in found)


def test_the_number_of_a_network_depends_on_its_knobs_alone() -> None:
    found = {t[: len(KNOBS)]: t.member for t in trainings(1)}
    assert len(set(found.values())) == len(found)
    assert Training("dense", "sum", 2, 8, 0).member == Training("dense", "sum", 2, 8, 1).member == 3983835222


@pytest.mark.parametrize("kept_bytes", [0, 1, 200, 215, 260, 10_000])
def test_a_script_killed_at_any_moment_goes_on_where_it_stopped(
    kept_bytes: int, tmp_path: Path, trained: list[Training]
) -> None:
    make(tmp_path / "whole.csv", WANTED)
    whole = (tmp_path / "whole.csv").read_bytes()
    killed = tmp_path / "killed.csv"
    killed.write_bytes(whole[:kept_bytes])
    there = max(whole[:kept_bytes].count(b"\n") - 1, 0)
    trained.clear()
    make(killed, WANTED)
    assert killed.read_bytes() == whole
    assert trained == WANTED[there:]


def test_lines_are_sorted_at_the_end_whatever_their_order_was(
    tmp_path: Path, trained: list[Training]
) -> None:
    make(tmp_path / "forth.csv", WANTED)
    make(tmp_path / "back.csv", WANTED[3:])
    make(tmp_path / "back.csv", WANTED)
    assert (tmp_path / "back.csv").read_bytes() == (tmp_path / "forth.csv").read_bytes()


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path, trained: list[Training]) -> None:
    path = tmp_path / "other.csv"
    path.write_text("width,depth\n1,2\n")
    with pytest.raises(SystemExit, match=r"other\.csv: has the columns width, depth: move it away"):
        make(path, WANTED)
    assert path.read_text() == "width,depth\n1,2\n"
    assert not trained


@pytest.mark.slow
def test_a_training_is_a_function_of_its_knobs_and_seed() -> None:
    first, again, other = (make_digits.row(Training("dense", "concat", 2, 3, seed)) for seed in (0, 0, 1))
    del first["seconds"], again["seconds"]
    assert first == again
    assert first["val_loss"] != other["val_loss"]


# ---- the table that is shipped -------------------------------------------------------------------------


def test_the_shipped_table_is_whole(shipped: pd.DataFrame) -> None:
    assert tuple(shipped.columns) == COLUMNS
    with TABLE.open(newline="") as file:
        names = [key(line) for line in csv.DictReader(file)]
    assert names == [key(training._asdict()) for training in trainings(3)]


def test_the_costs_of_the_shipped_table_are_those_of_its_networks(shipped: pd.DataFrame) -> None:
    by_knobs = shipped[shipped.seed == 0].set_index(list(KNOBS))
    for training in trainings(1):
        cost, line = network_cost(training.spec), by_knobs.loc[training[: len(KNOBS)]]
        assert (line.macs, line.params) == (cost.macs, cost.params), training


def test_names_of_networks_in_the_shipped_table_tell_which_are_equal(shipped: pd.DataFrame) -> None:
    kinds = [
        ("chain", "sum"),
        ("chain", "routed"),
        ("dense", "sum"),
        ("dense", "routed"),
        ("log_dense", "sum"),
    ]
    found = [Training(*kind, 2, 8, 0) for kind in kinds]
    names = [resolve(training.spec).canonical_hash()[:12] for training in found]
    by_knobs = shipped[shipped.seed == 0].set_index(list(KNOBS)).network
    assert names == [by_knobs.loc[training[: len(KNOBS)]] for training in found]
    assert names[0] == names[1]  # one source each: nothing to aggregate
    assert len(set(names[1:4])) == 3


def test_the_errors_of_the_shipped_table_are_shares_of_the_validation_images(shipped: pd.DataFrame) -> None:
    errors = shipped.loc[shipped.diverged == 0, ["val_error", *CURVE]]
    wrong = 360 * errors.to_numpy()
    assert abs(wrong - wrong.round()).max() < 1e-3
    assert errors.to_numpy().min() >= 0
    assert errors.to_numpy().max() <= 1
    assert (errors.val_error == errors[CURVE[-1]]).all()
