"""Cells of a table as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def plain(value: Any) -> Any:
    """Return a cell as JSON has it: a time as ISO text, what is missing or not finite as None.

    Tables and lists stay what they are; what JSON does not know is text.
    """
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | list | tuple | dict) else str(value)


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as plain data, ready for JSON: a row for each of its rows."""
    return [{str(name): plain(cell) for name, cell in row.items()} for row in frame.to_dict("records")]
