from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from connsearch.errors import StudyError
from connsearch.plots import history_frame, plot_history, plot_pareto
from connsearch.plots.pareto import corners
from connsearch.plots.style import SMALL, base_name
from connsearch.search.reading.pareto import ParetoFront

Make = Callable[..., ParetoFront]
CASES = [(1, 0), (2, 0), (3, 0), (3, 1), (40, 0), (40, 1), (40, 2), (200, 0)]


@pytest.fixture(params=CASES, ids=[f"{n}-seed{seed}" for n, seed in CASES])
def study(request: pytest.FixtureRequest, front: Make) -> ParetoFront:
    return front(request.param[0], seed=request.param[1])


def drawn(figure: Figure, prefix: str) -> np.ndarray:
    found = [c.get_offsets() for c in figure.axes[0].collections if str(c.get_label()).startswith(prefix)]
    return np.concatenate(found) if found else np.empty((0, 2))


def rows_of(frame: pd.DataFrame, x: str = "macs", y: str = "val_error") -> list[tuple[float, float]]:
    return sorted(zip(frame[x].astype(float), frame[y].round(10) * 100, strict=True))


def legends(figure: Figure) -> dict[str, list[str]]:
    return {g.get_title().get_text(): [t.get_text() for t in g.get_texts()] for g in figure.legends}


# ---- what is drawn -------------------------------------------------------------------------------------


def test_every_trial_is_drawn_once(study: ParetoFront) -> None:
    figure = plot_pareto(study)
    np.testing.assert_allclose(sorted(map(tuple, drawn(figure, "front"))), rows_of(study.points))
    np.testing.assert_allclose(
        np.array(sorted(map(tuple, drawn(figure, "other")))).reshape(-1, 2),
        np.array(rows_of(study.dominated)).reshape(-1, 2),
    )


def test_the_line_steps_through_the_front(study: ParetoFront) -> None:
    line = next(line for line in plot_pareto(study).axes[0].lines if line.get_label() == "front")
    np.testing.assert_allclose(line.get_xydata(), rows_of(study.points))
    assert line.get_drawstyle() == "steps-post"


def test_the_staircase_never_shows_what_no_trial_attained() -> None:
    assert corners(np.array([[1.0, 9.0], [2.0, 5.0], [4.0, 1.0]])).tolist() == [
        [1, 9], [2, 9], [2, 5], [4, 5], [4, 1],
    ]  # fmt: skip


def test_a_maximised_column_turns_the_staircase(front: Make) -> None:
    trials = front(30).trials.assign(val_accuracy=lambda t: 1 - t["val_error"])
    turned = ParetoFront.from_frame(trials, ("val_accuracy", "macs"), ("maximize", "minimize"))
    figure = plot_pareto(turned, y="val_accuracy")
    line = next(line for line in figure.axes[0].lines if line.get_label() == "front")
    assert (np.diff(line.get_xydata(), axis=0) > 0).all()
    assert figure.axes[0].get_ylabel() == "val accuracy (%)"


def test_maximising_along_x_starts_at_the_right(front: Make) -> None:
    trials = front(30).trials.assign(speed=lambda t: 1e9 / t["macs"])
    turned = ParetoFront.from_frame(trials, ("val_error", "speed"), ("minimize", "maximize"))
    line = next(line for line in plot_pareto(turned, x="speed").axes[0].lines if line.get_label() == "front")
    assert (np.diff(line.get_xydata(), axis=0) < 0).all()


def test_other_columns_get_their_own_front(front: Make) -> None:
    study = front(40)
    figure = plot_pareto(study, x="n_layers")
    assert len(drawn(figure, "front")) == len(study.projected("n_layers", "val_error").points)
    assert figure.axes[0].get_xlabel() == "n layers"


def test_the_legends_name_what_occurs(study: ParetoFront) -> None:
    found = legends(plot_pareto(study))
    assert set(found) == {"aggregation", "topology"}
    for column, names in found.items():
        assert sorted(names) == sorted({base_name(label) for label in study.trials[column]})


def test_a_study_without_names_has_no_legends(front: Make) -> None:
    study = front(20)
    bare = ParetoFront.from_frame(study.trials[["trial", "macs", "val_error"]], study.objectives)
    figure = plot_pareto(bare)
    assert legends(figure) == {}
    assert {text.get_text().split(":")[0].split()[0] for text in figure.axes[0].texts} <= {"trial", "knee"}


def test_names_that_are_missing_here_and_there(front: Make) -> None:
    study = front(20, topology=["chain", None] * 10, aggregation=["my_own", "sum"] * 10)
    assert legends(plot_pareto(study)) == {
        "aggregation": ["sum", "my_own"],
        "topology": ["chain", "not stated"],
    }


def test_the_knee_is_ringed_and_named(front: Make) -> None:
    study = front(40)
    knee = study.points.set_index("trial").loc[study.knee()]
    figure = plot_pareto(study)
    ring = next(c for c in figure.axes[0].collections if c.get_label() == "knee")
    np.testing.assert_allclose(ring.get_offsets(), [[knee["macs"], 100 * knee["val_error"]]])
    words = [t.get_text() for t in figure.axes[0].texts]
    times = "\N{MULTIPLICATION SIGN}"
    assert words[0] == f"knee: trial {study.knee()}\n{knee['topology']} {times} {knee['aggregation']}"
    ends = study.points["trial"].iloc[[0, -1]]
    assert [word.split("\n")[0] for word in words[1:]] == [f"trial {n}" for n in ends if n != study.knee()]


def test_axes_say_their_units(front: Make) -> None:
    axes = plot_pareto(front(40)).axes[0]
    assert axes.get_xlabel() == "MACs per image (multiply-accumulates)"
    assert axes.get_ylabel() == "validation error (%)"
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.5 M", "1 M", "2 M", "5 M"]


# ---- whether it can be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_no_word_overlaps_another_or_is_cut_off(study: ParetoFront, width: float) -> None:
    figure = plot_pareto(study, title="Topologies at equal compute", width=width)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    words = [t for legend in figure.legends for t in [*legend.get_texts(), legend.get_title()]]
    texts: list[Text] = [*axes.texts, *ticks, *words, *figure.texts]
    boxes = [(t.get_text(), Text.get_window_extent(t)) for t in texts]
    for (word, a), (other, b) in combinations(boxes, 2):
        assert not a.padded(-0.5).overlaps(b.padded(-0.5)), (word, other)
    for word, box in boxes:
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, word
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, word
    assert min(t.get_fontsize() for t in texts) >= SMALL


def test_labels_keep_off_the_points_of_the_front(front: Make) -> None:
    for seed in range(3):
        figure = plot_pareto(front(40, seed=seed))
        figure.draw_without_rendering()
        marks = figure.axes[0].transData.transform(drawn(figure, "front"))
        for text in figure.axes[0].texts:
            box = Text.get_window_extent(text)
            assert not any(box.contains(*mark) for mark in marks), text.get_text()


# ---- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [plot_pareto, plot_history])
def test_nothing_to_draw(draw: Callable[..., object], front: Make) -> None:
    empty = ParetoFront.from_frame(pd.DataFrame(), ("val_error", "macs"))
    with pytest.raises(StudyError, match="no complete trial to draw yet"):
        draw(empty)
    with pytest.raises(StudyError, match=r"no column 'val_eror'. Did you mean 'val_error'"):
        draw(front(3), y="val_eror")


def test_a_column_that_no_trial_knows(front: Make) -> None:
    with pytest.raises(StudyError, match="no trial has both 'seconds' and 'val_error'"):
        plot_pareto(front(3, seconds=np.nan), x="seconds")


# ---- history -------------------------------------------------------------------------------------------


def test_the_history_is_the_front_of_the_first_trials(front: Make) -> None:
    study = front(25)
    frame = history_frame(study)
    assert frame["n_trials"].tolist() == list(range(1, 26))
    for n in (1, 2, 13, 25):
        first = ParetoFront.from_frame(study.trials.head(n), study.objectives, reference=study.reference)
        assert frame["hypervolume"][n - 1] == pytest.approx(first.hypervolume)
        assert frame["best"][n - 1] == study.trials["val_error"].head(n).min()


def test_the_history_counts_by_trial_number(front: Make) -> None:
    study = front(10)
    mixed = ParetoFront.from_frame(study.trials[::-1], study.objectives, reference=study.reference)
    pd.testing.assert_frame_equal(history_frame(mixed), history_frame(study))


@pytest.mark.parametrize("n_trials", [1, 2, 40])
def test_history_picture(front: Make, n_trials: int) -> None:
    study = front(n_trials)
    upper, middle, lower = plot_history(study, title="History").axes
    np.testing.assert_allclose(upper.lines[0].get_ydata(), history_frame(study)["hypervolume"])
    np.testing.assert_allclose(middle.lines[0].get_ydata(), 100 * history_frame(study)["best"])
    np.testing.assert_allclose(lower.lines[0].get_ydata(), history_frame(study)["n_front"])
    assert (upper.get_ylabel(), middle.get_ylabel()) == ("hypervolume", "validation error (%)")
    assert [t.get_text() for t in middle.get_legend().get_texts()] == ["each trial", "best so far"]
    assert [t.get_text() for t in upper.texts] == ["measured from val_error 20.0 %, macs 10 M"]


def test_the_best_of_a_maximised_column_rises(front: Make) -> None:
    trials = front(20).trials.assign(accuracy=lambda t: 1 - t["val_error"])
    study = ParetoFront.from_frame(trials, ("accuracy", "macs"), ("maximize", "minimize"))
    assert history_frame(study, "accuracy")["best"].is_monotonic_increasing
