"""Drawing a trial's knobs: all in memory, then recorded in one write, so that a kill leaves all or none."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from connsearch.search.samplers import distributions, make_sampler
from connsearch.search.seeds import stream_seed
from connsearch.search.transfer.prior import seen_by

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from connsearch.search.config import StudyConfig

FIXED = "fixed_params"
"""Optuna's attribute for parameters that are given instead of drawn, such as those of enqueued trials."""


class Drawing:
    """A trial's knobs, before they are known.

    Args:
        study: The record.
        trial_id: The trial's key in its storage.
        config: The study's configuration.
        number: The trial's number.
    """

    def __init__(self, study: optuna.Study, trial_id: int, config: StudyConfig, number: int) -> None:
        self.study, self.trial_id, self.config, self.number = study, trial_id, config, number
        self.knobs = distributions(config.space.knobs())
        self.frozen = study._storage.get_trial(trial_id)
        self.recorded = {**self.frozen.system_attrs.get(FIXED, {}), **self.frozen.params}
        self._seen: optuna.Study | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether all knobs are on record, from an attempt that was cut off."""
        return self.knobs.keys() <= self.recorded.keys()

    def ask(self, fixed: Mapping[str, Any]) -> Trial:
        """Return a running trial with all knobs: recorded, given, or drawn."""
        from optuna.trial import Trial

        if not self.is_recorded:
            known = {**fixed, **self.recorded}
            if self.knobs.keys() <= known.keys():
                _join_generation(self._sampler(0), self._study_seen(), self.frozen)
            else:
                known = {**self.draw(), **known}
            self.study._storage.set_trial_system_attr(self.trial_id, FIXED, known)
        self.study.sampler = self._sampler(0)
        trial = Trial(self.study, self.trial_id)
        for name, distribution in self.knobs.items():
            suggest(trial, name, distribution)
        return trial

    def draw(self, candidate: int = 0) -> dict[str, Any]:
        """Return a value for each knob, drawn by a fresh sampler: it follows from seed and finished trials.

        Args:
            candidate: Which of several draws; 0 is what is drawn where there is but one.
        """
        return _draw(self._study_seen(), self._sampler(candidate), self.frozen, self.knobs)

    def _sampler(self, candidate: int) -> BaseSampler:
        seed = stream_seed(self.config.seed, self.number, "sampler", candidate)
        sampler = make_sampler(self.config.sampler, seed)
        _go_on_reading(self.study, sampler)
        return sampler

    def _study_seen(self) -> optuna.Study:
        """Return what samplers see of the study, as it is now."""
        if self._seen is None:
            self.study._thread_local.cached_all_trials = None  # as `Study.ask` does
            self._seen = seen_by(self._sampler(0), self.study, self.config, self.knobs)
        return self._seen


_READ: weakref.WeakKeyDictionary[optuna.Study, dict[str, Any]] = weakref.WeakKeyDictionary()
"""What a study's samplers found in its trials, by the attribute that they keep it in."""


def _go_on_reading(study: optuna.Study, sampler: BaseSampler) -> None:
    """Let a fresh sampler look for the knobs that all trials have in new trials only, as an old one would.

    Comparing the distributions of all trials anew is a third of what a draw takes after a thousand.
    """
    from optuna.search_space import IntersectionSearchSpace

    kept = _READ.setdefault(study, {})
    for name, value in vars(sampler).items():
        if isinstance(value, IntersectionSearchSpace):
            setattr(sampler, name, kept.setdefault(name, value))


def _draw(
    study: optuna.Study, sampler: BaseSampler, frozen: FrozenTrial, knobs: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """Return a value for each knob, as `optuna.Trial` would draw them one by one, and record none."""
    trial = copy.copy(frozen)
    trial.params, trial.distributions = {}, {}
    sampler.before_trial(study, trial)
    space = sampler.infer_relative_search_space(study, trial)
    _join_generation(sampler, study, trial)
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


def _join_generation(sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> None:
    """Make a trial a member of its generation, where the sampler has some, whoever gives its knobs.

    The parents of a generation are remembered by the first that asks for them, who gets them in another order
    than all others: so they are asked for once before they are used.
    """
    from optuna.samplers._ga import BaseGASampler

    if isinstance(sampler, BaseGASampler):
        sampler.get_parent_population(study, sampler.get_trial_generation(study, trial))


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
