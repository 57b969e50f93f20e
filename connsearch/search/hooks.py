"""Whom to tell how a run goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from connsearch.search.objective import Outcome
from connsearch.search.space import Member
from connsearch.train.result import EpochRecord


@dataclass(frozen=True)
class Progress:
    """Whom to tell how a run goes; every hook is optional.

    Attributes:
        trial_started: Called with the number and the network.
        epoch_ended: Called after each epoch of a trial, those of a checkpoint included.
        trial_ended: Called with the trial's number and its outcome, or the reason why it failed.
        trial_dropped: Called with the number of a trial that another worker has taken over.
        note: Called with a line about something else, such as a storage that is away.
    """

    trial_started: Callable[[int, Member], None] = field(default=lambda number, member: None)
    epoch_ended: Callable[[int, EpochRecord], None] = field(default=lambda number, record: None)
    trial_ended: Callable[[int, Outcome | str], None] = field(default=lambda number, outcome: None)
    trial_dropped: Callable[[int], None] = field(default=lambda number: None)
    note: Callable[[str], None] = field(default=lambda text: None)
