"""The pre-filter: may a zero-cost proxy pick the next network, and which one does it pick?

It may while it proves itself on the study's own finished trials: there it must order errors better than
multiply-accumulates alone do. Then several candidates are drawn, all at the first one's budget, and the one
of the greatest proxy is trained. What was decided, and why, is an attribute of the trial, recorded before it
is acted on.

The proof is asked for anew before each trial. A proxy that is noise has it at one look of a hundred, and at
some look between 20 and 60 trials in 3 to 5 studies of a hundred (measured on 700). What it picks then is one
of the sampler's own candidates, and the next look may end it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from connsearch.config import Config
from connsearch.errors import BudgetError
from connsearch.search.failures import failure_of, reached
from connsearch.search.measures import compared_error

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig
    from connsearch.search.drawing import Drawing
    from connsearch.search.space import Member

PREFILTER = "prefilter"
"""A system attribute of a trial: whether a proxy picked it, and why.

As the knobs it is one of Optuna's, set before them: what a kill leaves of an append has both, or no knobs.
"""
PROXIES_OF = "proxies"
"""An attribute of a trial: its network's proxies by name."""
PROOF = 0.99
"""Level of the interval of its lead that must be above 0 for a proxy to pick."""


class Prefilter(Config):
    """Which proxy picks one of several candidates, once it has proved itself.

    Attributes:
        proxy: Its name, as `connsearch proxies` prints it.
        candidates: How many candidates are drawn for a trial.
        after: From how many finished trials on the proxy is judged. It may pick when its rank correlation
            with the error is better than that of MACs: when the lower end of the 99 % bootstrap interval of
            the difference is above 0, which is asked anew before each trial.
    """

    proxy: Literal["naswot", "synflow", "grad_norm", "snip"] = "naswot"
    candidates: int = Field(4, ge=2)
    after: int = Field(20, ge=10)


class Verdict(NamedTuple):
    """Whether the proxy may pick, and why.

    Attributes:
        proxy: Its name.
        trials: How many finished trials it was judged on.
        lead: Its rank correlation with the error less that of MACs, both counted as falling with the error.
        low, high: The 99 % bootstrap interval of the lead.
        picks: Whether it may pick.
    """

    proxy: str
    trials: int
    lead: float | None
    low: float | None
    high: float | None
    picks: bool

    def __str__(self) -> str:
        """Return it in words."""
        if self.lead is None:
            return f"{self.proxy} does not pick yet: {self.trials} finished trials"
        found = f"lead over MACs {self.lead:+.2f} [{self.low:+.2f}, {self.high:+.2f}] on {self.trials} trials"
        return f"{self.proxy} {'picks' if self.picks else 'does not pick'}: {found}"


def judge(prefilter: Prefilter, trials: Sequence[FrozenTrial]) -> Verdict:
    """Return whether a proxy may pick, from the finished trials among those given."""
    from connsearch.search.proxies.correlation import estimate, lead

    rows = [
        (value, trial.user_attrs["cost"]["macs"], compared_error(trial.user_attrs))
        for trial in trials
        if reached(trial) and (value := trial.user_attrs.get(PROXIES_OF, {}).get(prefilter.proxy)) is not None
    ]
    if len(rows) < prefilter.after:
        return Verdict(prefilter.proxy, len(rows), None, None, None, picks=False)
    found = estimate(lead, *zip(*rows, strict=True), level=PROOF)
    return Verdict(prefilter.proxy, len(rows), *found, picks=found.low > 0)


def verdict_on(trial: FrozenTrial) -> dict[str, Any] | None:
    """Return what was decided before a trial was drawn; None if nothing was."""
    found: dict[str, Any] | None = trial.system_attrs.get(PREFILTER)
    return found


def filtered(drawing: Drawing, device: str, note: Callable[[str], None]) -> dict[str, Any]:
    """Return the knobs of the candidate that the proxy picks; none if it may not pick, or knobs are recorded.

    Args:
        drawing: The trial's knobs, before they are known.
        device: Where proxies are computed.
        note: Told where the verdict is another than that of the trial before, and of candidates that failed.
    """
    config = drawing.config
    if config.prefilter is None or drawing.is_recorded:
        return {}
    trials = drawing.study.get_trials(deepcopy=False)[: drawing.number]
    verdict = judge(config.prefilter, trials)
    record: dict[str, Any] = verdict._asdict()
    knobs: dict[str, Any] = {}
    if verdict.picks:
        knobs, record["candidates"], record["picked"] = _picked(drawing, config.prefilter, device, note)
    before = next((found for trial in reversed(trials) if (found := verdict_on(trial))), None)
    if verdict.lead is not None and (before is None or before["picks"] != verdict.picks):
        note(f"trial {drawing.number}: pre-filter: {verdict}")
    drawing.study._storage.set_trial_system_attr(drawing.trial_id, PREFILTER, record)
    return knobs


def _picked(
    drawing: Drawing, prefilter: Prefilter, device: str, note: Callable[[str], None]
) -> tuple[dict[str, Any], list[float | None], int]:
    """Return the knobs of the best candidate, the proxy of each, and which it is; of equal ones the first."""
    drawn = [drawing.draw(candidate) for candidate in range(prefilter.candidates)]
    budget = {name: drawn[0][name] for name in ("macs_budget",) if name in drawn[0]}
    candidates = [{**knobs, **budget} for knobs in drawn]
    values = [_proxy(drawing, knobs, device, note) for knobs in candidates]
    order = [-math.inf if value is None else value for value in values]
    best = order.index(max(order))
    return candidates[best], values, best


def _proxy(
    drawing: Drawing, knobs: Mapping[str, Any], device: str, note: Callable[[str], None]
) -> float | None:
    """Return the proxy of a candidate; None if it has none, or no network within the budget is like it.

    A candidate whose proxy cannot be computed is none that is picked: it is no trial that could fail.
    """
    config = drawing.config
    try:
        member = config.space.member(knobs)
        return next(iter(recorded_proxies(config, member, drawing.number, device).values()))
    except BudgetError:
        return None
    except Exception as error:
        note(f"trial {drawing.number}: pre-filter: a candidate has no proxy: {failure_of(error)}")
        return None


def recorded_proxies(config: StudyConfig, member: Member, seeds: int, device: str) -> dict[str, float | None]:
    """Return what a trial records for the pre-filter; nothing where the study has none.

    Args:
        config: The study's configuration.
        member: The trial's network.
        seeds: The number of the trial whose seeds it takes.
        device: Where to compute.
    """
    if config.prefilter is None:
        return {}
    from connsearch.search.proxies.scores import measure_proxies

    names = [config.prefilter.proxy]
    return measure_proxies(
        member.spec, config.train, names, study_seed=config.seed, trial=seeds, device=device
    )


def plan_line(prefilter: Prefilter) -> str:
    """Return what a pre-filter will do, in words."""
    return (
        f"{prefilter.proxy} picks 1 of {prefilter.candidates} candidates at one budget, from "
        f"{prefilter.after} finished trials on, as long as it orders their errors better than MACs do"
    )
