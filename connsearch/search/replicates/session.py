"""One call of `connsearch replicate`: rounds of replicates, until every place is settled or all are spent."""

from __future__ import annotations

from pathlib import Path

from connsearch.errors import StudyError
from connsearch.search import storages
from connsearch.search.config import StudyConfig
from connsearch.search.replicates.confirmed import ConfirmedFront, confirmed_front
from connsearch.search.replicates.plan import (
    MOST_CANDIDATES,
    TRAININGS_EACH,
    ReplicatesConfig,
    check_objectives,
    replicates_of,
    schedule,
)
from connsearch.search.session import run_study
from connsearch.search.storages import Place
from connsearch.search.storages.claims import Timing
from connsearch.search.study import Study

FOLDER = "replicates"
"""Where the replicates of a study lie, below its directory."""


def begin_replicates(
    directory: Path,
    storage: str | None = None,
    *,
    margin: float | None = None,
    most: int | None = None,
) -> tuple[Study, str]:
    """Return the replicates of the study in a directory, begun if they are not there, and a note about them.

    They lie in the study's own storage. Whose trials are repeated is chosen once, when they begin.

    Args:
        directory: Of the study that was screened.
        storage: Its database; by default what the directory remembers, or its journal file.
        margin: As `replicates_of` takes it.
        most: As `replicates_of` takes it.

    Raises:
        StudyError: if there is no such study, it has no finished trial or other objectives than an error
            and costs, or replicates are there already and a choice is asked for.
    """
    screened = Study.load(directory, storage)
    check_objectives(screened.config)
    place = _place(screened, storage)
    if storages.is_there(place):
        if margin is not None or most is not None:
            raise StudyError(
                f"{place.directory}: replicates have begun there, and whose they are stays: remove it to "
                "choose again, or leave out --margin and --candidates"
            )
        return Study.load(place.directory, storage) if storages.exists(place.directory) else _joined(
            place
        ), ""
    config, left_out = replicates_of(screened, margin=margin, most=most or MOST_CANDIDATES)
    storages.create(place, config)
    what = f"{len(config.replicates.candidates) if config.replicates else 0} trials are repeated"
    note = f"{what}, {left_out} further ones near the front are not: --candidates N takes more"
    return Study.load(place.directory, storage), note if left_out else ""


def read_replicates(directory: Path, storage: str | None = None) -> ConfirmedFront:
    """Return what the replicates of the study in a directory have found so far.

    Raises:
        StudyError: if there are none, or none is finished.
    """
    place = _place(Study.load(directory, storage), storage)
    if not storages.is_there(place):
        raise StudyError(
            f"{directory}: no replicates there: begin them with `connsearch replicate {directory}`"
        )
    config, study = storages.load(place)
    return confirmed_front(config, study.get_trials(deepcopy=False))


def _joined(place: Place) -> Study:
    """Return replicates that another host has begun, and make their directory here."""
    config, _ = storages.load(place)
    storages.create(place, config)
    return Study(place, *storages.load(place))


def _place(screened: Study, storage: str | None) -> Place:
    """Return where the replicates of a study lie: beside it, under its own name."""
    directory = screened.directory / FOLDER
    if storages.exists(directory):
        return storages.find(directory, storage)
    outer = screened.place
    name = storages.STUDY_NAME if outer.url is None else f"{outer.name}-{FOLDER}"
    return Place(directory, outer.url, name)


def run_replicates(
    study: Study,
    n_trials: int | None = None,
    device: str | None = None,
    *,
    workers: int = 1,
    storage: str | None = None,
    timing: Timing | None = None,
) -> ConfirmedFront:
    """Run rounds of replicates and return what they found.

    Args:
        study: The replicates, as `begin_replicates` returns them.
        n_trials: Trainings at most, those of earlier runs included; by default 5 for each candidate.
        device: Where to train; by default CUDA if there is one.
        workers: How many trainings at once.
        storage: As `begin_replicates` takes it.
        timing: How often to look at the storage, how long to wait for it.

    Raises:
        StudyError, DataError, TrainError: as `run_study`.
        KeyboardInterrupt: when it was stopped.
    """
    table = _table(study.config)
    most = TRAININGS_EACH * len(table.candidates) if n_trials is None else n_trials
    while True:
        planned, settled = schedule(table, study.trials())
        finished = sum(trial.state.is_finished() for trial in study.trials())
        total = min(most, len(planned))
        if finished >= total or settled:
            return confirmed_front(study.config, study.trials())
        run_study(
            study.directory, study.config, total, device, workers=workers, storage=storage, timing=timing
        )


def _table(config: StudyConfig) -> ReplicatesConfig:
    if config.replicates is None:
        raise StudyError("this study repeats no trials: make one that does with `connsearch replicate DIR`")
    return config.replicates
