"""Pictures of tournaments and of confirmed fronts: what is drawn is what the data say, and fits."""

from __future__ import annotations

import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from connsearch.plots import plot_confirmed, plot_tournament, plot_tournament_matrix, save
from connsearch.plots.style import TIMES
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.replicates.confirmed import Confirmation, ConfirmedFront
from connsearch.search.replicates.plan import Candidate
from connsearch.search.tournament.contestants import Contestant, Shape
from connsearch.search.tournament.standings import Standing, Standings
from connsearch.search.tournament.statistics import UNKNOWN, Interval

TOPOLOGIES = ("chain", "dense", "log_dense", "sparse(base=3)")
AGGREGATIONS = ("sum", "concat", "depthwise")


def make_standings(n_seeds: int = 5, *, asked: int = 5) -> Standings:
    draw = np.random.default_rng(0)
    pairs = [(t, a) for t in TOPOLOGIES for a in AGGREGATIONS if t != "chain"]
    contestants = [
        Contestant(topology="chain", aggregation="sum", same_as=("chain x concat", "chain x depthwise"))
    ]
    contestants += [Contestant(topology=t, aggregation=a) for t, a in pairs]
    errors = sorted(
        (0.03 + 0.004 * i + draw.normal(0, 0.004, n_seeds) for i in range(len(contestants))),
        key=lambda found: float(found.mean()),
    )
    rows = tuple(
        Standing(
            rank=i,
            contestant=contestant,
            macs=2_000_000,
            params=60_000,
            errors=tuple(found.tolist()),
            mean=float(found.mean()),
            interval=UNKNOWN if n_seeds == 1 else Interval(found.min(), found.max()),
            behind=float(found.mean() - errors[0].mean()),
            behind_interval=UNKNOWN,
            p=1.0 if i < 4 else 0.2 / i**2,
            diverged=0,
        )
        for i, (contestant, found) in enumerate(zip(reversed(contestants), errors, strict=True), 1)
    )
    return Standings(Shape(2_000_000, 2, 6, 1.75, ()), rows, (), n_seeds, asked, ())


def make_confirmed() -> ConfirmedFront:
    draw, rows = np.random.default_rng(0), []
    for i, macs in enumerate(np.geomspace(5e5, 8e6, 9).astype(int).tolist()):
        mean = 0.08 * (macs / 5e5) ** -0.4 + 0.01 * (i % 3 == 1)
        candidate = Candidate(
            trial=i, knobs={}, val_error=float(mean - abs(draw.normal(0, 0.006))), costs={"macs": macs},
            macs=macs, params=macs // 60, topology=TOPOLOGIES[i % 4], aggregation=AGGREGATIONS[i % 3],
        )  # fmt: skip
        interval = UNKNOWN if i == 8 else Interval(mean - 0.004, mean + 0.004)
        rows.append(Confirmation(candidate, (mean,), float(mean), interval, i % 2 == 0))
    frame = pd.DataFrame([row.to_dict() for row in rows])
    front = ParetoFront.from_frame(frame, ("val_error", "macs"))
    return ConfirmedFront(tuple(rows), front, 9, 0, False)


def offsets(figure: Figure, prefix: str) -> dict[str, np.ndarray]:
    found = {}
    for collection in figure.axes[0].collections:
        label = str(collection.get_label())
        if label.startswith(prefix):
            found[label.removeprefix(prefix)] = np.asarray(collection.get_offsets())
    return found


def check_inside(figure: Figure) -> None:
    """Make sure that no text leaves the picture, and no two texts meet."""
    figure.draw_without_rendering()
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        texts += [*axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = {
        text: text.get_window_extent() for text in texts if text.get_text().strip() and text.get_visible()
    }
    assert boxes
    for text, box in boxes.items():
        assert -1 <= box.x0 < box.x1 <= figure.bbox.width + 1, text
        assert -1 <= box.y0 < box.y1 <= figure.bbox.height + 1, text
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(width, height) < 1, (one, other)  # pixels


def test_texts_that_meet_are_found() -> None:
    figure = plot_tournament(make_standings())
    check_inside(figure)
    label = figure.axes[0].get_yticklabels()[2]
    figure.text(*figure.transFigure.inverted().transform(label.get_window_extent().p0), "other")
    with pytest.raises(AssertionError, match=rf"'other'.*'{re.escape(label.get_text())}'"):
        check_inside(figure)


# ---- tournament ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_seeds", [1, 5])
def test_every_contestant_is_a_row_with_its_seeds(n_seeds: int) -> None:
    found = make_standings(n_seeds)
    figure = plot_tournament(found)
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{r.contestant.topology} {TIMES} {r.contestant.aggregation}" for r in found.rows]
    means, seeds = offsets(figure, "mean: "), offsets(figure, "seeds: ")
    for y, (row, label) in enumerate(zip(found.rows, labels, strict=True)):
        np.testing.assert_allclose(means[label], [[100 * row.mean, y]])
        np.testing.assert_allclose(seeds[label][:, 0], [100 * error for error in row.errors])
    low, high = axes.get_ylim()
    assert low > len(found.rows) - 0.7 > 0 > high  # the best is on top


def test_intervals_and_who_is_not_told_from_the_best() -> None:
    found = make_standings()
    axes = plot_tournament(found).axes[0]
    bars = {
        round(line.get_ydata()[0]): line.get_xdata() for line in axes.lines if len(set(line.get_ydata())) == 1
    }
    for y, row in enumerate(found.rows):
        np.testing.assert_allclose(bars[y], [100 * end for end in row.interval])
    bold = [label.get_fontweight() == "bold" for label in axes.get_yticklabels()]
    assert bold == [row.p >= 0.05 for row in found.rows]
    assert [text.get_text() for text in axes.texts][:2] == ["best", "1"]
    assert all(math.isnan(end) for row in make_standings(1).rows for end in row.interval)


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_the_forest_fits_its_picture(width: float) -> None:
    figure = plot_tournament(make_standings(), width=width)
    check_inside(figure)
    assert figure.get_figwidth() == width


def test_an_unfinished_tournament_says_so() -> None:
    assert plot_tournament(make_standings(3)).texts[0].get_text() == "2 MMACs, 3 seeds of 5, unfinished"
    assert plot_tournament(make_standings(5)).texts[0].get_text() == "2 MMACs, 5 seeds"


def test_the_matrix_holds_every_pair_and_the_averages() -> None:
    found = make_standings()
    figure = plot_tournament_matrix(found)
    check_inside(figure)
    grid, beside, below = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    expected = {name: row.mean for row in found.rows for name in row.contestant.pairs}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            assert grid[i, j] == pytest.approx(100 * expected[f"{row} x {column}"])
    np.testing.assert_allclose(beside[:, 0], grid.mean(axis=1))
    np.testing.assert_allclose(below[0], grid.mean(axis=0))
    assert list(beside[:, 0]) == sorted(beside[:, 0])
    assert list(below[0]) == sorted(below[0])
    italics = [text.get_text() for text in figure.axes[0].texts if text.get_fontstyle() == "italic"]
    assert len(italics) == 2  # a chain is one network whatever the aggregation


def test_a_pair_that_was_left_out_is_an_empty_cell() -> None:
    whole = make_standings()
    found = Standings(whole.shape, whole.rows[1:], (), 5, 5, ())
    figure = plot_tournament_matrix(found)
    empty = [int(np.ma.getmaskarray(axes.images[0].get_array()).sum()) for axes in figure.axes]
    assert empty == [1, 1, 1]  # and the averages of its row and its column
    check_inside(figure)


# ---- confirmed front -----------------------------------------------------------------------------------


def test_means_intervals_and_what_one_seed_gave() -> None:
    found = make_confirmed()
    figure = plot_confirmed(found)
    means, before = offsets(figure, "mean: trial "), offsets(figure, "before: trial ")
    for row in found.rows:
        at = str(row.candidate.trial)
        np.testing.assert_allclose(means[at], [[row.candidate.macs, 100 * row.mean]])
        np.testing.assert_allclose(before[at], [[row.candidate.macs, 100 * row.candidate.val_error]])
    axes = figure.axes[0]
    bars = [line.get_ydata() for line in axes.lines if line.get_linewidth() == 1.4]
    assert len(bars) == 8  # one interval is not known
    low, high = axes.get_ylim()
    assert low <= min(map(min, bars))
    assert max(map(max, bars)) <= high
    check_inside(figure)


def test_the_staircase_runs_through_the_means_of_the_front() -> None:
    found = make_confirmed()
    line = next(line for line in plot_confirmed(found).axes[0].lines if line.get_label() == "front")
    points = found.front.points
    np.testing.assert_allclose(line.get_xdata(), points["macs"])
    np.testing.assert_allclose(line.get_ydata(), 100 * points["val_error"])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_data_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save(plot_tournament(make_standings()), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
