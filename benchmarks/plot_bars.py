"""Bars of several ways side by side, on axes in powers of two or ten: how they are drawn.

A bar that begins at one hangs down where its value is less. A whisker shows an interval, a tick what was
promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from connsearch.plots.style import BAND_COLORS, INK, QUIET, SMALL

SPREAD, WIDEST = 0.84, 0.4  # of the distance between ticks: what all bars fill, and one at the most
ABOVE, BELOW, INSIDE = 0.2, 0.25, 0.15  # of an axis, for numbers: three, four characters; with no margin


class Look(NamedTuple):
    """How the bars of a way look: a colour, and words for the legend."""

    color: str
    words: str


class Bar(NamedTuple):
    """A value, the ends of its whisker, and what was promised, if anything was."""

    middle: float
    low: float
    high: float
    target: float | None = None


class Panel(NamedTuple):
    """Bars of several ways, one for each tick, or None where nothing was measured."""

    title: str
    ticks: Sequence[str]
    bars: Mapping[str, Sequence[Bar | None]]


class Row(NamedTuple):
    """Panels with the same axis.

    Attributes:
        label: What the axis shows.
        panels: From left to right.
        below_one: What less than one means, where bars begin at one; else they begin where the axis does.
    """

    label: str
    panels: Sequence[Panel]
    below_one: str = ""


def draw_rows(part: SubFigure, rows: Sequence[Row], looks: Mapping[str, Look]) -> None:
    """Draw rows of panels: titles above the first row, names of ticks below the last."""
    axes = part.subplots(len(rows), len(rows[0].panels), sharex="col", sharey="row", squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        low, high = _limits(row)
        for panel, one in zip(row.panels, line, strict=True):
            _scale(one, low, high, row.below_one)
            _draw(one, panel, looks, 1.0 if row.below_one else low)
        line[0].set_ylabel(row.label)
    for panel, one in zip(rows[0].panels, axes[0], strict=True):
        one.set_title(panel.title, fontsize=8)
    for panel, one in zip(rows[-1].panels, axes[-1], strict=True):
        one.set_xticks(range(len(panel.ticks)), panel.ticks)
        one.set_xlim(-0.5, len(panel.ticks) - 0.5)


def draw_legend(part: SubFigure, ways: Iterable[str], looks: Mapping[str, Look]) -> None:
    """Draw what ways, whiskers and ticks look like; ways that look alike once."""
    shown = dict.fromkeys(looks[way] for way in ways)
    patches = [Patch(color=look.color, label=look.words) for look in shown]
    whisker = Line2D([], [], color=INK, linewidth=0.8, label="quartiles")
    tick = Line2D([], [], color="black", linewidth=1.6, label="promised")
    part.legend(handles=[*patches, whisker, tick], loc="center", ncols=4)


def short(value: float) -> str:
    """Return a number to two digits.

    >>> [short(x) for x in (0.334, 1.96, 14.6, 738)]
    ['0.33', '2.0', '15', '740']
    """
    places = 1 - math.floor(math.log10(value))
    return f"{round(value, places):.{max(places, 0)}f}"


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, Look], base: float) -> None:
    ways = {way: bars for way, bars in panel.bars.items() if any(bars)}
    width = min(SPREAD / max(len(ways), 1), WIDEST)
    for i, (way, bars) in enumerate(ways.items()):
        for tick, bar in enumerate(bars):
            if bar is None:
                continue
            x = tick + (i + 0.5 - len(ways) / 2) * width
            axes.bar(x, bar.middle - base, width=0.92 * width, bottom=base, color=looks[way].color)
            axes.vlines(x, bar.low, bar.high, color=INK, linewidth=0.8)
            if bar.target is not None:
                axes.hlines(bar.target, x - 0.62 * width, x + 0.62 * width, color="black", linewidth=1.6)
            _number(axes, x, bar, base)


def _number(axes: Axes, x: float, bar: Bar, base: float) -> None:
    """Write a value beyond the end of its bar, or, where a tick is in the way, into the bar if it is long."""
    low, high = axes.get_ylim()
    up, in_the_way = bar.middle >= base, bar.target is not None and bar.target > bar.middle >= base
    inside = in_the_way and math.log(bar.low / base) > INSIDE * math.log(high / low)
    above = up and not inside
    end = max(bar.high, (bar.target or 0) if in_the_way else 0) if above else bar.low
    axes.annotate(
        short(bar.middle),
        (x, end),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        rotation=90,
        fontsize=SMALL,
        color="white" if inside else INK,
    )


def _limits(row: Row) -> tuple[float, float]:
    """Return the ends of an axis that has room for numbers."""
    values = [value for bar in _bars(row) for value in (*bar[:3], bar.target) if value is not None]
    if row.below_one:
        values.append(1.0)
    low, high = min(values), max(values)
    below = BELOW if row.below_one and low < 1 else 0.0
    if not row.below_one:
        low = 10 ** math.floor(math.log10(low))
    whole = math.log(max(high / low, 2.0)) / (1 - ABOVE - below)
    return low / math.exp(below * whole), high * math.exp(ABOVE * whole)


def _bars(row: Row) -> Iterator[Bar]:
    for panel in row.panels:
        for bars in panel.bars.values():
            yield from (bar for bar in bars if bar is not None)


def _scale(axes: Axes, low: float, high: float, below_one: str) -> None:
    base = 2 if below_one else 10
    axes.set_yscale("log", base=base)
    axes.set_ylim(low, high)
    close = (1.0, 1.5) if below_one and high / low < 6 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(base=base, subs=close, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    if below_one and low < 1:
        axes.axhline(1, color=INK, linewidth=0.8)
        axes.axhspan(low, 1, color=BAND_COLORS[0], zorder=0)
        axes.text(0.99, 0.03, below_one, transform=axes.transAxes, ha="right", fontsize=SMALL, color=QUIET)
