"""One worker: claims a trial, runs it, claims the next, until the study has them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from connsearch.errors import StudyError
from connsearch.memory import release
from connsearch.search import storages
from connsearch.search.attempt import Setting, attempt
from connsearch.search.hooks import Progress
from connsearch.search.storages.claims import LEASE, Claim, ClaimLog, Timing, Watch, Worker, next_claim
from connsearch.search.storages.lease import Lease, LeaseLostError, MisplacedError, first_sign
from connsearch.search.storages.patient import patient
from connsearch.train.torchrun import refuse_several

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

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
        TrainError: if torchrun has started this process as one of several.
    """
    refuse_several("a study", "start it without torchrun; workers run several trials at once")
    with Worker.here() as worker:
        return _Runner(task, worker).run(total)


class _Runner:
    def __init__(self, task: Task, worker: Worker) -> None:
        self.task, self.worker = task, worker
        self.study, self.progress = task.study, task.progress
        self.setting = Setting(task.config, task.study, task.device, task.progress)
        self.storage = patient(task.study)
        self.storage.patience, self.storage.say = task.timing.patience, task.progress.note
        self.log = ClaimLog(storages.claims_of(task.study))
        self.watch = Watch(task.timing.expiry)
        self.checkpoints = task.directory / storages.CHECKPOINTS

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
                release()

    def _run_claimed(self, claim: Claim, trials: Sequence[FrozenTrial]) -> bool:
        """Run a trial that is this worker's, given those before it; return whether it ended here."""
        trial_id = self._begin(claim, trials)
        if trial_id is None:
            return False
        try:
            with Lease(self.storage, trial_id, claim, self.log, self.task.timing.beat) as lease:
                attempt(self.setting, claim, trial_id, lease, self._checkpoint(claim.trial))
        except MisplacedError:
            return self.log.holds(claim) and self._run_claimed(claim, self.study.get_trials(deepcopy=False))
        except LeaseLostError:
            self.progress.note(f"trial {claim.trial}: another worker has taken it over")
            self.progress.trial_dropped(claim.trial)
            return False
        self._checkpoint(claim.trial).unlink(missing_ok=True)
        return True

    def _begin(self, claim: Claim, trials: Sequence[FrozenTrial]) -> int | None:
        """Return the key of the trial under this claim, made if need be; None if it is finished or lost.

        A trial that is made waits until its knobs are recorded. One that is made when somebody else has made
        another meanwhile gets a later number: it waits for whoever claims that number, or for ever.
        """
        from optuna.trial import TrialState, create_trial

        if claim.attempt > 1:  # it may have come meanwhile
            trials = self.study.get_trials(deepcopy=False)
        sign = first_sign(claim)
        if claim.trial == len(trials):
            if not self.log.holds(claim, within=self.task.timing.expiry / 2):
                return None
            waiting = create_trial(state=TrialState.WAITING, user_attrs={LEASE: sign})
            return self.storage.create_new_trial(self.study._study_id, waiting)
        trial = self.storage.get_trial(trials[claim.trial]._trial_id)
        if trial.state.is_finished():
            return None
        self.storage.set_trial_user_attr(trial._trial_id, LEASE, sign)
        return trial._trial_id

    def _tidy(self, trials: Sequence[FrozenTrial]) -> None:
        """Remove the checkpoints of finished trials, also where a worker was killed at its very end."""
        finished = {f"trial-{trial.number}" for trial in trials if trial.state.is_finished()}
        with suppress(FileNotFoundError):  # another worker tidies too
            for file in self.checkpoints.iterdir():
                if file.name.removeprefix(".").partition(".")[0] in finished:  # or what a kill left of one
                    file.unlink(missing_ok=True)
        claimed = self.log.holders()
        if all(trial.state.is_finished() or trial.number not in claimed for trial in trials):
            with suppress(OSError):  # not there, or somebody's files are in it
                self.checkpoints.rmdir()

    def _checkpoint(self, number: int) -> Path:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{self.checkpoints}: cannot be made: {error.strerror or error}") from None
        return self.checkpoints / f"trial-{number}"
