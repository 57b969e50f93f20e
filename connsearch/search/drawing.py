"""Drawing a trial's knobs: all in memory, then recorded in one write, so that a kill leaves all or none."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

FIXED = "fixed_params"
"""Optuna's attribute for parameters that are given instead of drawn, such as those of enqueued trials."""


def ask(
    study: optuna.Study,
    trial_id: int,
    sampler: BaseSampler,
    knobs: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
) -> Trial:
    """Return a running trial with all knobs; what is recorded stays, the rest is drawn.

    Args:
        study: The study.
        trial_id: The trial's key in its storage.
        sampler: Who draws; fresh, so that what it draws follows from its seed and the finished trials.
        knobs: What a trial has, in the order of drawing.
        fixed: Values of knobs that are not drawn.
    """
    from optuna.trial import Trial

    study.sampler = sampler
    frozen = study._storage.get_trial(trial_id)
    recorded = {**frozen.system_attrs.get(FIXED, {}), **frozen.params}
    if not knobs.keys() <= recorded.keys():
        known = {**fixed, **recorded}
        drawn = {}
        if not knobs.keys() <= known.keys():
            study._thread_local.cached_all_trials = None  # as `Study.ask` does
            drawn = _draw(study, frozen, knobs)
        study._storage.set_trial_system_attr(trial_id, FIXED, {**drawn, **known})
    trial = Trial(study, trial_id)
    for name, distribution in knobs.items():
        suggest(trial, name, distribution)
    return trial


def _draw(study: optuna.Study, frozen: FrozenTrial, knobs: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return a value for each knob, as `optuna.Trial` would draw them one by one, and write nothing."""
    trial, sampler = copy.copy(frozen), study.sampler
    trial.params, trial.distributions = {}, {}
    sampler.before_trial(study, trial)
    space = sampler.infer_relative_search_space(study, trial)
    together = sampler.sample_relative(study, trial, space)
    for name, distribution in knobs.items():
        if distribution.single():
            value = _only_value(distribution)
        elif name in together and distribution._contains(distribution.to_internal_repr(together[name])):
            value = together[name]
        else:
            value = sampler.sample_independent(study, trial, name, distribution)
        trial.params = {**trial.params, name: value}
        trial.distributions = {**trial.distributions, name: distribution}
    return trial.params


def _only_value(distribution: Any) -> Any:
    from optuna.distributions import CategoricalDistribution

    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def suggest(trial: Trial, name: str, distribution: Any) -> None:
    """Ask for one knob through the public interface, which keeps a value that is already recorded."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        trial.suggest_int(name, low, high, step=distribution.step, log=distribution.log)
    else:
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
