"""One worker: claims a trial, draws its knobs, trains it, records what came of it, until all are done."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from connsearch.cost import NetworkCost, network_cost
from connsearch.errors import StudyError, TrainError
from connsearch.search import storage
from connsearch.search.claims import LEASE, Claim, ClaimLog, Timing, Watch, Worker, next_claim
from connsearch.search.drawing import ask
from connsearch.search.failures import DIVERGED, FAILED, MAX_DEATHS, Failure, died, failure_of, worst_values
from connsearch.search.hooks import Progress
from connsearch.search.lease import Lease, LeaseLostError, first_sign
from connsearch.search.objective import Outcome, environment, evaluate_network
from connsearch.search.patient import patient
from connsearch.search.samplers import distributions, make_sampler
from connsearch.search.seeds import stream_seed
from connsearch.search.space import Member
from connsearch.train.checkpoint import CheckpointError, CheckpointWarning
from connsearch.train.result import EpochRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

    from connsearch.search.config import StudyConfig

FIRST_POLL = 0.02


class Task(NamedTuple):
    """What one worker works on.

    Attributes:
        directory: The study's directory.
        config: The study's configuration.
        study: The record.
        device: Where to train.
        progress: Whom to tell.
        timing: How often to look, how long to wait.
    """

    directory: Path
    config: StudyConfig
    study: optuna.Study
    device: str
    progress: Progress
    timing: Timing


def run_trials(task: Task, total: int) -> int:
    """Run trials until the study has so many finished ones, those of other workers included.

    Returns:
        How many trials this worker ran.

    Raises:
        StudyError: if the directory or the storage cannot be written, or the storage stays away.
        DataError: if the data set is missing or does not match the space.
    """
    with Worker.here() as worker:
        return _Runner(task, worker).run(total)


class _Runner:
    def __init__(self, task: Task, worker: Worker) -> None:
        self.task, self.worker = task, worker
        self.study, self.config, self.progress = task.study, task.config, task.progress
        self.storage = patient(task.study)
        self.storage.patience, self.storage.say = task.timing.patience, task.progress.note
        self.log = ClaimLog(storage.claims_of(task.study))
        self.watch = Watch(task.timing.expiry)
        self.checkpoints = task.directory / storage.CHECKPOINTS

    def run(self, total: int) -> int:
        """See `run_trials`."""
        ran, pause, known = 0, FIRST_POLL, 0
        while True:
            trials = self.study.get_trials(deepcopy=False)
            if sum(trial.state.is_finished() for trial in trials[:total]) >= total:
                self._tidy(trials)
                return ran
            outages = self.storage.outages
            claim = next_claim(trials, self.log, self.watch, self.worker, total=total, outages=outages)
            if claim is None:
                pause = FIRST_POLL if len(trials) > known else min(2 * pause, self.task.timing.poll)
                known = len(trials)
                time.sleep(pause)
                continue
            if claim.attempt > 1 and claim.trial < len(trials):
                last = self.storage.get_trial(trials[claim.trial]._trial_id)
                if last.state.is_finished():  # its worker ended after that, not in the middle of it
                    continue
            if self.log.take(claim):
                ran += self._run_claimed(claim, trials)

    def _run_claimed(self, claim: Claim, trials: Sequence[FrozenTrial]) -> bool:
        """Run a trial that is this worker's, given those before it; return whether it ended here."""
        trial_id = self._begin(claim, trials)
        if trial_id is None:
            return False
        try:
            with Lease(self.storage, trial_id, claim, self.log, self.task.timing.beat) as lease:
                self._run_trial(claim, trial_id, lease)
        except LeaseLostError:
            self.progress.note(f"trial {claim.trial}: another worker has taken it over")
            self.progress.trial_dropped(claim.trial)
            return False
        self._checkpoint(claim.trial).unlink(missing_ok=True)
        return True

    def _begin(self, claim: Claim, trials: Sequence[FrozenTrial]) -> int | None:
        """Return the key of the trial, running under this claim, made if need be; None if it is finished."""
        from optuna.trial import TrialState, create_trial

        if claim.attempt > 1:  # it may have come meanwhile
            trials = self.study.get_trials(deepcopy=False)
        sign = first_sign(claim)
        if claim.trial == len(trials):
            running = create_trial(state=TrialState.RUNNING, user_attrs={LEASE: sign})
            return self.storage.create_new_trial(self.study._study_id, running)
        trial = self.storage.get_trial(trials[claim.trial]._trial_id)
        if trial.state.is_finished():
            return None
        self.storage.set_trial_user_attr(trial._trial_id, LEASE, sign)
        if trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        return trial._trial_id

    def _run_trial(self, claim: Claim, trial_id: int, lease: Lease) -> None:
        number, config = claim.trial, self.config
        sampler = make_sampler(config.sampler, stream_seed(config.seed, number, "sampler"))
        trial = ask(self.study, trial_id, sampler, distributions(config.space.knobs()))
        cost: NetworkCost | None = None
        try:
            if claim.deaths >= MAX_DEATHS:
                self._fail(trial, died(claim.deaths), cost, lease)
                return
            member = config.space.member(trial.params)
            cost = network_cost(member.spec)
            self.progress.trial_started(number, member)
            self._record_member(trial, member, cost)
            outcome = self._evaluate(number, member, lease)
        except (LeaseLostError, StudyError):
            raise
        except Exception as error:
            self._fail(trial, failure_of(error), cost, lease)
            _free_memory(self.task.device)
            return
        lease.check()
        self._record_outcome(trial, outcome)
        self._tell(trial, [outcome.value(name) for name in config.objectives])
        self.progress.trial_ended(number, outcome)

    def _evaluate(self, number: int, member: Member, lease: Lease) -> Outcome:
        checkpoint = self._checkpoint(number)

        def on_epoch(record: EpochRecord) -> None:
            lease.reached(record.epoch)
            self.progress.epoch_ended(number, record)

        def evaluate() -> Outcome:
            return evaluate_network(
                member.spec,
                self.config.train,
                study_seed=self.config.seed,
                trial=number,
                device=self.task.device,
                on_epoch=on_epoch,
                checkpoint=checkpoint,
            )

        try:
            with self._warnings_told():
                return evaluate()
        except CheckpointError as error:
            differs = ", ".join(error.differs)
            self.progress.note(f"trial {number}: starts over, as its checkpoint differs in {differs}")
            checkpoint.unlink(missing_ok=True)
            return evaluate()
        except TrainError as error:
            if str(error).startswith(f"{checkpoint}:"):  # of the directory, not of the trial
                raise StudyError(str(error)) from error
            raise

    def _tidy(self, trials: Sequence[FrozenTrial]) -> None:
        """Remove the checkpoints of finished trials, also where a worker was killed at its very end."""
        finished = {f"trial-{trial.number}" for trial in trials if trial.state.is_finished()}
        with suppress(FileNotFoundError):  # another worker tidies too
            for file in self.checkpoints.iterdir():
                if file.name.removeprefix(".").partition(".")[0] in finished:  # or what a kill left of one
                    file.unlink(missing_ok=True)
        if len(finished) == len(trials):
            with suppress(OSError):  # not there, or somebody's files are in it
                self.checkpoints.rmdir()

    @contextmanager
    def _warnings_told(self) -> Iterator[None]:
        """Tell of a damaged or unwritable checkpoint among the lines of progress."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def told(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
                if issubclass(category, CheckpointWarning):
                    self.progress.note(str(message))
                else:
                    show(message, category, *place, **more)

            warnings.showwarning = told  # hands on whatever it is given
            yield

    def _checkpoint(self, number: int) -> Path:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{self.checkpoints}: cannot be made: {error.strerror or error}") from None
        return self.checkpoints / f"trial-{number}"

    @staticmethod
    def _record_member(trial: Trial, member: Member, cost: NetworkCost) -> None:
        for name, value in {
            "network": member.spec.to_full_dict(),
            "cost": cost.to_dict(),
            "budget": member.budget.bounds(),
        }.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)

    def _record_outcome(self, trial: Trial, outcome: Outcome) -> None:
        result = outcome.training
        trial.set_user_attr("curve", [record.to_dict() for record in result.curve])
        trial.set_user_attr("val_error", result.val_error)
        trial.set_user_attr("seconds", result.seconds)
        trial.set_user_attr("environment", environment(self.task.device, self.config.train.threads))
        if result.diverged:
            trial.set_user_attr("reason", DIVERGED)
            _violate(trial, DIVERGED)

    def _fail(self, trial: Trial, failure: Failure, cost: NetworkCost | None, lease: Lease) -> None:
        lease.check()
        trial.set_user_attr("reason", failure.reason)
        trial.set_user_attr("error", failure.detail)
        trial.set_user_attr("environment", environment(self.task.device, self.config.train.threads))
        _violate(trial, FAILED)
        self._tell(trial, worst_values(self.config, cost, self.study.get_trials(deepcopy=False)))
        self.progress.trial_ended(trial.number, str(failure))

    def _tell(self, trial: Trial, values: list[float]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.study.tell(trial, values)
        except (UpdateFinishedTrialError, ValueError):
            if self.storage.get_trial(trial._trial_id).state.is_finished():
                raise LeaseLostError from None
            raise


def _violate(trial: Trial, constraint: str) -> None:
    if constraint not in trial.constraints:  # set already, if the trial was cut off right here
        trial.set_constraint(constraint, 1.0)


def _free_memory(device: str) -> None:
    """Give back what a failed training held, for the next one."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
