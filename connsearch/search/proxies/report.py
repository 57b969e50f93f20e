"""Do zero-cost proxies order a study's errors, and better than multiply-accumulates do?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from connsearch.errors import StudyError
from connsearch.files import write_whole
from connsearch.memory import release
from connsearch.search.failures import reached
from connsearch.search.measures import compared_error
from connsearch.search.proxies.correlation import FEWEST, Estimate, estimate, kendall, lead, partial, spearman
from connsearch.search.proxies.prefilter import verdict_on
from connsearch.search.proxies.scores import PROXIES, measure_proxies
from connsearch.search.seeds import SEEDS_OF
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.text import table

if TYPE_CHECKING:
    import pandas as pd

_RIVALS = ("macs", "params")


class ProxyStanding(NamedTuple):
    """How well one number orders the errors of a study. Correlations are with the error: good is near -1.

    Attributes:
        proxy: Its name.
        trials: How many trials it has a finite value of.
        spearman, kendall: Over all trials.
        partial: Spearman's rho with MACs held equal.
        near: Kendall's tau over pairs whose MACs differ by less than a tenth.
        lead: By how much its rho is better than that of MACs, on the same trials.
    """

    proxy: str
    trials: int
    spearman: Estimate
    kendall: Estimate
    partial: Estimate
    near: Estimate
    lead: Estimate

    @property
    def beats_macs(self) -> bool:
        """Whether the 95 % interval of the lead is above 0."""
        return self.lead.low > 0


@dataclass(frozen=True)
class ProxyReport:
    """Proxies of a study's trials, and how they order its errors.

    Attributes:
        trials: A row for each trial that reached something: trial, val_error, macs, params, each proxy.
        standings: For each of these numbers how well it does, MACs first.
        picked: Trials that the study's own pre-filter picked.
    """

    trials: pd.DataFrame = field(repr=False)
    standings: tuple[ProxyStanding, ...]
    picked: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; what is not known is None."""
        return {
            "trials": len(self.trials),
            "proxies": [
                {
                    "proxy": standing.proxy,
                    "trials": standing.trials,
                    **{name: _plain(getattr(standing, name)) for name in _ESTIMATES},
                    "beats_macs": standing.beats_macs,
                }
                for standing in self.standings
            ],
            "picked": list(self.picked),
        }

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the table of trials.

        Raises:
            ConnsearchError: if the file cannot be written.
        """
        write_whole(path, self.trials.to_csv(index=False).encode())

    def __str__(self) -> str:
        """Return a table of correlations, and who beats MACs in words."""
        header = ["", "trials", "Spearman", "Kendall", "at equal MACs", "near in MACs", "lead over MACs"]
        rows = [
            [each.proxy, str(each.trials), *(_words(getattr(each, name)) for name in _ESTIMATES)]
            for each in self.standings
        ]
        better = [each.proxy for each in self.standings if each.beats_macs]
        lines = [
            f"rank correlation with val_error over {len(self.trials)} trials [95 % interval]; best is -1",
            table(header, rows, left=["", *header[2:]]),
            f"clearly better than MACs: {', '.join(better) or 'none'}",
        ]
        if self.picked:
            lines.append(f"the study's pre-filter picked {len(self.picked)} trials from {self.picked[0]} on")
        return "\n".join(lines)


_ESTIMATES = ("spearman", "kendall", "partial", "near", "lead")


def compare_proxies(
    study: Study,
    names: Sequence[str] = tuple(PROXIES),
    *,
    device: str = "cpu",
    on_trial: Callable[[int, int], None] = lambda done, total: None,
) -> ProxyReport:
    """Compute proxies of a study's finished trials and compare them with its errors.

    Each is computed on the trial's network as it was before training: with the same initial weights.

    Args:
        study: The study.
        names: Of the proxies to compute.
        device: Where to compute.
        on_trial: Called after each trial with how many are done, and of how many.

    Raises:
        StudyError: if fewer than ten trials reached something.
        SpecError: if a proxy is unknown.
        OutOfMemoryError, DataError: as `connsearch.search.proxies.scores.measure_proxies`.
    """
    import pandas as pd

    ranked = [trial for trial in study.trials() if reached(trial)]
    if len(ranked) < FEWEST:
        raise StudyError(
            f"{study.directory}: {len(ranked)} trials can be ranked, correlations need {FEWEST}: run more"
        )
    rows = []
    for done, trial in enumerate(ranked, start=1):
        attrs = trial.user_attrs
        found = measure_proxies(
            NetworkSpec.from_dict(attrs["network"]),
            study.config.train,
            names,
            study_seed=study.config.seed,
            trial=attrs.get(SEEDS_OF, trial.number),
            device=device,
        )
        release()
        cost = {name: attrs["cost"][name] for name in _RIVALS}
        rows.append({"trial": trial.number, "val_error": compared_error(attrs), **cost, **found})
        on_trial(done, len(ranked))
    frame = pd.DataFrame(rows).astype(dict.fromkeys(names, float))
    picked = [trial.number for trial in ranked if (verdict_on(trial) or {}).get("picks", False)]
    return report_of(frame, tuple(picked))


def report_of(frame: pd.DataFrame, picked: tuple[int, ...] = ()) -> ProxyReport:
    """Return the report on a table of trials.

    Args:
        frame: Columns `trial`, `val_error`, `macs` and one for each number that is to be judged; NaN where it
            is not known.
        picked: Trials that a pre-filter picked.
    """
    judged = ["macs", *(name for name in frame.columns if name not in ("trial", "val_error", "macs"))]
    return ProxyReport(frame, tuple(_standing(frame, name) for name in judged), picked)


def _standing(frame: pd.DataFrame, name: str) -> ProxyStanding:
    known = frame[np.isfinite(frame[name].to_numpy(float))]
    proxy, macs, error = (known[column].to_numpy(float).tolist() for column in (name, "macs", "val_error"))
    return ProxyStanding(
        name,
        len(known),
        spearman=estimate(spearman, proxy, error),
        kendall=estimate(kendall, proxy, error),
        partial=estimate(partial, proxy, error, macs),
        near=estimate(kendall, proxy, error, macs),
        lead=estimate(lead, proxy, macs, error),
    )


def _plain(found: Estimate) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in found._asdict().items()}


def _words(found: Estimate) -> str:
    if not math.isfinite(found.value):
        return "-"
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
