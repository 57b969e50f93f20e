"""One attempt at a trial: its knobs are drawn, its network is trained, what came of it is recorded."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from connsearch.cost import NetworkCost, network_cost
from connsearch.errors import StudyError, TrainError
from connsearch.search.claims import Claim
from connsearch.search.drawing import ask
from connsearch.search.failures import DIVERGED, FAILED, MAX_DEATHS, Failure, died, failure_of, worst_values
from connsearch.search.given import given
from connsearch.search.hooks import Progress
from connsearch.search.lease import Lease, LeaseLostError
from connsearch.search.objective import Outcome, environment, evaluate_network
from connsearch.search.patient import patient
from connsearch.search.samplers import distributions, make_sampler
from connsearch.search.seeds import SEEDS_OF, stream_seed
from connsearch.search.space import Member
from connsearch.search.twins import HASH, TWIN, network_hash, outcome_of, twin_of
from connsearch.train.checkpoint import CheckpointError, CheckpointWarning
from connsearch.train.result import EpochRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

    from connsearch.search.config import StudyConfig


class Setting(NamedTuple):
    """What all attempts of a worker have in common.

    Attributes:
        config: The study's configuration.
        study: The record.
        device: Where to train.
        progress: Whom to tell.
    """

    config: StudyConfig
    study: optuna.Study
    device: str
    progress: Progress


def attempt(setting: Setting, claim: Claim, trial_id: int, lease: Lease, checkpoint: Path) -> None:
    """Run a trial to its end, from its checkpoint if there is one, and record what came of it.

    Args:
        setting: The study.
        claim: Which trial, as the worker holds it.
        trial_id: The trial's key in its storage.
        lease: What the worker holds it by.
        checkpoint: The trial's file.

    Raises:
        LeaseLostError: if the trial is no longer this worker's.
        StudyError: if the storage or the checkpoint cannot be written.
        DataError: if the data set is missing.
    """
    _Attempt(setting, claim, trial_id, lease, checkpoint).run()


class _Attempt:
    def __init__(self, setting: Setting, claim: Claim, trial_id: int, lease: Lease, checkpoint: Path) -> None:
        self.config, self.study, self.device, self.progress = setting
        self.claim, self.lease, self.checkpoint = claim, lease, checkpoint
        self.number = claim.trial
        self.trial = self._ask(trial_id)

    def _ask(self, trial_id: int) -> Trial:
        """Return the trial with all its knobs: recorded, given by the study, or drawn."""
        config, number = self.config, self.number
        fixed = given(config, number, self._trials)
        if fixed is not None and fixed.seeds != number:
            self.study._storage.set_trial_user_attr(trial_id, SEEDS_OF, fixed.seeds)
        sampler = make_sampler(config.sampler, stream_seed(config.seed, number, "sampler"))
        knobs = distributions(config.space.knobs())
        return ask(self.study, trial_id, sampler, knobs, fixed.knobs if fixed is not None else {})

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def run(self) -> None:
        cost: NetworkCost | None = None
        try:
            if self.claim.deaths >= MAX_DEATHS:
                self._fail(died(self.claim.deaths), cost)
                return
            member = self.config.space.member(self.trial.params)
            cost = network_cost(member.spec)
            self.progress.trial_started(self.number, member)
            outcome = self._outcome(member, cost)
        except (LeaseLostError, StudyError):
            raise
        except Exception as error:
            self._fail(failure_of(error), cost)
            _free_memory(self.device)
            return
        self.lease.check()
        self._record_outcome(outcome)
        self._tell([outcome.value(name) for name in self.config.objectives])
        self.progress.trial_ended(self.number, outcome)

    # ---- what the network reaches ------------------------------------------------------------------

    def _outcome(self, member: Member, cost: NetworkCost) -> Outcome:
        """Return what a network reaches: known from its twin, or by training it."""
        digest = network_hash(member.spec)
        self._record_member(member, cost, digest)
        twin = twin_of(digest, self.number, self._trials())
        if twin is not None:
            self._record(TWIN, twin.number)
            if self.config.duplicates == "reuse":
                self._record(SEEDS_OF, twin.user_attrs.get(SEEDS_OF, twin.number))
                self._record("environment", twin.user_attrs["environment"])
                return outcome_of(twin, cost)
        return self._train(member)

    def _train(self, member: Member) -> Outcome:
        try:
            with self._warnings_told():
                return self._evaluate(member)
        except CheckpointError as error:
            differs = ", ".join(error.differs)
            self.progress.note(f"trial {self.number}: starts over, as its checkpoint differs in {differs}")
            self.checkpoint.unlink(missing_ok=True)
            return self._evaluate(member)
        except TrainError as error:
            if str(error).startswith(f"{self.checkpoint}:"):  # of the directory, not of the trial
                raise StudyError(str(error)) from error
            raise

    def _evaluate(self, member: Member) -> Outcome:
        return evaluate_network(
            member.spec,
            self.config.train,
            study_seed=self.config.seed,
            trial=self.trial.user_attrs.get(SEEDS_OF, self.number),
            device=self.device,
            on_epoch=self._on_epoch,
            checkpoint=self.checkpoint,
        )

    def _on_epoch(self, record: EpochRecord) -> None:
        self.lease.reached(record.epoch)
        self.progress.epoch_ended(self.number, record)

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

    # ---- the record --------------------------------------------------------------------------------

    def _record(self, name: str, value: Any) -> None:
        """Set an attribute of the trial, unless an attempt that was cut off has done so."""
        if self.trial.user_attrs.get(name) != value:
            self.trial.set_user_attr(name, value)

    def _record_member(self, member: Member, cost: NetworkCost, digest: str) -> None:
        self._record("network", member.spec.to_full_dict())
        self._record("cost", cost.to_dict())
        self._record("budget", member.budget.bounds())
        self._record(HASH, digest)

    def _record_outcome(self, outcome: Outcome) -> None:
        result = outcome.training
        self._record("curve", [record.to_dict() for record in result.curve])
        self._record("val_error", result.val_error)
        self._record("seconds", result.seconds)
        if "environment" not in self.trial.user_attrs:
            self._record("environment", environment(self.device, self.config.train.threads))
        if result.diverged:
            self._record("reason", DIVERGED)
            self._violate(DIVERGED)

    def _fail(self, failure: Failure, cost: NetworkCost | None) -> None:
        self.lease.check()
        self._record("reason", failure.reason)
        self._record("error", failure.detail)
        self._record("environment", environment(self.device, self.config.train.threads))
        self._violate(FAILED)
        self._tell(worst_values(self.config, cost, self._trials()))
        self.progress.trial_ended(self.number, str(failure))

    def _violate(self, constraint: str) -> None:
        if constraint not in self.trial.constraints:  # set already, if the trial was cut off right here
            self.trial.set_constraint(constraint, 1.0)

    def _tell(self, values: list[float]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.study.tell(self.trial, values)
        except (UpdateFinishedTrialError, ValueError):
            if patient(self.study).get_trial(self.trial._trial_id).state.is_finished():
                raise LeaseLostError from None
            raise


def _free_memory(device: str) -> None:
    """Give back what a failed training held, for the next one."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
