"""Given trials: which trials of a study does its configuration fix, instead of a sampler drawing them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from connsearch.search.transfer.warm_start import given_knobs

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig


class Given(NamedTuple):
    """A trial that is not drawn.

    Attributes:
        knobs: Values of knobs by name, as they are recorded; knobs that are missing are drawn.
        seeds: The number of the trial whose seeds of weights and batches it takes.
    """

    knobs: dict[str, Any]
    seeds: int


def given(config: StudyConfig, number: int, trials: Callable[[], Sequence[FrozenTrial]]) -> Given | None:
    """Return what is given of a trial; None if all of it is drawn.

    Args:
        config: The study's configuration.
        number: The trial's number.
        trials: Returns the trials that there are; called only where what is given depends on them.
    """
    if config.tournament is not None and config.tournament.contestants:
        return config.tournament.given(config.space, number)
    if config.replicates is not None:
        return config.replicates.given(number, trials())
    knobs = given_knobs(config, number)
    return Given(knobs, number) if knobs is not None else None
