"""Axes that read well: what a column is called, its unit, its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from connsearch.text import si

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_PAD = 0.07
_LABELS = {
    "macs": "MACs per image (multiply-accumulates)",
    "params": "parameters",
    "val_error": "validation error (%)",
    "val_iou_error": "100 % - validation mean IoU (%)",
    "test_error": "test error (%)",
}


@dataclass(frozen=True)
class Scale:
    """How a column is drawn on an axis.

    Attributes:
        label: With the unit.
        factor: What a value is multiplied by: 100 turns a fraction into percent.
        low: Lower end of the axis, in drawn units.
        high: Upper end of the axis, in drawn units.
        log: Whether the axis is logarithmic.
        ticks: Where the ticks are, in drawn units.
        tick_labels: What they say.
    """

    label: str
    factor: float
    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]
    tick_labels: tuple[str, ...]

    def apply(self, axis: Axis) -> None:
        """Set up one axis of a picture."""
        which = "x" if axis is axis.axes.xaxis else "y"
        axis.axes.set(**{f"{which}scale": "log" if self.log else "linear"})
        axis.axes.set(**{f"{which}lim": (self.low, self.high), f"{which}label": self.label})
        axis.set_major_locator(FixedLocator(self.ticks))
        axis.set_major_formatter(FixedFormatter(self.tick_labels))
        axis.set_minor_locator(NullLocator())


def column_label(column: str) -> str:
    """Return what a column is called on an axis, with its unit."""
    words = column.replace("_", " ")
    return _LABELS.get(column, f"{words} (%)" if _is_fraction(column) else words)


def scale_of(column: str, values: npt.ArrayLike, *, n_ticks: int = 6, pad: float = _PAD) -> Scale:
    """Return an axis for some values: logarithmic where counts or errors span much.

    Args:
        column: What the values are.
        values: In the column's own unit, at least one.
        n_ticks: How many ticks there may be.
        pad: Share of the span of the values left free at the lower end.
    """
    factor = 100.0 if _is_fraction(column) else 1.0
    drawn = np.asarray(values, dtype=np.float64) * factor
    low, high = float(drawn.min()), float(drawn.max())
    log = low > 0 and high / low > (3 if column in ("macs", "params") else 8)
    low, high = _padded(low, high, log, pad)
    ticks = _log_ticks(low, high, n_ticks) if log else _linear_ticks(low, high, n_ticks)
    return Scale(column_label(column), factor, low, high, log, tuple(ticks), tuple(tick_labels(ticks)))


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return ticks with one SI prefix for all of them, or with one each if they differ by much.

    >>> tick_labels([0, 500_000, 2_000_000]), tick_labels([2.5, 5.0])
    (['0', '0.5 M', '2 M'], ['2.5', '5'])
    """
    sizes = [abs(tick) for tick in ticks if tick]
    largest = max(sizes, default=0.0)
    if sizes and largest >= 1000 and largest > 1000 * min(sizes):
        return [si(tick) for tick in ticks]
    factor, prefix = next(((f, p) for f, p in _PREFIXES if largest >= f), (1.0, ""))
    return [f"{tick / factor:.12g} {prefix}".strip() if tick else "0" for tick in ticks]


def _is_fraction(column: str) -> bool:
    return column.endswith(("_error", "_accuracy"))


def _padded(low: float, high: float, log: bool, pad: float) -> tuple[float, float]:
    if log:
        span = high / low
        return float(low / span**pad), float(high * span**_PAD)
    span = (high - low) or abs(high) or 1.0
    least = low - pad * span
    return (max(0.0, least) if low >= 0 else least), high + _PAD * span


def _log_ticks(low: float, high: float, n_ticks: int) -> list[float]:
    """Return 1-2-5 ticks if they are few enough, else fewer for each power of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= n_ticks:
            break
    return ticks[:: -(-len(ticks) // n_ticks)]


def _linear_ticks(low: float, high: float, n_ticks: int) -> list[float]:
    found = MaxNLocator(n_ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in found if low <= tick <= high]
