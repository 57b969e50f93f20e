"""The picture of retrained trials: what is drawn is what the data say, and fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from connsearch.errors import StudyError
from connsearch.plots import plot_retrained, save
from connsearch.search.retrained import Retrained, RetrainedTrials, Winner
from connsearch.spec import NetworkSpec
from connsearch.train import SeedResult, Summary

SPEC = NetworkSpec.from_dict({"blocks": [{"n_layers": 1, "width": 4}]})
PAIRS = [("chain", "sum"), ("dense", "concat"), ("log_dense", "depthwise"), ("sparse(base=3)", "depthwise")]


def make_row(trial: int, macs: int, errors: tuple[float | None, ...], val_error: float) -> Retrained:
    topology, aggregation = PAIRS[trial % len(PAIRS)]
    results = tuple(
        SeedResult(seed, 9, error is None, 1.0, 0.1, None, None, 0.2, error, None)
        for seed, error in enumerate(errors)
    )
    summary = Summary("net", macs, macs // 50, "digits", ("train", "val"), 1437, 360, 9, results)
    return Retrained(Winner(trial, SPEC, topology, aggregation, macs, macs // 50, val_error), summary)


def make_rows(n_seeds: int = 3) -> RetrainedTrials:
    draw, rows = np.random.default_rng(0), []
    for trial, macs in enumerate(np.geomspace(2e5, 8e6, 7).astype(int).tolist()):
        mean = 0.10 * (macs / 2e5) ** -0.4
        errors = tuple(float(abs(error)) for error in draw.normal(mean, 0.05 * mean + 0.002, n_seeds))
        rows.append(make_row(trial, macs, errors, 0.85 * mean))
    return RetrainedTrials("runs/digits", tuple(rows))


def offsets(figure: Figure, label: str) -> list[tuple[float, float]]:
    """Return where the marks of a label are, in drawn units."""
    (found,) = [c for c in figure.axes[0].collections if c.get_label() == label]
    return [tuple(map(float, point)) for point in np.asarray(found.get_offsets())]


def test_marks_are_where_the_numbers_are() -> None:
    found = make_rows()
    figure = plot_retrained(found)
    for row in found.rows:
        error, name = row.summary.test_error, f"trial {row.winner.trial}"
        assert error is not None
        x = float(row.winner.macs)
        assert offsets(figure, f"mean: {name}") == [pytest.approx((x, 100 * error.mean))]
        assert offsets(figure, f"study: {name}") == [pytest.approx((x, 100 * row.winner.val_error))]
        seeds = [pytest.approx((x, 100 * value)) for value in error.values]
        assert offsets(figure, f"seeds: {name}") == seeds
        low, high = (100 * (error.mean + sign * (error.deviation or 0.0)) for sign in (-1, 1))
        bars = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
        assert any(np.allclose(bar, (low, high)) for bar in bars)


def test_everything_lies_within_the_axes() -> None:
    found = make_rows()
    axes = plot_retrained(found, title="Digits").axes[0]
    low, high = axes.get_ylim()
    values = [
        v for row in found.rows for v in (row.summary.test_error.values if row.summary.test_error else ())
    ]
    values += [row.winner.val_error for row in found.rows]
    assert low < 100 * min(values)
    assert 100 * max(values) < high
    assert axes.get_ylabel() == "error (%)"


def test_one_seed_and_other_columns(tmp_path: Path) -> None:
    figure = plot_retrained(make_rows(1), x="params")
    assert figure.axes[0].get_xlabel() == "parameters"
    assert save(figure, tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_what_diverged_is_left_out() -> None:
    kept, gone = make_row(0, 400_000, (0.1, None), 0.2), make_row(1, 900_000, (None,), 1.0)
    figure = plot_retrained(RetrainedTrials("runs/x", (kept, gone)))
    assert offsets(figure, "mean: trial 0") == [pytest.approx((400_000, 10.0))]
    assert not [c for c in figure.axes[0].collections if c.get_label() == "mean: trial 1"]
    with pytest.raises(
        StudyError, match=r"^runs/x: every retraining diverged: there is no test error to draw$"
    ):
        plot_retrained(RetrainedTrials("runs/x", (gone,)))


def test_of_a_study_of_mean_iou_that_is_drawn() -> None:
    row = make_row(0, 400_000, (0.1, 0.2), 0.3)
    results = tuple(replace(found, test_mean_iou=0.6) for found in row.summary.results)
    summary = replace(row.summary, results=results)
    pixels = Retrained(replace(row.winner, val_mean_iou=0.7), summary)
    figure = plot_retrained(RetrainedTrials("runs/x", (pixels,)))
    assert offsets(figure, "mean: trial 0") == [pytest.approx((400_000, 40.0))]
    assert offsets(figure, "study: trial 0") == [pytest.approx((400_000, 30.0))]
    assert figure.axes[0].get_ylabel() == "100 % - mean IoU (%)"


def test_a_column_that_is_none() -> None:
    with pytest.raises(StudyError, match=r"no column 'flops'"):
        plot_retrained(make_rows(), x="flops")
