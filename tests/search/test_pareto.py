from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from connsearch.errors import ConnsearchError, StudyError
from connsearch.plots import history_frame, plot_history, plot_pareto
from connsearch.report import pareto_html
from connsearch.search.reading.hypervolume import hypervolume, non_dominated
from connsearch.search.reading.pareto import ParetoFront
from connsearch.text import human

SIDE = 6


@st.composite
def clouds(draw: st.DrawFn, min_size: int = 1) -> list[tuple[int, ...]]:
    n_objectives = draw(st.integers(1, 4))
    point = st.tuples(*[st.integers(0, SIDE)] * n_objectives)
    return draw(st.lists(point, min_size=min_size, max_size=8))


def frame_of(points: list[tuple[float, ...]]) -> pd.DataFrame:
    names = [f"f{i}" for i in range(len(points[0]))]
    return pd.DataFrame(points, columns=names).assign(trial=range(len(points)))


def front_of(points: list[tuple[float, ...]], **more: object) -> ParetoFront:
    frame = frame_of(points)
    return ParetoFront.from_frame(frame, [c for c in frame.columns if c != "trial"], **more)


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def example(**columns: object) -> ParetoFront:
    frame = pd.DataFrame({
        "trial": [3, 7, 9, 12, 20], "val_error": [0.12, 0.04, 0.05, 0.03, 0.04],
        "macs": [5e5, 2e6, 3e6, 8e6, 2e6], "params": [1200, 45_600, 50_000, 99_999, 45_600],
        "topology": ["chain", "log_dense", "dense", "sparse(base=3)", "log_dense"],
        "aggregation": ["sum", "depthwise", "concat", "routed", "mean"],
    }).assign(**columns)  # fmt: skip
    return ParetoFront.from_frame(
        frame, ("val_error", "macs"), ("minimize", "minimize"), {"val_error": 0.2, "macs": 1e7}
    )


# ---- the front -----------------------------------------------------------------------------------------


@given(clouds())
@settings(max_examples=60, deadline=None)
def test_points_are_the_non_dominated_by_definition(points: list[tuple[int, ...]]) -> None:
    expected = {p: points.index(p) for p in points if not any(dominates(q, p) for q in points)}
    front = front_of(points)
    assert sorted(front.points["trial"]) == sorted(expected.values())
    assert len(front.points) + len(front.dominated) == len(points)


@given(clouds(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_trials_does_not_matter(points: list[tuple[int, ...]], random: object) -> None:
    frame = frame_of(points)
    names = [c for c in frame.columns if c != "trial"]
    shuffled = frame.sample(frac=1, random_state=random.randrange(99))
    pd.testing.assert_frame_equal(
        ParetoFront.from_frame(frame, names).points, ParetoFront.from_frame(shuffled, names).points
    )


@given(clouds())
@settings(max_examples=60, deadline=None)
def test_maximising_the_negative_is_minimising(points: list[tuple[int, ...]]) -> None:
    names = [f"f{i}" for i in range(len(points[0]))]
    reference = dict.fromkeys(names, SIDE + 1.0)
    front = front_of(points, reference=reference)
    frame = frame_of(points)
    frame[names] *= -1
    mirrored = ParetoFront.from_frame(
        frame, names, ["maximize"] * len(names), {name: -value for name, value in reference.items()}
    )
    assert set(front.points["trial"]) == set(mirrored.points["trial"])
    assert front.hypervolume == mirrored.hypervolume


def test_points_ascend_by_cost_whatever_the_order_of_objectives() -> None:
    front = example()
    assert front.x == "macs"
    assert front.points["trial"].tolist() == [3, 7, 12]
    assert front.dominated["trial"].tolist() == [9, 20]


def test_equal_vectors_keep_the_lowest_trial_number() -> None:
    assert non_dominated(np.zeros((3, 2)), np.array([5, 1, 4])) == [1]


# ---- hypervolume ---------------------------------------------------------------------------------------


def cells(points: list[tuple[int, ...]], reference: tuple[int, ...]) -> int:
    """Unit cells between 0 and the reference whose lower corner some point reaches."""
    grid = itertools.product(*(range(r) for r in reference))
    return sum(any(all(p <= c for p, c in zip(q, cell, strict=True)) for q in points) for cell in grid)


@given(clouds(), st.data())
@settings(max_examples=60, deadline=None)
def test_hypervolume_counts_the_cells_of_a_grid(points: list[tuple[int, ...]], data: st.DataObject) -> None:
    reference = data.draw(st.tuples(*[st.integers(0, SIDE + 1)] * len(points[0])))
    names = [f"f{i}" for i in range(len(reference))]
    front = front_of(points, reference=dict(zip(names, reference, strict=True)))
    assert front.hypervolume == cells(points, reference)
    losses = np.array(points, dtype=float)
    assert hypervolume(losses, np.array(reference, dtype=float)) == front.hypervolume


@given(clouds(min_size=2))
@settings(max_examples=60, deadline=None)
def test_another_trial_never_lowers_the_hypervolume(points: list[tuple[int, ...]]) -> None:
    reference = {f"f{i}": SIDE + 1.0 for i in range(len(points[0]))}
    before, after = front_of(points[:-1], reference=reference), front_of(points, reference=reference)
    assert before.hypervolume <= after.hypervolume


def test_hypervolume_keeps_the_units_of_the_objectives() -> None:
    front = example()
    by_hand = (2e6 - 5e5) * (0.2 - 0.12) + (8e6 - 2e6) * (0.2 - 0.04) + (1e7 - 8e6) * (0.2 - 0.03)
    assert front.hypervolume == pytest.approx(by_hand)


def test_the_default_reference_is_the_worst_seen() -> None:
    front = ParetoFront.from_frame(example().trials, ("val_error", "macs"))
    assert front.reference == {"val_error": 0.12, "macs": 8e6}
    best = ParetoFront.from_frame(example().trials, ("val_error",), ("maximize",))
    assert best.reference == {"val_error": 0.03}


# ---- knee ----------------------------------------------------------------------------------------------


def test_the_knee_is_where_the_front_bends() -> None:
    assert front_of([(0, 10), (1, 1), (5, 0.5), (10, 0)]).knee() == 1
    assert example().knee() == 7


def test_the_knee_measures_macs_in_logarithms() -> None:
    frame = pd.DataFrame(
        {"trial": [0, 1, 2, 3], "macs": [1e6, 1e7, 1e8, 1e9], "val_error": [0.9, 0.5, 0.2, 0.1]}
    )
    assert ParetoFront.from_frame(frame, ("val_error", "macs")).knee() == 2
    assert ParetoFront.from_frame(frame.rename(columns={"macs": "ms"}), ("val_error", "ms")).knee() == 2


@pytest.mark.parametrize(
    "points",
    [
        pd.DataFrame({"trial": []}),
        [(0.0, 1.0), (1.0, 0.0)],
        [(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)],
        [(0.0, 10.0), (9.0, 9.0), (10.0, 0.0)],
        [(0, 1, 2), (1, 2, 0), (2, 0, 1)],
    ],
    ids=["empty", "two", "straight", "concave", "three-objectives"],
)
def test_no_knee(points: object) -> None:
    front = (
        ParetoFront.from_frame(points, ("f0", "f1")) if isinstance(points, pd.DataFrame) else front_of(points)
    )
    assert front.knee() is None


# ---- out and in ----------------------------------------------------------------------------------------


def test_to_dict_is_plain_json() -> None:
    front = example(
        n_layers=[4.0, 8.0, 2.0, None, 8.0], macs_by=[{"conv": 1}] * 5, when=pd.Timestamp("2024-05-01")
    )
    data = json.loads(json.dumps(front.to_dict(), allow_nan=False))
    assert data["objectives"] == ["val_error", "macs"]
    assert data["hypervolume"] == front.hypervolume
    assert data["reference"] == {"val_error": 0.2, "macs": 1e7}
    assert data["points"][2] == {
        "trial": 12, "macs": 8_000_000, "params": 99_999, "val_error": 0.03, "topology": "sparse(base=3)",
        "aggregation": "routed", "n_layers": None, "macs_by": {"conv": 1}, "when": "2024-05-01T00:00:00",
    }  # fmt: skip
    first = front.to_dict()["points"][0]
    assert list(first)[:4] == ["trial", "macs", "params", "val_error"]
    assert {name: type(first[name]) for name in ("trial", "macs", "val_error", "topology")} == {
        "trial": int, "macs": int, "val_error": float, "topology": str,
    }  # fmt: skip


def test_csv_round_trip(tmp_path: Path) -> None:
    front = example(
        val_error=[0.1 + 0.02, 1 / 30, 0.05, 0.1 / 3.3, 0.04], widths=["8", "16-32", "8", "8-8", "4"]
    )
    front.to_csv(tmp_path / "trials.csv")
    header, *rows = (tmp_path / "trials.csv").read_text().splitlines()
    assert header.split(",")[-1] == "on_front"
    assert [row.split(",")[-1] for row in rows] == ["True", "True", "False", "True", "False"]
    again = ParetoFront.from_csv(tmp_path / "trials.csv", reference=front.reference)
    assert again == front
    assert hash(again) == hash(front)
    assert again.points["widths"].tolist() == ["8", "16-32", "8-8"]


def test_fronts_differ_by_their_trials() -> None:
    assert example() == example()
    assert example() != example(val_error=0.5)
    assert example() != "front"


def test_text() -> None:
    front = example(n_layers=[4, 8, 2, 16, 8], widths=["8", "16-32", "8", None, "8"])
    assert str(front) == (
        "Pareto front: 3 of 5 trials\n"
        "trial   macs  params  val_error  topology        aggregation  n_layers  widths\n"
        "    3  500 k   1.2 k     12.0 %  chain           sum                 4  8\n"
        "    7    2 M  45.6 k      4.0 %  log_dense       depthwise           8  16-32\n"
        "   12    8 M   100 k      3.0 %  sparse(base=3)  routed             16  -\n"
        "hypervolume 1.42e+06, measured from val_error 20.0 %, macs 10 M"
    )


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [("macs", 999.6, "1 k"), ("params", 0, "0"), ("val_error", 0.0099, "0.99 %"),
     ("val_error", 0.01, "1.0 %"), ("seconds", 0.25, "0.25"), ("trial", 3.0, "3"),
     ("macs", None, "-"), ("widths", float("nan"), "-")],
)  # fmt: skip
def test_human_units(column: str, value: object, text: str) -> None:
    assert human(column, value) == text


def test_projection_finds_the_front_in_other_columns() -> None:
    front = example().projected("params", "val_error")
    assert front.objectives == ("params", "val_error")
    assert front.points["trial"].tolist() == [3, 7, 12]
    assert example().projected("macs", "val_error").reference == {"macs": 1e7, "val_error": 0.2}
    assert len(example(params=[1, None, 3, 4, 5]).projected("params", "macs").trials) == 4


# ---- nothing there, or something wrong -----------------------------------------------------------------


@pytest.mark.parametrize("draw", [plot_pareto, plot_history, pareto_html, history_frame])
@pytest.mark.parametrize("column", ["topology", "widths"])
def test_a_column_of_words_is_refused(draw: Callable[..., object], column: str) -> None:
    frame = pd.DataFrame(
        {"trial": [3, 4], "val_error": [0.1, 0.2], "macs": [9, 8], "topology": [None, "dense"],
         "widths": ["8", "16"], "params": [None, 7]}
    )  # fmt: skip
    study = ParetoFront.from_frame(frame, ("val_error", "macs"))
    word = {"topology": "dense", "widths": "8"}[column]
    message = (
        f"this needs a column of numbers, '{column}' holds '{word}'. Known: macs, params, trial, val_error."
    )
    with pytest.raises(StudyError, match=f"^{re.escape(message)}$"):
        draw(study, y=column)
    assert draw(study, y="params") is not None


def test_an_empty_study_has_an_empty_front(tmp_path: Path) -> None:
    front = ParetoFront.from_frame(pd.DataFrame(), ("val_error", "macs"))
    assert front.points.empty
    assert front.dominated.empty
    assert front.to_dict() == {
        "objectives": ["val_error", "macs"], "points": [], "hypervolume": 0.0, "reference": {},
    }  # fmt: skip
    assert str(front) == "Pareto front: no trial yet that can be ranked"
    front.to_csv(tmp_path / "none.csv")
    assert ParetoFront.from_csv(tmp_path / "none.csv") == front


FRAME = pd.DataFrame({"trial": [0, 1], "a": [1.0, 2.0], "b": [2.0, 1.0]})


@pytest.mark.parametrize(
    ("frame", "objectives", "directions", "reference", "message"),
    [
        (FRAME, (), None, None, r"one or more different names, got \[\]"),
        (FRAME, ("a", "a"), None, None, r"different names, got \['a', 'a'\]"),
        (FRAME, ("a", "b"), ("minimize",), None, "2 objectives need as many directions"),
        (FRAME, ("a",), ("minimise",), None, "unknown direction 'minimise'. Did you mean 'minimize'"),
        (FRAME, ("a", "bb"), None, None, "no column 'bb'. Did you mean 'b'"),
        (FRAME.drop(columns="trial"), ("a",), None, None, "no column 'trial'"),
        (FRAME.assign(a=[1, np.nan]), ("a", "b"), None, None, "trial 1: a is .*nan"),
        (FRAME.assign(a=[1, np.inf]), ("a", "b"), None, None, "trial 1: a is .*inf"),
        (FRAME.assign(a=[1, "x"]), ("a",), None, {"a": 1}, "trial 1: a is 'x'"),
        (FRAME.assign(trial=4), ("a",), None, None, "trial 4 is there twice"),
        (FRAME, ("a", "b"), None, {"a": 1.0}, "the reference needs a finite value for 'b'"),
        (FRAME, ("a",), None, {"a": np.inf}, "the reference needs a finite value for 'a'"),
    ],
)
def test_a_wrong_table_is_an_error(frame, objectives, directions, reference, message) -> None:
    with pytest.raises(StudyError, match=message):
        ParetoFront.from_frame(frame, objectives, directions, reference)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"missing.csv: cannot read the trials: No such file"):
        ParetoFront.from_csv(tmp_path / "missing.csv")
    (tmp_path / "blank.csv").write_text("")
    with pytest.raises(StudyError, match=r"blank.csv: cannot read the trials: No columns"):
        ParetoFront.from_csv(tmp_path / "blank.csv")
    (tmp_path / "other.csv").write_text("trial,macs\n1,2\n")
    with pytest.raises(StudyError, match=r"other.csv: the trials have no column 'val_error'"):
        ParetoFront.from_csv(tmp_path / "other.csv")
    with pytest.raises(ConnsearchError, match=r"none/trials.csv: cannot be written: "):
        example().to_csv(tmp_path / "none" / "trials.csv")
