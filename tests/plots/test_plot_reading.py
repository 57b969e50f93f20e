"""History with trials that failed, and the importance of knobs, as pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from connsearch.errors import StudyError
from connsearch.plots import plot_history, plot_importance
from connsearch.plots.style import AGGREGATION_COLORS, QUIET
from connsearch.search.reading.history import (
    finished_in_order,
    history_dict,
    history_frame,
    history_text,
    with_reference,
)
from connsearch.search.reading.importance import Importance, KnobImportance
from connsearch.search.reading.pareto import ParetoFront

Make = Callable[..., ParetoFront]

# ---- history ---------------------------------------------------------------------------------------------


def test_trials_that_failed_count_as_finished(front: Make) -> None:
    study = front(10)
    order = [3, 1, 99, 0, 2, 4, 98, 5, 6, 7, 8, 9]
    frame = history_frame(study, finished=order)
    assert frame["trial"].tolist() == order
    assert frame["n_trials"].tolist() == list(range(1, 13))
    for row in (2, 6):
        assert np.isnan(frame["val_error"][row])
        before = frame.loc[row - 1, ["hypervolume", "n_front", "best"]]
        assert frame.loc[row, ["hypervolume", "n_front", "best"]].tolist() == before.tolist()
    assert frame["hypervolume"].is_monotonic_increasing
    assert frame["hypervolume"].iloc[-1] == pytest.approx(study.hypervolume)
    assert frame["n_front"].iloc[-1] == len(study.points)
    assert plot_history(study, finished=order).axes[0].get_xlim()[1] > 12


def test_a_study_whose_first_trials_failed(front: Make) -> None:
    frame = history_frame(front(2), finished=[7, 0, 1])
    assert (frame["hypervolume"][0], frame["n_front"][0]) == (0.0, 0)
    assert np.isnan(frame["best"][0])
    assert history_dict(frame, {})["history"][0]["best"] is None  # type: ignore[index]
    assert plot_history(front(2), finished=[7, 0, 1]) is not None


def test_the_text_has_first_and_last_row_and_the_reference(front: Make) -> None:
    study = front(40)
    lines = history_text(history_frame(study), study).splitlines()
    assert lines[0].split() == ["trials", "hypervolume", "front", "best", "val_error"]
    assert (lines[1].split()[0], lines[-2].split()[0]) == ("1", "40")
    assert lines[-1] == "hypervolume measured from val_error 20.0 %, macs 10 M"
    assert len(lines) == 14


def test_another_reference(front: Make) -> None:
    study = front(20)
    assert with_reference(study, []) is study
    other = with_reference(study, ["macs=2e6", "val_error=0.05"])
    assert other.reference == {"val_error": 0.05, "macs": 2e6}
    assert other.hypervolume < study.hypervolume


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["val_error"], "reference val_error: write NAME=VALUE with a number, such as val_error=0.1"),
        (["val_error=low"], "reference val_error=low: write NAME=VALUE"),
        (["val_error=inf"], "reference val_error=inf: write NAME=VALUE"),
        (["mac=1", "val_error=1"], "reference mac=1: no objective 'mac'. Did you mean 'macs'?"),
        (["macs=1", "macs=2"], "reference macs=2: macs is given twice"),
        (["macs=1"], "the reference needs a value of every objective: add val_error=VALUE"),
    ],
)
def test_a_reference_that_is_none(front: Make, given: list[str], message: str) -> None:
    with pytest.raises(StudyError, match=f"^{re.escape(message)}"):
        with_reference(front(3), given)


def test_nothing_finished_has_no_order() -> None:
    assert finished_in_order([]) == []


# ---- importance ------------------------------------------------------------------------------------------

KNOBS = (
    KnobImportance("topology", 0.5, 0.4, 0.6, 0.1, 40),
    KnobImportance("n_layers_2", 0.2, 0.05, 0.3, 0.25, 31),
    KnobImportance("carry", None, None, None, None, 3),
)
FOUND = Importance("val_error", True, "fanova", 40, 0.35, 0.6, KNOBS)


def test_what_stands_out_has_a_colour() -> None:
    axes = plot_importance(FOUND).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [to_hex(dot.get_color()).upper() for dot in dots] == [AGGREGATION_COLORS["sum"], QUIET]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [50.0, 20.0]
    ranges = [line.get_xdata() for line in axes.lines if line.get_marker() == "None"]
    np.testing.assert_allclose(ranges, [[40, 60], [5, 30]])
    assert [bar.get_width() for bar in axes.patches] == [10.0, 25.0]


@pytest.mark.parametrize(("knobs", "color"), [(KNOBS, AGGREGATION_COLORS["sum"]), (KNOBS[1:], QUIET)])
def test_the_legend_has_a_colour_of_the_picture(knobs: tuple[KnobImportance, ...], color: str) -> None:
    axes = plot_importance(replace(FOUND, knobs=knobs)).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert to_hex(legend.get_lines()[0].get_color()).upper() == color
    assert color in {to_hex(line.get_color()).upper() for line in axes.lines}


def test_rows_are_named_with_the_trials_that_have_the_knob() -> None:
    axes = plot_importance(FOUND).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["topology", "n layers 2 (31 trials)", "carry (3 trials)"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top


def test_the_picture_says_what_is_unreliable() -> None:
    text = plot_importance(FOUND).get_supxlabel().replace("\n", " ")
    assert text.startswith("validation error at equal MACs, 40 trials; knobs predict 35 % of the spread")
    assert "unreliable" not in plot_importance(replace(FOUND, knobs=KNOBS[:2])).get_supxlabel()
    few = plot_importance(replace(FOUND, n_trials=12, predicted=-0.3), title="Few")
    notes = few.get_supxlabel().replace("\n", " ")
    assert "knobs predict 0 % of the spread" in notes
    assert "unreliable: 12 trials are few for 3 knobs" in notes
