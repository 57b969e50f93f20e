"""What columns are called in a page, and how their values are written, units included."""

from __future__ import annotations

import json

from connsearch.text import duration, human, si

NAMES = {
    "trial": "trial",
    "state": "state",
    "val_error": "validation error",
    "val_iou_error": "1 - mean IoU, validation",
    "macs": "MACs per image",
    "params": "parameters",
    "topology": "topology",
    "aggregation": "aggregation",
    "unit": "unit",
    "depths": "layers by block",
    "widths": "widths by block",
    "n_layers": "layers",
    "inference_bytes": "peak activations, inference",
    "training_bytes": "kept activations, training",
    "epochs": "epochs",
    "seconds": "training steps",
    "reason": "why",
}
OF_TRIALS = (
    *("val_error", "macs", "params", "topology", "aggregation", "unit", "depths", "widths"),
    *("inference_bytes", "training_bytes", "epochs", "seconds", "reason"),
)
"""Columns of the table of all trials, in order, besides number, state and objectives."""
TO_LEFT = ("state", "topology", "aggregation", "unit", "depths", "widths", "reason")
UNITS = {"macs": "MACs", "params": "parameters", "inference_bytes": "bytes", "training_bytes": "bytes"}


def name_of(column: str) -> str:
    """Return what a column is called.

    >>> name_of("val_error"), name_of("budget_macs")
    ('validation error', 'budget macs')
    """
    return NAMES.get(column, column.replace("_", " "))


def in_words(column: str, value: object) -> str:
    """Return a value with its unit.

    >>> in_words("macs", 3_120_000), in_words("seconds", 75.2), in_words("training_bytes", 234_592)
    ('3.12 M', '1 min 15 s', '235 kB')
    >>> in_words("val_error", None)
    ''
    """
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if column == "seconds":
            return duration(value) if value >= 60 else f"{value:.1f} s"
        if column.endswith("_bytes"):
            return bytes_word(value)
        if column == "epochs":
            return str(value)
        return human(column, value)
    return value if isinstance(value, str) else json.dumps(value)


def bytes_word(value: float) -> str:
    """Return a number of bytes for people.

    >>> bytes_word(900), bytes_word(55_552)
    ('900 B', '55.6 kB')
    """
    return f"{si(value)} B" if value < 1000 else f"{si(value)}B"


def unit_of(column: str) -> str:
    """Return the unit that a column is recorded in.

    >>> unit_of("val_error"), unit_of("macs")
    ('fraction', 'MACs')
    """
    return "fraction" if column.endswith("_error") else UNITS.get(column, column)
