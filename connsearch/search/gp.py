"""The Gaussian process sampler, given constraints that not all trials have.

Optuna's takes them only if every trial has the same ones. Ours differ: a trial that failed says so, one that
did not says nothing. So it is shown a single one, the violation of all together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from optuna.samplers import GPSampler

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

CLEAR = -1.0
"""The violation of a trial without constraints, as far below 0 as one that failed is above."""


class ViolationGPSampler(GPSampler):
    """`optuna.samplers.GPSampler` for studies whose trials have unlike constraints."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values for all knobs together; see Optuna."""
        return super().sample_relative(cast("optuna.Study", _View(study)), trial, search_space)


class _View:
    """A study whose trials have a single constraint each, or none at all where none is violated."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, **which: Any) -> list[FrozenTrial]:
        trials = self._study._get_trials(**which)
        violations = {trial.number: violation(trial.constraints) for trial in trials}
        constrained = any(value > 0 for value in violations.values())
        return [_with(trial, violations[trial.number] if constrained else None) for trial in trials]


def violation(constraints: Mapping[str, float]) -> float:
    """Return the sum of what is violated; else how near the nearest bound is, 0 or less.

    >>> violation({"failed": 1.0, "inference_ms": -0.5}), violation({"inference_ms": -0.5}), violation({})
    (1.0, -0.5, -1.0)
    """
    over = sum(value for value in constraints.values() if value > 0)
    return over if over > 0 else max(constraints.values(), default=CLEAR)


def _with(trial: FrozenTrial, value: float | None) -> FrozenTrial:
    other = copy.copy(trial)
    kept = {key: v for key, v in trial.system_attrs.items() if not key.startswith("constraints")}
    other.system_attrs = kept if value is None else {**kept, "constraints:violation": value}
    return other
