"""What winners of a study reached when they were trained in full: as data, as text, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connsearch.files import write_whole
from connsearch.spec.network import NetworkSpec
from connsearch.text import counted, human, table
from connsearch.train.finished import SUMMARY, TABLE, Summary, percent, to_csv, to_json


@dataclass(frozen=True)
class Winner:
    """A trial that is retrained, with what the study knows of it.

    Attributes:
        trial: Its number.
        spec: Its network.
        topology: Of all blocks, or "mixed".
        aggregation: Likewise.
        macs: Multiply-accumulates per image.
        params: Trainable scalars.
        val_error: What it reached in the study, on validation images.
        val_mean_iou: Likewise; None where images have one label each.
    """

    trial: int
    spec: NetworkSpec
    topology: str
    aggregation: str
    macs: int
    params: int
    val_error: float
    val_mean_iou: float | None = None


@dataclass(frozen=True)
class Retrained:
    """A winner with what it reached.

    Attributes:
        winner: The trial.
        summary: Its trainings.
    """

    winner: Winner
    summary: Summary

    def to_dict(self) -> dict[str, Any]:
        """Return a row of a table; what is not known is None.

        Keys: trial, topology, aggregation, macs, params, val_error and val_mean_iou (the study's), test_error
        (the mean), test_error_deviation, test_error_min, test_error_max, test_error_low and test_error_high
        (the 95 % interval of the mean), test_mean_iou (the mean) and its deviation, seeds, diverged.
        """
        winner, error, iou = self.winner, self.summary.test_error, self.summary.test_mean_iou
        found = {} if error is None else error.to_dict()
        spread = {f"test_error_{key}": found.get(key) for key in ("deviation", "min", "max", "low", "high")}
        return {
            "trial": winner.trial,
            "topology": winner.topology,
            "aggregation": winner.aggregation,
            "macs": winner.macs,
            "params": winner.params,
            "val_error": winner.val_error,
            "val_mean_iou": winner.val_mean_iou,
            "test_error": found.get("mean"),
            **spread,
            "test_mean_iou": None if iou is None else iou.mean,
            "test_mean_iou_deviation": None if iou is None else iou.deviation,
            "seeds": len(self.summary.results),
            "diverged": self.summary.diverged,
        }


@dataclass(frozen=True)
class RetrainedTrials:
    """What retrained trials of a study reached.

    Attributes:
        study: The study's directory.
        rows: Ascending by multiply-accumulates, at least one.
    """

    study: str
    rows: tuple[Retrained, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `summary.json` holds them."""
        first = self.rows[0].summary
        return {
            "study": self.study,
            "epochs": first.epochs,
            "splits": list(first.splits),
            "train_images": first.train_images,
            "test_images": first.test_images,
            "trials": [row.to_dict() for row in self.rows],
        }

    def write(self, directory: Path) -> None:
        """Write `summary.json` and `summary.csv`.

        Raises:
            ConnsearchError: if that is not possible.
        """
        write_whole(directory / SUMMARY, to_json(self.to_dict()))
        self.to_csv(directory / TABLE)

    def to_csv(self, path: Path) -> None:
        """Write a line for each trial.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        write_whole(path, to_csv([row.to_dict() for row in self.rows]))

    def __str__(self) -> str:
        """Return a row for each trial, and what the numbers are."""
        dense = any(row.summary.test_mean_iou is not None for row in self.rows)
        header = [
            "trial",
            "topology",
            "aggregation",
            "MACs",
            "params",
            "val error",
            "test error",
            "low",
            "high",
        ]
        header += [*(["val mean IoU", "test mean IoU"] if dense else []), "seeds"]
        rows = [_cells(row, dense=dense) for row in self.rows]
        first = self.rows[0].summary
        diverged = sum(row.summary.diverged for row in self.rows)
        lines = [
            f"{self.study}: {counted(len(rows), 'trial')}, {counted(first.epochs, 'epoch')} on "
            f"{first.train_images} training + validation images",
            table(header, rows, left=["topology", "aggregation"]),
            f"val error: of the study, one seed; test error: mean ± standard deviation of fresh seeds on "
            f"{first.test_images} images; low, high: 95 % interval of the mean",
        ]
        return "\n".join(
            [*lines, *([f"{diverged} trainings diverged: they are in no mean"] if diverged else [])]
        )


def _cells(row: Retrained, *, dense: bool) -> list[str]:
    winner, error, iou = row.winner, row.summary.test_error, row.summary.test_mean_iou
    low, high = (error.interval if error is not None else None) or (None, None)
    n, diverged = len(row.summary.results), row.summary.diverged
    return [
        str(winner.trial),
        winner.topology,
        winner.aggregation,
        human("macs", winner.macs),
        human("params", winner.params),
        percent(winner.val_error),
        "-" if error is None else str(error),
        percent(None if low is None else max(low, 0.0)),
        percent(None if high is None else min(high, 1.0)),
        *([] if not dense else [percent(winner.val_mean_iou), "-" if iou is None else str(iou)]),
        f"{n - diverged} of {n}" if diverged else str(n),
    ]
