"""What did the networks of a study reach when they were trained in full? Read from `DIR/retrained`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from connsearch.search.retrain_full import FOLDER
from connsearch.text import human, si
from connsearch.train.finished import SUMMARY, Summary, read_summary


def retrained(directory: Path) -> list[dict[str, Any]]:
    """Return a row for each network that was trained in full, ascending by its trial's number.

    Args:
        directory: Of the study.

    Returns:
        `name` of the folder, `trial` (None where the folder is not `trial-N`), what was trained on; in words
        the mean error on test images with its deviation (`test_error`, "" where every seed diverged), the
        least and the greatest (`test_errors`), the 95 % interval of the mean, the mean IoU.

    Raises:
        TrainError: if a summary is damaged.
    """
    found = []
    for path in sorted((directory / FOLDER).glob(f"*/{SUMMARY}")):
        summary = read_summary(path.parent)
        if summary is not None:
            found.append(_row(path.parent.name, summary))
    return sorted(found, key=lambda row: (row["trial"] is None, row["trial"] or 0, row["name"]))


def _row(name: str, summary: Summary) -> dict[str, Any]:
    number = re.fullmatch(r"trial-(\d+)", name)
    error, iou = summary.test_error, summary.test_mean_iou
    return {
        "name": name,
        "trial": int(number[1]) if number else None,
        "macs": human("macs", summary.macs),
        "params": human("params", summary.params),
        "images": f"{si(summary.train_images)} ({' + '.join(summary.splits)})",
        "epochs": summary.epochs,
        "seeds": len(summary.results),
        "diverged": summary.diverged,
        "test_images": summary.test_images,
        "test_error": "" if error is None else str(error),
        "test_errors": "" if error is None else _ends(min(error.values), max(error.values)),
        "mean_at_95": "" if error is None or error.interval is None else _ends(*error.interval),
        "test_mean_iou": "" if iou is None else str(iou),
    }


def _ends(low: float, high: float) -> str:
    """Return two fractions in percent, those that are shares.

    >>> _ends(-0.01, 0.1234)
    '0.00 to 12.34 %'
    """
    low, high = (100 * min(max(end, 0.0), 1.0) for end in (low, high))
    return f"{low:.2f} to {high:.2f} %"
