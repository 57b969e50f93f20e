"""Study: trials on an Optuna storage, which is the one record of everything that was asked and reached.

Every trial's sampler and training are seeded by its number, so running again after a kill goes on as if
nothing had happened; a trial that was cut off runs again with the same knobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.cost import network_cost
from connsearch.errors import ConnsearchError, StudyError
from connsearch.search import storage
from connsearch.search.config import StudyConfig
from connsearch.search.objective import Outcome, environment, evaluate_network, training_device
from connsearch.search.pareto import ParetoFront
from connsearch.search.records import Status, front_frame, reference_point, status_of
from connsearch.search.samplers import distributions, make_sampler
from connsearch.search.seeds import stream_seed
from connsearch.search.space import Member, SearchSpace
from connsearch.train.config import TrainConfig
from connsearch.train.result import EpochRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial


@dataclass(frozen=True)
class Progress:
    """Whom to tell how a run goes; every hook is optional.

    Attributes:
        trial_started: Called with the number and the network.
        epoch_ended: Called after each epoch of a trial.
        trial_ended: Called with the trial's number and its outcome, or the reason why it failed.
    """

    trial_started: Callable[[int, Member], None] = field(default=lambda number, member: None)
    epoch_ended: Callable[[int, EpochRecord], None] = field(default=lambda number, record: None)
    trial_ended: Callable[[int, Outcome | str], None] = field(default=lambda number, outcome: None)


class Study:
    """A study in a directory. Make one with `open`, read one with `load`."""

    def __init__(self, directory: Path, config: StudyConfig, study: optuna.Study) -> None:
        self.directory = directory
        self.config = config
        self._study = study

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
        return cls.from_config(directory, config)

    @classmethod
    def from_config(cls, directory: str | os.PathLike[str], config: StudyConfig) -> Study:
        """Create or open the study of a configuration; raises as `open`."""
        path = Path(directory)
        if not storage.exists(path):
            config.space.check()
            check_data(config)
            make_sampler(config.sampler, 0)
            storage.create(path, config)
        opened = cls.load(path)
        check_same(path, opened.config, config)
        opened.config = config
        return opened

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Study:
        """Open the study in a directory as it is.

        Raises:
            StudyError: if there is none, or its journal is damaged.
        """
        path = Path(directory)
        return cls(path, *storage.load(path))

    # ---- running -----------------------------------------------------------------------------------

    def run(
        self, n_trials: int | None = None, *, device: str | None = None, progress: Progress | None = None
    ) -> int:
        """Run trials until the study has so many finished ones; resume whatever was cut off.

        Args:
            n_trials: Total of finished trials, those of earlier runs included; by default the
                configuration's.
            device: Where to train; by default CUDA if there is one.
            progress: Whom to tell.

        Returns:
            How many trials this call ran.

        Raises:
            StudyError: if another process is running this study, or its directory cannot be written.
            DataError: if the data set is missing or does not match the space.
            TrainError: if the device is not there.
        """
        total = self.config.n_trials if n_trials is None else n_trials
        device = training_device(device)
        check_data(self.config)
        with storage.locked(self.directory):
            storage.mend(self.directory, len(self.config.space.knobs()))
            _, self._study = storage.load(self.directory)
            self._study.set_user_attr("n_trials", max(total, len(self.trials())))
            ran = 0
            while (number := self._next_number(total)) is not None:
                self._run_trial(number, device, progress or Progress())
                ran += 1
            return ran

    def _next_number(self, total: int) -> int | None:
        """Return the number of the trial to run: one that was cut off, else a new one; None at the end."""
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if not trial.state.is_finished():
                return trial.number
        return len(trials) if len(trials) < total else None

    def _run_trial(self, number: int, device: str, progress: Progress) -> None:
        from optuna.trial import TrialState

        trial = self._ask(number)
        try:
            member = self.config.space.member(trial.params)
            progress.trial_started(number, member)
            self._record_member(trial, member)
            outcome = evaluate_network(
                member.spec,
                self.config.train,
                study_seed=self.config.seed,
                trial=number,
                device=device,
                on_epoch=lambda record: progress.epoch_ended(number, record),
            )
        except ConnsearchError as error:
            trial.set_user_attr("reason", str(error))
            self._study.tell(trial, state=TrialState.FAIL)
            progress.trial_ended(number, str(error))
            return
        self._record_outcome(trial, outcome, device)
        self._study.tell(trial, [outcome.value(name) for name in self.config.objectives])
        progress.trial_ended(number, outcome)

    def _ask(self, number: int) -> Trial:
        """Return the trial of that number with all knobs drawn; one that was cut off has them already."""
        import optuna

        self._study.sampler = make_sampler(
            self.config.sampler, stream_seed(self.config.seed, number, "sampler")
        )
        cut_off = next((t for t in self.trials() if t.number == number), None)
        trial = optuna.trial.Trial(self._study, cut_off._trial_id) if cut_off else self._study.ask()
        for name, distribution in distributions(self.config.space.knobs()).items():
            _suggest(trial, name, distribution)
        return trial

    @staticmethod
    def _record_member(trial: Trial, member: Member) -> None:
        spec = member.spec
        trial.set_user_attr("network", spec.to_full_dict())
        trial.set_user_attr("cost", network_cost(spec).to_dict())
        trial.set_user_attr("budget", member.budget.bounds())

    def _record_outcome(self, trial: Trial, outcome: Outcome, device: str) -> None:
        result = outcome.training
        trial.set_user_attr("curve", [record.to_dict() for record in result.curve])
        trial.set_user_attr("val_error", result.val_error)
        trial.set_user_attr("seconds", result.seconds)
        trial.set_user_attr("environment", environment(device, self.config.train.threads))
        if result.diverged:
            trial.set_user_attr("reason", "diverged")
            if not trial.constraints:  # set already, if the trial was cut off right here
                trial.set_constraint("diverged", 1.0)

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

    def status(self) -> Status:
        """Return how many trials are in which state, the best one and the rate."""
        asked = self._study.user_attrs.get("n_trials", self.config.n_trials)
        return status_of(self.trials(), asked, self.config.objectives)


def _suggest(trial: Trial, name: str, distribution: Any) -> None:
    """Ask for one knob through the public interface, which keeps a value that is already recorded."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        trial.suggest_int(name, low, high, step=distribution.step, log=distribution.log)
    else:
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def check_data(config: StudyConfig) -> None:
    """Make sure that the data set is there and fits the space.

    Raises:
        DataError: naming both sides and the way out.
    """
    from connsearch.data import check_matches, load_dataset

    space = config.space
    check_matches(
        load_dataset(config.train.dataset),
        channels=space.input.channels,
        height=space.input.height,
        width=space.input.width,
        n_classes=space.n_classes,
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
