"""Samplers: who proposes the next trial's knobs. A fresh one for each trial, seeded by its number."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from connsearch.errors import SpecError
from connsearch.registry import Ref, Registry
from connsearch.search.choices import AnyOf, Choice, Fixed, IntRange
from connsearch.search.space import label

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SAMPLERS: Registry[Callable[..., Any]] = Registry("sampler")


def make_sampler(ref: Ref, seed: int) -> BaseSampler:
    """Return a fresh Optuna sampler.

    Raises:
        SpecError: if a parameter is out of its range.
    """
    from optuna.exceptions import ExperimentalWarning

    params: dict[str, Any] = SAMPLERS.bind(ref)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE, GP: chosen on purpose
        sampler: BaseSampler = SAMPLERS[ref.name](seed, **params)
    return sampler


@SAMPLERS.register("random")
def random_sampler(seed: int) -> BaseSampler:
    """Every knob on its own, uniformly."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


@SAMPLERS.register("tpe")
def tpe_sampler(seed: int, *, n_startup_trials: int = 10) -> BaseSampler:
    """Tree-structured Parzen estimator over all knobs together; random for the first trials."""
    from optuna.samplers import TPESampler

    _at_least(0, "tpe", n_startup_trials=n_startup_trials)
    return TPESampler(
        seed=seed,
        multivariate=True,
        constant_liar=False,  # what runs elsewhere would make a resumed trial differ
        n_startup_trials=n_startup_trials,
    )


@SAMPLERS.register("nsga2")
def nsga2_sampler(seed: int, *, population_size: int = 20) -> BaseSampler:
    """Genetic algorithm NSGA-II; one generation has `population_size` trials."""
    from optuna.samplers import NSGAIISampler

    _at_least(2, "nsga2", population_size=population_size)
    return NSGAIISampler(seed=seed, population_size=population_size)


@SAMPLERS.register("gp")
def gp_sampler(seed: int, *, n_startup_trials: int = 10) -> BaseSampler:
    """Gaussian process; takes seconds for each trial after the first hundred."""
    from connsearch.search.gp import ViolationGPSampler

    _at_least(0, "gp", n_startup_trials=n_startup_trials)
    return ViolationGPSampler(seed=seed, n_startup_trials=n_startup_trials)


def _at_least(low: int, sampler: str, **params: int) -> None:
    for name, value in params.items():
        if value < low:
            raise SpecError(f"sampler {sampler!r}: {name} must be {low} or more, got {value}")


def distributions(knobs: Mapping[str, Choice]) -> dict[str, BaseDistribution]:
    """Return the knobs as Optuna distributions; a reference is its label."""
    return {name: _distribution(choice) for name, choice in knobs.items()}


def _distribution(choice: Choice) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(choice, AnyOf | Fixed):
        options = choice.values if isinstance(choice, AnyOf) else (choice.value,)
        return CategoricalDistribution([label(value) for value in options])
    if isinstance(choice, IntRange):
        high = choice.high - (choice.high - choice.low) % choice.step
        return IntDistribution(choice.low, high, log=choice.log, step=choice.step)
    return FloatDistribution(choice.low, choice.high, log=choice.log)
