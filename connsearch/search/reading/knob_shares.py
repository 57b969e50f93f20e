"""How much of the spread of some values each knob explains, by the estimators of Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from connsearch.errors import StudyError
from connsearch.search.choices import values as values_of
from connsearch.search.layouts import NUMBERS, has_block
from connsearch.search.reading.equal_macs import Values
from connsearch.search.samplers import distributions
from connsearch.search.shapes import has_number

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.importance import BaseImportanceEvaluator
    from optuna.trial import FrozenTrial

    from connsearch.search.space import SearchSpace

METHODS = ("fanova", "ped-anova")
Shares = dict[str, float | None]

N_TREES, _N_TREES_AGAIN = 64, 16
_DEPTH = 5  # what a knob explains alone needs no deeper trees, and chance fills them
_TOP = 0.2  # of the trials are the good ones of PED-ANOVA
_FEWEST = 5  # trials that have a knob


@dataclass(frozen=True)
class Sample:
    """Trials as an estimator sees them.

    Attributes:
        knobs: The distribution of each searched knob.
        params: For each trial, the value of each knob.
        applies: For each knob, which trials' networks depend on it.
        values: One for each trial, less is better.
    """

    knobs: dict[str, BaseDistribution]
    params: tuple[dict[str, Any], ...]
    applies: dict[str, npt.NDArray[np.bool_]]
    values: Values

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], space: SearchSpace, values: Values) -> Sample:
        """Return the sample of trials of a study on a space.

        Raises:
            StudyError: if nothing is searched.
        """
        knobs = {name: knob for name, knob in distributions(space.knobs()).items() if not knob.single()}
        if not knobs:
            raise StudyError("the study searches no knob: there is no importance")
        params = tuple({name: trial.params[name] for name in knobs} for trial in trials)
        where = {name: np.array([applies(name, p, space) for p in params], dtype=np.bool_) for name in knobs}
        return cls(knobs, params, where, values)

    def take(self, rows: npt.NDArray[Any]) -> Sample:
        """Return some of the trials, which may repeat."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        where = {name: mask[rows] for name, mask in self.applies.items()}
        return Sample(self.knobs, tuple(self.params[row] for row in rows), where, self.values[rows])

    def with_values(self, values: Values) -> Sample:
        """Return the same trials with other values."""
        return replace(self, values=values)

    def study(self, *, conditional: bool) -> Study:
        """Return a study in memory that minimises the values.

        Args:
            conditional: Whether a trial lacks the knobs that do not apply to it.
        """
        import optuna
        from optuna.storages import InMemoryStorage
        from optuna.trial import create_trial

        storage = InMemoryStorage()
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each study otherwise
        try:
            key = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "sample")
        finally:
            optuna.logging.set_verbosity(verbosity)
        for row, (params, value) in enumerate(zip(self.params, self.values, strict=True)):
            names = [name for name in self.knobs if self.applies[name][row] or not conditional]
            known = {name: self.knobs[name] for name in names}
            given = {name: params[name] for name in names}
            storage.create_new_trial(key, create_trial(params=given, distributions=known, value=float(value)))
        return optuna.load_study(study_name="sample", storage=storage)


def applies(knob: str, params: Mapping[str, Any], space: SearchSpace) -> bool:
    """Return whether a network depends on a knob, given all of its knobs.

    Knobs of the third block matter to networks of three blocks, transitions to those of two, what is
    carried to a later resolution to those whose topology spans all blocks, as do hubs; compression to those
    that concatenate.
    """
    count = params.get("count", values_of(space.blocks.count)[0])
    if knob in ("transition", "up"):
        return bool(count > 1)
    if knob == "carry":
        return bool(count > 1 and params.get("scope", values_of(space.scope)[0]) == "global")
    if knob in NUMBERS:
        return has_number(space, knob, params)
    return has_block(knob, space.layout, count)


# ---- estimates -------------------------------------------------------------------------------------------


def shares_of(sample: Sample, method: str, seed: int, n_trees: int = N_TREES) -> Shares:
    """Return the share of each knob, for PED-ANOVA its divergence; None where too few trials have it.

    fANOVA sees all knobs of all trials, for all are drawn. A knob that applies only to some trials is judged
    by those, and its share counts for their part of the whole variance.
    """
    if float(np.var(sample.values)) == 0:
        return dict.fromkeys(sample.knobs, 0.0)
    if method == "ped-anova":
        return _ped_anova(sample)
    found = _fanova(sample, seed, n_trees)
    for name, mask in sample.applies.items():
        if not mask.all():
            found[name] = _share_where_it_applies(sample, name, seed, n_trees)
    return found


def _share_where_it_applies(sample: Sample, knob: str, seed: int, n_trees: int) -> float | None:
    mask = sample.applies[knob]
    some = sample.take(mask)
    variance = float(np.var(some.values)) if mask.sum() >= _FEWEST else 0.0
    if variance == 0:
        return 0.0 if mask.sum() >= _FEWEST else None
    part = float(mask.mean()) * variance / float(np.var(sample.values))
    share = _fanova(some, seed, n_trees)[knob]
    return None if share is None else share * part


def _fanova(sample: Sample, seed: int, n_trees: int) -> Shares:
    from optuna.importance import FanovaImportanceEvaluator

    evaluator = FanovaImportanceEvaluator(n_trees=n_trees, max_depth=_DEPTH, seed=seed)
    return _evaluated(evaluator, sample.study(conditional=False))


def _ped_anova(sample: Sample) -> Shares:
    """Return how far the distribution of each knob among the best fifth is from that among all."""
    from optuna.importance import PedAnovaImportanceEvaluator

    evaluator = PedAnovaImportanceEvaluator(target_quantile=_TOP)
    found = _evaluated(evaluator, sample.study(conditional=True))
    few = {name for name, mask in sample.applies.items() if mask.sum() < _FEWEST}
    return {name: None if name in few else found.get(name, 0.0) for name in sample.knobs}


def over(shares: Shares, total: float) -> Shares:
    """Return divergences as shares of a total, 0 of none."""
    return {
        name: None if share is None else (share / total if total > 0 else 0.0)
        for name, share in shares.items()
    }


def total_of(shares: Shares) -> float:
    """Return the sum of what is known."""
    return sum(share for share in shares.values() if share is not None)


def _evaluated(evaluator: BaseImportanceEvaluator, study: Study) -> Shares:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about few trials and what is experimental: the caller says so
        return {name: float(share) for name, share in evaluator.evaluate(study).items()}


def bootstrapped(sample: Sample, method: str, seed: int, n: int) -> list[Shares]:
    """Return the shares in samples of as many trials, drawn from the trials with replacement."""
    rng, size = np.random.default_rng([seed, 0]), len(sample.values)
    return [
        shares_of(sample.take(rng.integers(size, size=size)), method, seed + i, _N_TREES_AGAIN)
        for i in range(n)
    ]


def dealt(sample: Sample, method: str, seed: int, n: int) -> list[Shares]:
    """Return the shares when values are dealt out to the trials at random: what chance explains."""
    rng = np.random.default_rng([seed, 1])
    return [
        shares_of(sample.with_values(rng.permutation(sample.values)), method, seed + i, _N_TREES_AGAIN)
        for i in range(n)
    ]


def predicted(sample: Sample, seed: int) -> float:
    """Return R2 of a forest of the knobs in five-fold cross validation; 0 or less: it predicts nothing."""
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    if float(np.var(sample.values)) == 0:
        return 0.0
    knobs = pd.get_dummies(pd.DataFrame(list(sample.params))).to_numpy(dtype=np.float64)
    forest = RandomForestRegressor(n_estimators=N_TREES, max_depth=_DEPTH, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return float(r2_score(sample.values, cross_val_predict(forest, knobs, sample.values, cv=folds)))
