"""Which knobs matter, as a picture: each share with its spread over bootstraps, beside what chance gives."""

from __future__ import annotations

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from connsearch.plots.legend import legend_above
from connsearch.plots.scales import column_label
from connsearch.plots.style import AGGREGATION_COLORS, QUIET, SMALL, Picture, look
from connsearch.search.reading.importance import Importance, KnobImportance

_ROW = 0.24  # inches
_LETTERS = 16  # of a note, in an inch
_COLOR, _CHANCE = AGGREGATION_COLORS["sum"], "#DDE1E8"


def plot_importance(importance: Importance, *, title: str | None = None, width: float = 3.5) -> Figure:
    """Return a row for each knob, the most important on top: its share, 90 % of bootstraps, the chance level.

    What stands out from chance is drawn in colour, the rest in grey. Lines below say what the shares
    are shares of, and why they may be unreliable.

    Args:
        importance: As `importance_of` gives it.
        title: Written above the picture.
        width: Of the picture in inches.
    """
    notes = _notes(importance, letters=round(_LETTERS * width))
    with look():
        height = _ROW * len(importance.knobs) + 0.8 + 0.13 * len(notes) + (0.2 if title else 0)
        figure = Picture(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        for row, knob in enumerate(importance.knobs):
            _draw_knob(axes, row, knob)
        _set_up(axes, importance)
        _add_legend(axes, importance)
        figure.supxlabel("\n".join(notes), fontsize=SMALL, color=QUIET, linespacing=1.35)
        if title:
            figure.suptitle(title, fontsize=9)
    return figure


def _draw_knob(axes: Axes, row: int, knob: KnobImportance) -> None:
    color = _COLOR if knob.stands_out else QUIET
    if knob.chance is not None:
        axes.barh(row, 100 * knob.chance, 0.7, color=_CHANCE, zorder=1)
    if knob.low is not None and knob.high is not None:
        axes.plot([100 * knob.low, 100 * knob.high], [row, row], color=color, linewidth=1.4, zorder=2)
    if knob.share is not None:
        axes.plot(100 * knob.share, row, "o", color=color, markersize=4, zorder=3)


def _set_up(axes: Axes, importance: Importance) -> None:
    names = [_name(knob, importance.n_trials) for knob in importance.knobs]
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="share of the explained spread (%)")
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(True, axis="x")


def _name(knob: KnobImportance, n_trials: int) -> str:
    """Return a knob's name, and of how many trials it is a knob if not of all."""
    words = knob.knob.replace("_", " ")
    return words if knob.applies == n_trials else f"{words} ({knob.applies} trials)"


def _add_legend(axes: Axes, importance: Importance) -> None:
    color = _COLOR if any(knob.stands_out for knob in importance.knobs) else QUIET
    handles = [
        Line2D(
            [], [], color=color, marker="o", markersize=4, linewidth=1.4, label="share, 90 % of bootstraps"
        ),
        Patch(facecolor=_CHANCE, label="chance"),
    ]
    legend_above(axes, handles)


def _notes(importance: Importance, letters: int) -> list[str]:
    """Return what the shares are shares of, and why they may be unreliable, in short lines."""
    what = column_label(importance.objective).partition(" (")[0]
    where = " at equal MACs" if importance.at_equal_macs else ""
    share = f"{100 * max(0.0, importance.predicted):.0f} %"
    first = f"{what}{where}, {importance.n_trials} trials; knobs predict {share} of the spread"
    return [line for note in (first, importance.warning) for line in fill(note, letters).splitlines()]
