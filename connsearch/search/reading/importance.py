"""Which knobs matter: how much of what trials reach each of them explains, also at equal MACs.

The estimates are Optuna's: fANOVA (Hutter et al., 2014: the share of the variance of a random forest that
a knob explains alone) or PED-ANOVA (Watanabe et al., 2023: what the best trials have in common). Values are
taken as ranks, so that a few networks that did not train are not all of the spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from connsearch.errors import StudyError, did_you_mean
from connsearch.search.failures import reached
from connsearch.search.measures import VAL_ERROR
from connsearch.search.reading.equal_macs import Values, explained_by_macs, ranks, standing
from connsearch.search.reading.knob_shares import (
    METHODS,
    Sample,
    Shares,
    bootstrapped,
    dealt,
    over,
    predicted,
    shares_of,
    total_of,
)
from connsearch.search.reading.records import COUNTED, network_row
from connsearch.text import table

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig

LEAST_TRIALS = 10
_PLENTY = 10  # trials for each knob


@dataclass(frozen=True)
class KnobImportance:
    """How much one knob matters.

    Attributes:
        knob: Its name.
        share: Of the explained spread, by this knob alone; None where too few trials have the knob.
        low: Of the shares in bootstraps over trials, 5 % are below.
        high: 5 % are above.
        chance: What 95 % of shares do not exceed if values are dealt out to the trials at random.
        applies: Number of trials whose networks depend on the knob.
    """

    knob: str
    share: float | None
    low: float | None
    high: float | None
    chance: float | None
    applies: int

    @property
    def stands_out(self) -> bool:
        """Whether even a low estimate is above chance."""
        return self.low is not None and self.chance is not None and self.low > self.chance


@dataclass(frozen=True)
class Importance:
    """How much each knob of a study matters for an objective.

    Attributes:
        objective: Which one.
        at_equal_macs: Whether the effect of MACs was taken out before.
        method: "fanova" or "ped-anova".
        n_trials: How many trials could be ranked.
        predicted: Share of the spread of trials that a forest of the knobs predicts which has not seen
            them, in five-fold cross validation; 0 or less: nothing.
        by_macs: Share of the spread of the objective that MACs alone predict.
        knobs: The most important first.
    """

    objective: str
    at_equal_macs: bool
    method: str
    n_trials: int
    predicted: float
    by_macs: float
    knobs: tuple[KnobImportance, ...]

    @property
    def warning(self) -> str:
        """Why the order of the knobs may be chance; empty if nothing says so."""
        reasons = []
        if self.n_trials < _PLENTY * len(self.knobs):
            reasons.append(f"{self.n_trials} trials are few for {len(self.knobs)} knobs")
        if self.predicted < 0.1:
            reasons.append("the knobs predict next to nothing of trials not seen")
        if not any(knob.stands_out for knob in self.knobs):
            reasons.append("no knob stands out from chance")
        return f"unreliable: {'; '.join(reasons)}" if reasons else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        knobs = [asdict(knob) | {"stands_out": knob.stands_out} for knob in self.knobs]
        return asdict(self) | {"knobs": knobs, "warning": self.warning}

    def __str__(self) -> str:
        """Return a row for each knob, the most important first."""
        where = " at equal MACs" if self.at_equal_macs else ""
        rest = "; the rest is looked at here" if self.at_equal_macs else ""
        rows = [
            [
                k.knob,
                _percent(k.share),
                f"{_percent(k.low)} to {_percent(k.high)}",
                _percent(k.chance),
                *_marks(k),
            ]
            for k in self.knobs
        ]
        header = ["knob", "share", "90 % of bootstraps", "chance", "applies", ""]
        lines = [
            f"importance of knobs for {self.objective}{where} ({self.method}, {self.n_trials} trials)",
            f"MACs alone predict {_percent(self.by_macs)} of the spread{rest}; "
            f"the knobs predict {_percent(max(0.0, self.predicted))} of it in trials not seen",
            table(header, rows, left=["knob", ""]),
        ]
        return "\n".join([*lines, *([self.warning] if self.warning else [])])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _marks(knob: KnobImportance) -> tuple[str, str]:
    return str(knob.applies), "above chance" if knob.stands_out else ""


def importance_of(
    trials: Sequence[FrozenTrial],
    config: StudyConfig,
    objective: str = "val_error",
    *,
    at_equal_macs: bool = False,
    method: str = "fanova",
    n_resamples: int = 40,
    seed: int = 0,
) -> Importance:
    """Return how much each knob matters for an objective.

    At equal MACs: widths are solved from the budget, so the budget is what errors depend on most, and a
    sampler that learns draws some topologies more at some budgets: what a knob seems to explain may be
    the budget's doing. Therefore each trial's value is replaced by its standing among trials of about
    the same MACs (`equal_macs.standing`) before the knobs are asked to explain it. `macs_budget` stays
    among them as a check: its share should be that of chance. Where a sampler ties a knob to the budget
    closely, the line takes some of the knob's effect with it: shares are then too small, not too large.

    A knob that applies only to some networks (the depth of a third block) is judged by fANOVA on those,
    and its share is counted for their part of the whole variance (law of total variance); PED-ANOVA
    knows such knobs itself.

    Args:
        trials: The study's trials; those that failed, diverged or were pruned are left out.
        config: Its configuration.
        objective: One of the study's, `val_error`, or anything counted of a network: `macs`, `params`,
            `inference_bytes`, `training_bytes`.
        at_equal_macs: Whether to take the effect of MACs out.
        method: One of `METHODS`.
        n_resamples: Bootstraps, and random deals.
        seed: Of forests and resamples.

    Raises:
        StudyError: if there is no such objective or method, nothing is searched, or fewer than ten trials
            can be ranked.
    """
    if method not in METHODS:
        raise StudyError(f"unknown method {method!r}. {did_you_mean(method, METHODS)}")
    ranked = [trial for trial in trials if reached(trial)]
    way = config.objectives.get(objective, "minimize")
    losses = _losses(ranked, objective, way, tuple(config.objectives))
    macs = np.array([trial.user_attrs["cost"]["macs"] for trial in ranked], dtype=np.float64)
    sample = Sample.of(ranked, config.space, ranks(losses))
    by_macs = explained_by_macs(sample.values, macs)
    if at_equal_macs:
        sample = sample.with_values(standing(sample.values, macs))
    shares = shares_of(sample, method, seed)
    again = bootstrapped(sample, method, seed, n_resamples)
    by_chance = dealt(sample, method, seed, n_resamples)
    if method == "ped-anova":  # divergences: of chance, as shares of what is really there
        total = total_of(shares)
        shares, by_chance = over(shares, total), [over(each, total) for each in by_chance]
        again = [over(each, total_of(each)) for each in again]
    knobs = [
        _summary(name, share, again, by_chance, int(sample.applies[name].sum()))
        for name, share in shares.items()
    ]
    return Importance(
        objective,
        at_equal_macs,
        method,
        len(ranked),
        predicted(sample, seed),
        by_macs,
        tuple(sorted(knobs, key=lambda knob: (-(knob.share or 0.0), knob.knob))),
    )


def _losses(ranked: Sequence[FrozenTrial], objective: str, way: str, names: Sequence[str]) -> Values:
    """Return the value of an objective for each trial, less is better."""
    if len(ranked) < LEAST_TRIALS:
        raise StudyError(
            f"importance needs at least {LEAST_TRIALS} trials that can be ranked, there are {len(ranked)}"
        )
    known = dict.fromkeys([*names, VAL_ERROR, *COUNTED])
    if objective in names:
        found = [trial.values[names.index(objective)] for trial in ranked]
    elif objective == VAL_ERROR:
        found = [trial.user_attrs[VAL_ERROR] for trial in ranked]
    elif objective in COUNTED:
        found = [network_row(trial.user_attrs)[objective] for trial in ranked]
    else:
        raise StudyError(f"no objective {objective!r}. {did_you_mean(objective, known)}")
    return np.array(found, dtype=np.float64) * (1.0 if way == "minimize" else -1.0)


def _summary(
    name: str, share: float | None, again: Sequence[Shares], by_chance: Sequence[Shares], applies: int
) -> KnobImportance:
    low, high = _quantiles(again, name, (0.05, 0.95))
    (chance,) = _quantiles(by_chance, name, (0.95,))
    return KnobImportance(name, share, low, high, chance, applies)


def _quantiles(found: Sequence[Shares], name: str, levels: Sequence[float]) -> list[float | None]:
    """Return quantiles of a knob's share over resamples, None if no resample has enough trials with it."""
    known = [share for each in found if (share := each[name]) is not None]
    return [float(np.quantile(known, level)) if known else None for level in levels]
