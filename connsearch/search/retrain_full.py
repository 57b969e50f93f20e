"""What do the winners of a study reach, trained in full on all images but the test's?

Networks were chosen by their validation error, with one seed and few epochs: that error is too low, as the
luckiest are chosen. Here each is trained with several fresh seeds, on training and validation images; then
the test images are looked at, for the first time, and choose nothing.

A directory of retrained trials, by default `retrained` in the study's own:

    summary.json   {"study", "epochs", "train_images", "test_images", "trials": [a row for each trial, see
                   `Retrained.to_dict`]}
    summary.csv    the same rows
    session.json   which study and configuration these are
    trial-12/      as `connsearch.train.finished` says: a summary, a folder for each seed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from connsearch.errors import StudyError
from connsearch.search.measures import VAL_IOU_ERROR
from connsearch.search.reading.records import network_row
from connsearch.search.retrain import record_of
from connsearch.search.retrained import Retrained, RetrainedTrials, Winner
from connsearch.spec.network import NetworkSpec
from connsearch.train.config import TrainConfig
from connsearch.train.finished import read_summary

if TYPE_CHECKING:
    from connsearch.search.study import Study
    from connsearch.train.watching import ConsoleWatcher

FOLDER = "retrained"
"""Where what is retrained lies, below the study's directory."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes a summary."""

# ---- which trials, and how -----------------------------------------------------------------------------


def winner_of(study: Study, number: int) -> Winner:
    """Return a finished trial.

    Raises:
        StudyError: if there is no such trial, it failed or is not finished.
    """
    attrs = record_of(study, number)
    row = network_row(attrs)
    words = (row["topology"], row["aggregation"], row["macs"], row["params"])
    iou_error = attrs.get(VAL_IOU_ERROR)
    mean_iou = None if iou_error is None else 1.0 - iou_error
    return Winner(number, NetworkSpec.from_dict(attrs["network"]), *words, attrs["val_error"], mean_iou)


def front_trials(study: Study) -> list[int]:
    """Return the numbers of the trials on a study's front.

    Raises:
        StudyError: if there is none.
    """
    points = study.pareto_front().points
    if points.empty:
        raise StudyError(f"{study.directory}: no trial yet that can be ranked: there is no front to retrain")
    return [int(number) for number in points["trial"]]


def full_config(studied: TrainConfig, recipe: str | None, changes: Sequence[str] = ()) -> TrainConfig:
    """Return how winners are trained: as in the study, but for what is changed.

    Args:
        studied: The study's configuration.
        recipe: Its values take the place of the study's; what it does not say stays.
        changes: `key=value` each, of the table `[train]`.

    Raises:
        SpecError: if the recipe or a key is unknown, or a value is wrong.
    """
    from connsearch.config import override
    from connsearch.train.recipes import RECIPES

    data = studied.to_full_dict()
    if recipe is not None:
        told = RECIPES[recipe].values if recipe in RECIPES else {}
        data = {key: value for key, value in data.items() if key not in (*told, "filled_from")}
        data["recipe"] = recipe
    for text in changes:
        override(data, text)
    return TrainConfig.from_dict(data)


# ---- training ------------------------------------------------------------------------------------------


def retrain_trials(
    study: Study,
    numbers: Sequence[int],
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    output: Path | None = None,
    device: str = "cpu",
    watcher: ConsoleWatcher | None = None,
) -> RetrainedTrials:
    """Train trials in full, each with all seeds, and return what they, and those of earlier calls, reached.

    Args:
        study: The study.
        numbers: The trials, in the order in which they are trained.
        config: How; `full_config` makes one.
        seeds: Each 0 or more; the same for every trial.
        output: Where to; by default `retrained` in the study's directory.
        device: Where to train.
        watcher: Whom to tell.

    Raises:
        StudyError: if a trial is not there, failed or is not finished.
        TrainError: if the directory is of another study or configuration, in use, or cannot be written.
        DataError: if the images are missing, or do not fit a network.
        OutOfMemoryError: if memory does not suffice.
    """
    from connsearch.search.objective import check_training, enough_memory
    from connsearch.train.distributed import joined
    from connsearch.train.session import Session, train_seeds

    winners = [winner_of(study, number) for number in dict.fromkeys(numbers)]
    target = output or study.directory / FOLDER
    sessions = [Session(winner.spec, config, join=True) for winner in winners]
    for session in sessions:
        session.dataset()  # before anything is written
        check_training(session.spec, config, device)
    with joined(device) as processes:
        processes.from_first(lambda: _begin(target, study, config))
        for winner, session in zip(winners, sessions, strict=True):
            if watcher is not None:
                watcher.about = f"trial {winner.trial}, "
            with enough_memory(device):
                train_seeds(_folder(target, winner.trial), session, seeds, device=device, watcher=watcher)
            processes.from_first(lambda: _sum_up(target, study))
        return processes.from_first(lambda: read_retrained(study, target))


def _begin(directory: Path, study: Study, config: TrainConfig) -> None:
    """Make a directory for the retrained trials of a study, if it is not that of others."""
    from connsearch.train.holding import alone, check_same, make_directory
    from connsearch.train.session import IDENTITY

    make_directory(directory)
    with alone(directory, patience=PATIENCE):
        here = {"train": config.identity(), "study": study.config.identity()}
        check_same(directory / IDENTITY, here)


def _sum_up(directory: Path, study: Study) -> None:
    from connsearch.train.holding import alone

    with alone(directory, patience=PATIENCE):
        read_retrained(study, directory).write(directory)


def _folder(directory: Path, trial: int) -> Path:
    return directory / f"trial-{trial}"


def read_retrained(study: Study, directory: Path | None = None) -> RetrainedTrials:
    """Return what retrained trials reached, those that are done with at least one seed.

    Args:
        study: The study.
        directory: Where they are; by default `retrained` in the study's directory.

    Raises:
        StudyError: if there is none.
        TrainError: if a file is damaged.
    """
    target = directory or study.directory / FOLDER
    rows = []
    for folder in target.glob("trial-*"):
        number = folder.name.removeprefix("trial-")
        summary = read_summary(folder) if number.isdecimal() else None
        if summary is not None:
            rows.append(Retrained(winner_of(study, int(number)), summary))
    if not rows:
        raise StudyError(f"{target}: no trial is retrained there: `connsearch retrain DIR --front` does that")
    rows.sort(key=lambda row: (row.winner.macs, row.winner.trial))
    return RetrainedTrials(str(study.directory), tuple(rows))
