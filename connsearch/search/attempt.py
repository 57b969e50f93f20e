"""One attempt at a trial: its knobs are drawn, its network is trained, what came of it is recorded."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from connsearch.cost import NetworkCost, network_cost
from connsearch.errors import StudyError, TrainError
from connsearch.search.drawing import Drawing
from connsearch.search.failures import DIVERGED, FAILED, MAX_DEATHS, Failure, died, failure_of, worst_values
from connsearch.search.given import given
from connsearch.search.hooks import Progress
from connsearch.search.measured import MEASURED, LimitError, measure
from connsearch.search.measures import VAL_IOU_ERROR
from connsearch.search.objective import Outcome, environment, evaluate_network
from connsearch.search.proxies.prefilter import PROXIES_OF, filtered, recorded_proxies
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.pruning.stops import Stop
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.space import Member
from connsearch.search.storages.bulk import NotWaitingError
from connsearch.search.storages.claims import Claim
from connsearch.search.storages.lease import Lease, LeaseLostError, MisplacedError
from connsearch.search.storages.patient import patient
from connsearch.search.twins import HASH, TWIN, network_hash, outcome_of, twin_of
from connsearch.train.checkpoint import CheckpointError, checkpoint_warnings_told
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
        LeaseLostError: if the trial is no longer this worker's; MisplacedError: if it is another one.
        StudyError: if the storage or the checkpoint cannot be written.
        DataError: if the data set is missing.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    with patient(setting.study).own(setting.study._study_id, trial_id) as trial:
        if trial.number != claim.trial:  # somebody else has made one meanwhile
            raise MisplacedError
        try:
            _Attempt(setting, claim, trial_id, lease, checkpoint).run()
        except NotWaitingError:
            raise MisplacedError from None
        except UpdateFinishedTrialError:
            raise LeaseLostError from None


class _Known(NamedTuple):
    """What is known of a trial before it is trained; `twin` is the first that reached something alike."""

    member: Member
    cost: NetworkCost
    twin: FrozenTrial | None


class _Attempt:
    def __init__(self, setting: Setting, claim: Claim, trial_id: int, lease: Lease, checkpoint: Path) -> None:
        self.config, self.study, self.device, self.progress = setting
        self.claim, self.lease, self.checkpoint = claim, lease, checkpoint
        self.number = claim.trial
        self.storage = patient(self.study)
        with self.storage.together():
            self.trial = self._ask(trial_id)
            self.known = self._know() if claim.deaths < MAX_DEATHS else died(claim.deaths)

    def _ask(self, trial_id: int) -> Trial:
        """Return the trial, running, with all its knobs: recorded, given by the study, or drawn."""
        from optuna.trial import TrialState

        if self.storage.get_trial(trial_id).state == TrialState.WAITING:
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        config, number = self.config, self.number
        fixed = given(config, number, self._trials)
        self.is_given = fixed is not None
        if fixed is not None and fixed.seeds != number:
            self.study._storage.set_trial_user_attr(trial_id, SEEDS_OF, fixed.seeds)
        drawing = Drawing(self.study, trial_id, config, number)
        if fixed is not None:
            return drawing.ask(fixed.knobs)
        return drawing.ask(filtered(drawing, self.device, self.progress.note))

    def _know(self) -> _Known | Failure:
        """Return the network that the knobs stand for, which is recorded, or why there is none."""
        try:
            member = self.config.space.member(self.trial.params)
            cost, digest = network_cost(member.spec), network_hash(member.spec)
            self._record_member(member, cost, digest)
            if self.config.prefilter is not None and PROXIES_OF not in self.trial.user_attrs:
                seeds = self.trial.user_attrs.get(SEEDS_OF, self.number)
                self._record(PROXIES_OF, recorded_proxies(self.config, member, seeds, self.device))
            return _Known(member, cost, twin_of(digest, self.number, self._trials()))
        except LeaseLostError:
            raise
        except Exception as error:
            return failure_of(error)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def run(self) -> None:
        outcome = self.known if isinstance(self.known, Failure) else self._reach(self.known)
        if isinstance(outcome, Failure):
            _free_memory(self.device)
            self._fail(outcome, None if isinstance(self.known, Failure) else self.known.cost)
            return
        self.lease.check()
        with self.storage.together():
            self._record_outcome(outcome)
            self.study.tell(self.trial, [outcome.value(name) for name in self.config.objectives])
        self.progress.trial_ended(self.number, outcome)

    # ---- what the network reaches ------------------------------------------------------------------

    def _reach(self, known: _Known) -> Outcome | Failure:
        """Return what a network reaches, or why nothing: not the error, which holds the network."""
        try:
            self.progress.trial_started(self.number, known.member)
            return self._outcome(*known)
        except (LeaseLostError, StudyError):
            raise
        except LimitError as error:
            return error.failure
        except Exception as error:
            return failure_of(error)

    def _outcome(self, member: Member, cost: NetworkCost, twin: FrozenTrial | None) -> Outcome:
        """Return what a network reaches: known from its twin, or by training it."""
        if twin is not None:
            self._record(TWIN, twin.number)
            if self.config.duplicates == "reuse" and PRUNED not in self.trial.user_attrs:
                self._check_limits(member, cost, twin.user_attrs.get(MEASURED))
                self._record(SEEDS_OF, twin.user_attrs.get(SEEDS_OF, twin.number))
                self._record("environment", twin.user_attrs["environment"])
                return outcome_of(twin, cost)
        self._check_limits(member, cost)
        self.stop = self._stop(cost)
        return self._train(member)._replace(pruned=self.stop.why)

    def _check_limits(self, member: Member, cost: NetworkCost, known: dict[str, float] | None = None) -> None:
        """Refuse a network that costs too much on this machine, by what is recorded, known or measured."""
        limits = self.config.constraints
        if not limits.bounds():
            return
        measured = self.trial.user_attrs.get(MEASURED) or known
        if measured is None:
            measured = measure(member.spec, cost, self.config.train, limits, self.device)
        with self.storage.together():
            self._record(MEASURED, measured)
            for name, value in limits.violations(measured).items():
                self._constrain(name, value)
        limits.check(measured)

    def _stop(self, cost: NetworkCost) -> Stop:
        """Return what may prune the trial; one that the study itself asks for is trained to its end."""
        prunes = self.config.pruner.name != "none" and not self.is_given
        return Stop(
            self.config,
            cost,
            self._trials()[: self.number] if prunes else [],
            self.trial.user_attrs.get(PRUNED),
            lambda why: self._record(PRUNED, why),
        )

    def _train(self, member: Member) -> Outcome:
        try:
            with checkpoint_warnings_told(self.progress.note):
                return self._evaluate(member)
        except CheckpointError as error:
            differs = ", ".join(error.differs)
        except TrainError as error:
            if str(error).startswith(f"{self.checkpoint}:"):  # of the directory, not of the trial
                raise StudyError(str(error)) from error
            raise
        self.progress.note(f"trial {self.number}: starts over, as its checkpoint differs in {differs}")
        self.checkpoint.unlink(missing_ok=True)
        return self._evaluate(member)

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
        self.stop(record)

    # ---- the record --------------------------------------------------------------------------------

    def _record(self, name: str, value: Any) -> None:
        """Set an attribute of the trial, unless it has this value already."""
        if self.storage.get_trial(self.trial._trial_id).user_attrs.get(name) != value:
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
        if VAL_IOU_ERROR in self.config.objectives:
            self._record(VAL_IOU_ERROR, result.val_iou_error)
        self._record("seconds", result.seconds)
        if "environment" not in self.trial.user_attrs:
            self._record("environment", environment(self.device, self.config.train.threads))
        if result.diverged:
            self._record("reason", DIVERGED)
            self._constrain(DIVERGED, 1.0)

    def _fail(self, failure: Failure, cost: NetworkCost | None) -> None:
        self.lease.check()
        with self.storage.together():
            self._record("reason", failure.reason)
            self._record("error", failure.detail)
            self._record("environment", environment(self.device, self.config.train.threads))
            if not any(value > 0 for value in self.trial.constraints.values()):
                self._constrain(FAILED, 1.0)
            self.study.tell(self.trial, worst_values(self.config, cost, self._trials()))
        self.progress.trial_ended(self.number, str(failure))

    def _constrain(self, name: str, value: float) -> None:
        if name not in self.trial.constraints:  # set already, if the trial was cut off right here
            self.trial.set_constraint(name, value)


def _free_memory(device: str) -> None:
    """Give back what a failed training held, for the next one."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
