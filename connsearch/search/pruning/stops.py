"""Stops: ends a running trial when the study's pruner says so, and keeps why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from connsearch.cost import NetworkCost
from connsearch.search.failures import DIVERGED, failed
from connsearch.search.measures import ERRORS, epoch_error, error_of
from connsearch.search.pruning.rules import PRUNED, Curve, Pruned, make_pruner
from connsearch.train.result import EpochRecord, StopTraining

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig


class Stop:
    """Called after each epoch of a trial; ends it when the pruner says so.

    What it decides depends on the configuration, on the trial's own curve and on the trials that were
    given to it. A decision is recorded before the training ends, and a later attempt holds to it.

    Args:
        config: The study's configuration.
        cost: Of the trial's network.
        earlier: Trials that were finished when this one began.
        recorded: What an earlier attempt recorded under `PRUNED`, if it did.
        record: Records why.
    """

    def __init__(
        self,
        config: StudyConfig,
        cost: NetworkCost,
        earlier: Sequence[FrozenTrial],
        recorded: Mapping[str, Any] | None,
        record: Callable[[dict[str, Any]], None],
    ) -> None:
        self.rule, self.error = make_pruner(config.pruner, config.train.epochs), error_of(config.objectives)
        self.peers = curves_of(earlier, config.objectives)
        self.curve = Curve(cost.macs, (), _costs(config.objectives, lambda name: float(getattr(cost, name))))
        self.why = Pruned(**recorded) if recorded is not None else None
        self._fixed, self._record = recorded is not None, record

    def __call__(self, record: EpochRecord) -> None:
        """Take an epoch.

        Raises:
            StopTraining: if it is the last one.
        """
        errors = (*self.curve.errors[: record.epoch - 1], epoch_error(record.to_dict(), self.error))
        self.curve = Curve(self.curve.macs, errors, self.curve.costs)
        if not self._fixed:
            self.why = self.rule(self.curve, self.peers)
            if self.why is not None:
                self._record(self.why.to_dict())
        if self.why is not None and record.epoch >= self.why.epoch:
            raise StopTraining


def curves_of(trials: Sequence[FrozenTrial], objectives: Mapping[str, str]) -> list[Curve]:
    """Return what a pruner knows of finished trials, in their order; nothing of those that failed."""
    curves, error = [], error_of(objectives)
    for trial in trials:
        if trial.state.name != "COMPLETE" or failed(trial) or "curve" not in trial.user_attrs:
            continue
        values = dict(zip(objectives, trial.values, strict=True))
        errors = tuple(epoch_error(epoch, error) for epoch in trial.user_attrs["curve"])
        diverged, pruned = DIVERGED in trial.constraints, PRUNED in trial.user_attrs
        curves.append(
            Curve(
                trial.user_attrs["cost"]["macs"],
                errors,
                _costs(objectives, values.__getitem__),
                "diverged" if diverged else "pruned" if pruned else "whole",
            )
        )
    return curves


def _costs(objectives: Mapping[str, str], value: Callable[[str], float]) -> tuple[float, ...]:
    """Return the objectives other than errors as losses."""
    return tuple(
        value(name) if way == "minimize" else -value(name)
        for name, way in objectives.items()
        if name not in ERRORS
    )
