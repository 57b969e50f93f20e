"""The prior: how do results of another study reach the sampler, and what are they worth beside our own?

Samplers read trials through their study. They are handed a view of it that has the other study's trials in
front, as if they had been here: with this study's knobs, the exact cost that their networks have here, and
errors made comparable. The record is not touched, so these trials count nowhere else.

At another budget, or after another training, errors are lower or higher as a whole. What carries over is who
was better than whom: `comparable` keeps that order, and only moves the errors to where this study's own are.
The more trials this study has itself, the fewer of the others are shown: docs/decisions/0013-transfer.md.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from connsearch.search.failures import reached
from connsearch.search.measures import error_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from connsearch.search.config import StudyConfig
    from connsearch.search.transfer.warm_start import EarlierTrial

Floats = npt.NDArray[np.float64]
_LEAST_ERROR = 1e-3
"""Errors are taken to lie between this and 1 minus this, where logits are finite."""


class View(optuna.Study):
    """A study for a sampler to read: its own trials, and others in front of them."""

    _others: list[FrozenTrial]

    @classmethod
    def of(cls, study: optuna.Study, others: Sequence[FrozenTrial]) -> View:
        """Return a view of a study, which writes to the study itself."""
        view = cls.__new__(cls)
        view.__dict__.update(study.__dict__, _others=list(others))
        return view

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        own = super()._get_trials(deepcopy, states, use_cache)
        return [*(trial for trial in self._others if states is None or trial.state in states), *own]


def seen_by(
    sampler: BaseSampler,
    study: optuna.Study,
    config: StudyConfig,
    knobs: Mapping[str, BaseDistribution],
) -> optuna.Study:
    """Return what a sampler is to see of a study: the study, or a view of it with the prior."""
    warm = config.warm_start
    if warm is None or not warm.prior or warm.earlier is None:
        return study
    own = [trial for trial in study._get_trials(deepcopy=False, use_cache=True) if reached(trial)]
    errors = [trial.user_attrs[error_of(config.objectives)] for trial in own]
    others = prior_trials(
        warm.earlier.trials, own, errors, objectives=list(config.objectives), knobs=knobs, sampler=sampler
    )
    return View.of(study, others)


def prior_trials(
    earlier: Sequence[EarlierTrial],
    own: Sequence[FrozenTrial],
    errors: Sequence[float],
    *,
    objectives: Sequence[str],
    knobs: Mapping[str, BaseDistribution],
    sampler: BaseSampler,
) -> list[FrozenTrial]:
    """Return earlier trials as a sampler may see them besides the study's own.

    To a genetic algorithm they are the first generation. To all others each trial of the study's own takes
    the place of one of them, those that were trained again first.

    Args:
        earlier: Trials of another study in this one's terms.
        own: Trials of this study that reached something.
        errors: The error of each of these.
        objectives: Names of this study's objectives.
        knobs: Distributions of its knobs.
        sampler: Who is to see them.
    """
    from optuna.samplers._ga import BaseGASampler

    moved = comparable(earlier, own, errors)
    genetic = isinstance(sampler, BaseGASampler)
    generation = {sampler._get_generation_key(): 0} if isinstance(sampler, BaseGASampler) else {}
    shown = []
    for index in range(0 if genetic else min(len(own), len(earlier)), len(earlier)):
        values = {**earlier[index].counted, error_of(objectives): moved[index]}
        trial = create_trial(
            values=[values[name] for name in objectives],
            params=dict(earlier[index].knobs),
            distributions=dict(knobs),
            system_attrs=generation,
        )
        trial.number = trial._trial_id = index - len(earlier)  # before all of the study's own
        shown.append(trial)
    return shown


def comparable(
    earlier: Sequence[EarlierTrial], own: Sequence[FrozenTrial], errors: Sequence[float]
) -> list[float]:
    """Return what the errors of earlier trials would be here: their logits, moved by one number.

    That is the median difference of the designs that were trained in both studies; while there is none, the
    difference of the medians of all; before the first own trial, none.
    """
    there = np.array([trial.error for trial in earlier], float)
    if not own or not earlier:
        return [trial.error for trial in earlier]
    known = {_key(trial.knobs): trial.error for trial in earlier}
    here = np.array(errors, float)
    pairs = [
        (known[_key(trial.params)], error)
        for trial, error in zip(own, errors, strict=True)
        if _key(trial.params) in known
    ]
    if pairs:
        before, after = np.array(pairs, float).T
        shift = np.median(_logit(after) - _logit(before))
    else:
        shift = np.median(_logit(here)) - np.median(_logit(there))
    return [float(error) for error in 1 / (1 + np.exp(-(_logit(there) + shift)))]


def _key(knobs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(knobs.items()))


def _logit(errors: Floats) -> Floats:
    inside = np.clip(errors, _LEAST_ERROR, 1 - _LEAST_ERROR)
    return np.asarray(np.log(inside / (1 - inside)))
