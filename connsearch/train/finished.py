"""What did a network reach, trained to the end with several seeds? As data, as text, as files.

A directory of such trainings holds a folder for each seed and what they amount to:

    summary.json   all of it: see `Summary.to_dict`
    summary.csv    a row for each seed: the fields of `SeedResult`
    session.json   which network, configuration and images these are, so that nothing else is added
    seed-0/
        network.toml             the specification
        train.toml               the configuration, defaults included
        curve.csv                a row for each epoch: the fields of `EpochRecord`
        checkpoint.safetensors   from which the training goes on, if it was stopped
        weights.safetensors      what was learned (of weights that are averaged the average)
        result.json              the fields of `SeedResult`, where it ran, and on test images: how often which
                                 class was taken for which; there when the training is done, not before
    seed-1/ ...
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from connsearch.errors import TrainError
from connsearch.files import write_whole
from connsearch.text import duration, human, table
from connsearch.train.spread import Spread

SUMMARY, TABLE = "summary.json", "summary.csv"
RESULT, WEIGHTS = "result.json", "weights.safetensors"
_AGAIN = "delete it, and run the same command again"


@dataclass(frozen=True)
class SeedResult:
    """What a network reached with one seed, after its last epoch. Errors are fractions.

    Attributes:
        seed: Of initial weights, order and changes of images.
        epochs: That were finished.
        diverged: Whether a loss was not finite; there are no test results then.
        seconds: Wall time of the training steps.
        train_error: Wrongly classified share of the training images, as the last epoch saw them.
        val_error: Of the validation images; None without any.
        val_mean_iou: Mean intersection over union of classes there; None where images have one label each.
        test_loss: Mean cross entropy of the test images, in nats.
        test_error: Wrongly classified share of the test images, or of their pixels that are not void.
        test_mean_iou: As `val_mean_iou`.
    """

    seed: int
    epochs: int
    diverged: bool
    seconds: float
    train_error: float | None
    val_error: float | None
    val_mean_iou: float | None
    test_loss: float | None
    test_error: float | None
    test_mean_iou: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SeedResult:
        """Return the result whose fields are among these."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Summary:
    """What a network reached with several seeds.

    Attributes:
        name: Of the network.
        macs: Multiply-accumulates per image.
        params: Trainable scalars.
        dataset: Its label.
        splits: Whose images trained: "train", or "train" and "val".
        train_images: How many these are.
        test_images: How many tested, once, when training was done.
        epochs: That each seed was to be trained for.
        results: Of each seed, ascending.
    """

    name: str
    macs: int
    params: int
    dataset: str
    splits: tuple[str, ...]
    train_images: int
    test_images: int
    epochs: int
    results: tuple[SeedResult, ...]

    @property
    def diverged(self) -> int:
        """Seeds whose training diverged: they are in no mean."""
        return sum(result.diverged for result in self.results)

    def spread(self, field: str) -> Spread | None:
        """Return mean and spread of a field of the results; None where no seed has it."""
        values = [getattr(result, field) for result in self.results if not result.diverged]
        known = [value for value in values if value is not None]
        return Spread.of(known) if known else None

    @property
    def test_error(self) -> Spread | None:
        """Mean and spread of the error on test images; None if every seed diverged."""
        return self.spread("test_error")

    @property
    def test_mean_iou(self) -> Spread | None:
        """The same of the mean intersection over union; None where images have one label each."""
        return self.spread("test_mean_iou")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as `summary.json` holds them.

            {"name", "macs", "params", "dataset", "splits", "train_images", "test_images", "epochs",
             "diverged", "test_error": {"mean", "deviation", "min", "max", "low", "high", "seeds"},
             "test_mean_iou", "val_error", "results": [{the fields of `SeedResult`}, ...]}

        A mean is null where nothing has it; `low` and `high` are the 95 % interval of the mean.
        """
        data = asdict(self)
        results = data.pop("results")
        spreads = {name: self.spread(name) for name in ("test_error", "test_mean_iou", "val_error")}
        means = {name: None if found is None else found.to_dict() for name, found in spreads.items()}
        return {**data, "splits": list(self.splits), "diverged": self.diverged, **means, "results": results}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Summary:
        """Return the summary that `to_dict` wrote."""
        given = {field.name: data[field.name] for field in fields(cls)}
        results = tuple(map(SeedResult.from_dict, data["results"]))
        return cls(**{**given, "splits": tuple(data["splits"]), "results": results})

    def __str__(self) -> str:
        """Return a row for each seed, then mean and spread."""
        return "\n".join([self._head(), self._table(), *self._tail()])

    def _head(self) -> str:
        trained = " + ".join({"train": "training", "val": "validation"}[split] for split in self.splits)
        return (
            f"{self.name} on {self.dataset}: {human('macs', self.macs)}MACs, {human('params', self.params)} "
            f"parameters, {self.epochs} epochs on {self.train_images} {trained} images"
        )

    def _table(self) -> str:
        wanted = ("train_error", "val_error", "val_mean_iou", "test_error", "test_mean_iou")
        shown = [name for name in wanted if self.spread(name) is not None]
        header = ["seed", "epochs", *(name.replace("_", " ").replace("iou", "IoU") for name in shown), "time"]
        rows = [
            [
                str(result.seed),
                f"{result.epochs} diverged" if result.diverged else str(result.epochs),
                *(percent(getattr(result, name)) for name in shown),
                duration(result.seconds),
            ]
            for result in self.results
        ]
        return table(header, rows)

    def _tail(self) -> list[str]:
        lines = []
        for name, spread in (("error", self.test_error), ("mean IoU", self.test_mean_iou)):
            if spread is not None:
                lines.append(f"test {name} {spread.sentence()}; {self.test_images} images")
        if self.diverged:
            lines.append(
                f"{self.diverged} of {len(self.results)} seeds diverged, a loss was not finite: they are in "
                "no mean; a lower lr may help"
            )
        return lines

    def write(self, directory: Path) -> None:
        """Write `summary.json` and `summary.csv`.

        Raises:
            ConnsearchError: if that is not possible.
        """
        write_whole(directory / SUMMARY, to_json(self.to_dict()))
        write_whole(directory / TABLE, to_csv([result.to_dict() for result in self.results]))


def read_summary(directory: Path) -> Summary | None:
    """Return what the trainings in a directory amount to; None if there is no summary.

    Raises:
        TrainError: if the file cannot be read or is something else.
    """
    path = directory / SUMMARY
    data = read_record(path)
    try:
        return None if data is None else Summary.from_dict(data)
    except (KeyError, TypeError) as error:
        raise TrainError(f"{path}: is no summary of trainings: {error!r}: {_AGAIN}") from None


def read_result(folder: Path) -> SeedResult | None:
    """Return what a seed's training reached; None if it is not done.

    Raises:
        TrainError: if the file cannot be read or is something else.
    """
    path = folder / RESULT
    data = read_record(path)
    try:
        return None if data is None else SeedResult.from_dict(data)
    except KeyError as error:
        raise TrainError(f"{path}: is no result of a training: {error} is missing: {_AGAIN}") from None


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the table in a JSON file; None if there is no such file.

    Raises:
        TrainError: if it cannot be read or is something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise TrainError(f"{path}: is damaged: {error}: {_AGAIN}") from None
    if not isinstance(data, dict):
        raise TrainError(f"{path}: holds no table: {_AGAIN}")
    return data


def to_json(data: Mapping[str, Any]) -> bytes:
    """Return a table as a JSON file holds it, for people too."""
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return tables as lines of CSV, under the keys that occur, in order; what is not known is empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def percent(value: float | None) -> str:
    """Return a fraction in percent, to two digits.

    >>> percent(0.1234), percent(None)
    ('12.34 %', '-')
    """
    return "-" if value is None else f"{100 * value:.2f} %"
