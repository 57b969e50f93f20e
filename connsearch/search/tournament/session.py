"""One call of `connsearch tournament`: begin it or go on with it, and say how it stands."""

from __future__ import annotations

from pathlib import Path

from connsearch.search import storages
from connsearch.search.config import StudyConfig
from connsearch.search.session import run_study
from connsearch.search.storages.claims import Timing
from connsearch.search.study import Study, check_data, check_same
from connsearch.search.tournament.standings import Standings, standings_of


def run_tournament(
    directory: Path,
    config: StudyConfig,
    device: str | None = None,
    *,
    workers: int = 1,
    storage: str | None = None,
    timing: Timing | None = None,
) -> Standings:
    """Run a tournament to its last seeds and return how it ended.

    Args:
        directory: Of the tournament.
        config: As `tournament_of` returns it.
        device: Where to train; by default CUDA if there is one.
        workers: How many trainings at once.
        storage: A database; by default the one that the directory remembers, or its journal file.
        timing: How often to look at the storage, how long to wait for it.

    Raises:
        StudyError, DataError, TrainError: as `run_study`.
        KeyboardInterrupt: when it was stopped.
    """
    place = storages.find(directory, storage)
    if not storages.exists(directory):
        check_data(config)
        storages.create(place, config)  # as `Study.from_config`, whose check wants all pairs to fit
    run_study(directory, config, config.n_trials, device, workers=workers, storage=storage, timing=timing)
    return read_tournament(directory, config, storage)


def read_tournament(
    directory: Path, config: StudyConfig | None = None, storage: str | None = None
) -> Standings:
    """Return how the tournament in a directory stands.

    Args:
        directory: Of the tournament.
        config: What it must be; by default what is recorded.
        storage: As `run_tournament` takes it.

    Raises:
        StudyError: if it is no tournament, or another one, or no round is complete.
    """
    study = Study.load(directory, storage)
    if config is not None:
        check_same(directory, study.config, config)
    return standings_of(config or study.config, study.trials())
