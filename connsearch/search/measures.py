"""By which error does a study compare networks? Measured on the validation split, after each epoch.

val_error      share of images, or of pixels that are not void, with another class than they have
val_iou_error  1 - mean IoU: every class counts alike, however few its pixels; for label maps only
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

VAL_ERROR, VAL_IOU_ERROR = "val_error", "val_iou_error"
ERRORS = (VAL_ERROR, VAL_IOU_ERROR)
"""Objectives that are measured; of a network that diverged each is 1. All others are counted."""


def error_of(objectives: Container[str]) -> str:
    """Return the error that a study with these objectives compares networks by."""
    return VAL_IOU_ERROR if VAL_IOU_ERROR in objectives else VAL_ERROR


def epoch_error(record: Mapping[str, Any], error: str) -> float:
    """Return an error of an epoch, from its record as plain data."""
    return float(1 - record["val_mean_iou"] if error == VAL_IOU_ERROR else record["val_error"])


def order_of(trial: Mapping[str, Any], objectives: Mapping[str, str]) -> tuple[float, ...]:
    """Return what trials are ordered by, the best first: all objectives in their order, then the number.

    So no trial that another one dominates is the best.

    Args:
        trial: Its number as `trial`, and a value for each objective.
        objectives: Names with their directions.

    >>> order_of({"trial": 4, "val_error": 0.25, "macs": 100}, {"val_error": "minimize", "macs": "maximize"})
    (0.25, -100, 4)
    """
    losses = (trial[name] if way == "minimize" else -trial[name] for name, way in objectives.items())
    return (*losses, trial["trial"])


def compared_error(attrs: Mapping[str, Any]) -> float:
    """Return the error that a finished trial is compared by; mean IoU is recorded only where it is that."""
    return float(attrs.get(VAL_IOU_ERROR, attrs[VAL_ERROR]))
