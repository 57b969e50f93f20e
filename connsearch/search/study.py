"""Study: trials on an Optuna storage, which is the one record of everything that was asked and reached.

Every trial's sampler and training are seeded by its number, so running again after a kill goes on as if
nothing had happened; a trial that was cut off goes on with the same knobs, from its last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import StudyError
from connsearch.search import storages
from connsearch.search.choices import values
from connsearch.search.config import StudyConfig
from connsearch.search.hooks import Progress
from connsearch.search.measures import VAL_ERROR, VAL_IOU_ERROR
from connsearch.search.objective import training_device
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.reading.records import Status, front_frame, reference_point, status_of
from connsearch.search.reading.tables import curves_table, trials_table
from connsearch.search.samplers import make_sampler
from connsearch.search.space import SearchSpace
from connsearch.search.storages import Place
from connsearch.search.storages.claims import Timing
from connsearch.search.transfer.studies import kept_from, with_earlier
from connsearch.search.transfer.warm_start import check_start
from connsearch.spec.ends import predicts_pixels
from connsearch.train.config import TrainConfig

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial


class Study:
    """A study in a directory. Make one with `open`, read one with `load`. It prints as its status.

    >>> from tempfile import TemporaryDirectory
    >>> directory = TemporaryDirectory()
    >>> space = SearchSpace.from_dict(
    ...     {
    ...         "input": {"channels": 1, "height": 8, "width": 8},
    ...         "blocks": {"count": 1, "topology": {"any_of": ["chain", "dense"]}, "n_layers": 3},
    ...         "budget": {"macs": {"low": 500_000, "high": 1_000_000}},
    ...     }
    ... )
    >>> study = Study.open(directory.name, space, objectives=("val_error", "macs"), seed=0)
    >>> print(study)  # doctest: +ELLIPSIS
    study    /...
    trials   0 of 40 finished: 0 complete, 0 failed, 0 pruned, 0 unfinished
    >>> directory.cleanup()
    """

    def __init__(self, place: Place, config: StudyConfig, study: optuna.Study) -> None:
        self.place = place
        self.config = config
        self._study = study

    def __str__(self) -> str:
        return f"study    {self.directory}\n{self.status()}"

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self.place.directory

    # ---- opening -----------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        space: SearchSpace,
        *,
        objectives: str | Sequence[str] | dict[str, Any] = ("val_error", "macs"),
        seed: int = 0,
        sampler: object = "tpe",
        train: TrainConfig | dict[str, Any] | None = None,
        question: str = "",
        storage: str | None = None,
    ) -> Study:
        """Create a study, or open the one that is there if it is the same.

        Args:
            directory: Created if it does not exist.
            space: What is searched.
            objectives: A name or names, each to be minimised, or a mapping from names to directions.
            seed: All randomness follows from it.
            sampler: "random", "tpe", "nsga2", "gp", or a table with parameters.
            train: How networks are trained; by default digits, 12 epochs.
            question: What the study is to answer.
            storage: A database for its record; by default a journal file in the directory.

        Raises:
            SpecError: if an argument is wrong.
            BudgetError: if a kind of member cannot meet the budget.
            StudyError: if the directory holds another study or cannot be written.
            DataError: if the data set is missing or does not match the space.
        """
        names = [objectives] if isinstance(objectives, str) else objectives
        directions = names if isinstance(names, dict) else dict.fromkeys(names, "minimize")
        given = {"train": train} if train is not None else {}
        config = StudyConfig(
            space=space, objectives=directions, seed=seed, sampler=sampler, question=question, **given
        )
        return cls.from_config(directory, config, storage)

    @classmethod
    def from_config(
        cls, directory: str | os.PathLike[str], config: StudyConfig, storage: str | None = None
    ) -> Study:
        """Create or open the study of a configuration; raises as `open`."""
        place = storages.find(Path(directory), storage)
        if not storages.exists(place.directory):
            config.space.check()
            check_data(config)
            make_sampler(config.sampler, 0)
            if not storages.is_there(place):
                config = with_earlier(config)
                check_start(config)
            storages.create(place, config)
        opened = cls(place, *storages.load(place))
        check_same(place.directory, opened.config, config)
        opened.config = kept_from(opened.config, config)
        return opened

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], storage: str | None = None, *, patience: float = 0.0
    ) -> Study:
        """Open the study in a directory as it is.

        Args:
            directory: Its directory.
            storage: The database; by default the one that the directory remembers, or its journal.
            patience: Seconds to wait for a database that is away.

        Raises:
            StudyError: if there is none, or its record is damaged or cannot be reached.
        """
        place = storages.find(Path(directory), storage)
        return cls(place, *storages.load(place, patience))

    # ---- running -----------------------------------------------------------------------------------

    def run(
        self,
        n_trials: int | None = None,
        *,
        device: str | None = None,
        progress: Progress | None = None,
        timing: Timing | None = None,
    ) -> int:
        """Be a worker: run trials until the study has so many finished ones; resume what was cut off.

        Any number of processes may do so at once, those of other hosts too if the storage is a database.

        Args:
            n_trials: Total of finished trials, those of earlier runs and other workers included; by
                default the configuration's.
            device: Where to train; by default CUDA if there is one.
            progress: Whom to tell.
            timing: How often to look at the storage, how long to wait for it.

        Returns:
            How many trials this call ran.

        Raises:
            StudyError: if the directory or the storage cannot be written, or the storage stays away.
            DataError: if the data set is missing or does not match the space.
            TrainError: if the device is not there.
        """
        from connsearch.search.runner import Task, run_trials

        device = training_device(device)
        check_data(self.config)
        total = self.ask_for(n_trials)
        hooks, pace = progress or Progress(), timing or Timing()
        return run_trials(Task(self.directory, self.config, self._study, device, hooks, pace), total)

    def ask_for(self, n_trials: int | None = None) -> int:
        """Record how many trials the study is to have, by default the configuration's; return that."""
        total = self.config.n_trials if n_trials is None else n_trials
        begun = sum(trial.state.name != "WAITING" for trial in self.trials())
        asked = max(total, begun)
        if self._study.user_attrs.get("n_trials") != asked:
            self._study.set_user_attr("n_trials", asked)
        return total

    # ---- reading -----------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as Optuna holds them."""
        return self._study.get_trials(deepcopy=False)

    def pareto_front(self) -> ParetoFront:
        """Return the finished trials and which of them no other beats in every objective."""
        objectives = self.config.objectives
        frame = front_frame(self.trials(), tuple(objectives))
        return ParetoFront.from_frame(
            frame, tuple(objectives), tuple(objectives.values()), reference_point(self.config)
        )

    def trials_frame(self) -> pd.DataFrame:
        """Return a row for each trial with all that is recorded; columns as `tables.trials_table` says."""
        return trials_table(self.trials(), tuple(self.config.objectives))

    def curves_frame(self) -> pd.DataFrame:
        """Return a row for each epoch of each trial that ended: rate, losses, errors, seconds."""
        return curves_table(self.trials())

    def status(self) -> Status:
        """Return how many trials are in which state, the best one, the rate, who is alive."""
        asked = self._study.user_attrs.get("n_trials", self.config.n_trials)
        return status_of(self.trials(), asked, self.config.objectives, reference_point(self.config))


def open_if_there(place: Place) -> Study | None:
    """Return the study at a place; None if there is none. Makes nothing."""
    return Study(place, *storages.load(place)) if storages.is_there(place) else None


def check_data(config: StudyConfig) -> None:
    """Make sure that the data set is there and fits the space.

    Raises:
        DataError: naming both sides and the way out.
    """
    from connsearch.data import check_matches, load_dataset

    space, dataset = config.space, load_dataset(config.train.dataset)
    if VAL_IOU_ERROR in config.objectives and not dataset.dense:
        raise StudyError(
            f"objective {VAL_IOU_ERROR} needs label maps, dataset {dataset.name!r} has a label for each "
            f"image: take {VAL_ERROR}"
        )
    check_matches(
        dataset,
        channels=space.input.channels,
        height=space.input.height,
        width=space.input.width,
        n_classes=space.n_classes,
        dense=all(predicts_pixels(head) for head in values(space.head)),
    )


def check_same(path: Path, there: StudyConfig, here: StudyConfig) -> None:
    """Make sure that two configurations are of one study.

    Raises:
        StudyError: naming the first difference.
    """
    old, new = there.identity(), here.identity()
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise StudyError(
                f"{path}: holds another study: {key} is {_at(old, key)} there, {_at(new, key)} here; "
                "choose another --dir"
            )


def _at(identity: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key, or the table of what lies below it."""
    below = {k.removeprefix(f"{key}."): v for k, v in identity.items() if k.startswith(f"{key}.")}
    return identity.get(key, below or "unset")
