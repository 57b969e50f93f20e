"""A worker's own trial: what its worker knows of it needs no asking, and is written together.

Whoever runs a trial is the only one to write to it but for its lease, so what it has read and written is
what there is. That it may have been taken over and finished is seen when it is written to.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from connsearch.search.storages.bulk import Writes


@dataclass
class Own:
    """A trial as the thread that runs it knows it.

    Attributes:
        trial: What was read and written of it.
        trials: Those of a study by its key, as they were read first; until the first writes are written.
        writes: What waits to be written; None where things are written at once.
    """

    trial: FrozenTrial
    trials: dict[int, list[FrozenTrial]] = field(default_factory=dict)
    writes: Writes | None = None

    def param(self, name: str, value: float, distribution: BaseDistribution) -> bool:
        """Note a knob; return whether it waits to be written. So do the others."""
        self.trial.params[name] = distribution.to_external_repr(value)
        self.trial.distributions[name] = distribution
        if self.writes is not None:
            self.writes.params[name] = (value, distribution)
        return self.writes is not None

    def user_attr(self, key: str, value: Any) -> bool:
        """Note an attribute."""
        self.trial.user_attrs[key] = value
        if self.writes is not None:
            self.writes.user_attrs[key] = value
        return self.writes is not None

    def system_attr(self, key: str, value: Any) -> bool:
        """Note an attribute of Optuna's."""
        self.trial.system_attrs[key] = value
        if self.writes is not None:
            self.writes.system_attrs[key] = value
        return self.writes is not None

    def state_values(self, state: TrialState, values: Sequence[float] | None) -> bool:
        """Note a change of state."""
        self.trial.state = state
        self.trial.values = list(values) if values is not None else self.trial.values
        if self.writes is not None:
            self.writes.states.append((state, values))
        return self.writes is not None


def copied(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with tables of its own."""
    new = copy.copy(trial)
    new.params, new.distributions = dict(trial.params), dict(trial.distributions)
    new.user_attrs, new.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    return new


def among(trials: list[FrozenTrial], states: Container[TrialState] | None) -> list[FrozenTrial]:
    """Return the trials in some states; all of them for None."""
    return [trial for trial in trials if states is None or trial.state in states]
