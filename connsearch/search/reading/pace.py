"""How fast a study goes, and how long the rest will take with the workers that are alive now."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from connsearch.search.storages.claims import lease_of
from connsearch.text import duration

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RECENT = 20
"""Trials that count as the recent past."""


@dataclass(frozen=True)
class Pace:
    """The speed of the last (at most 20) trials that ended, and what follows from it.

    Attributes:
        trials_per_hour: Trials that ended per hour, by all workers together, while any was at work: times
            in which nothing ran do not count. None before the first trial ended.
        worker_seconds: What a trial takes one worker, on average, with the pause between two.
        seconds_left: Until the last trial ends, if the workers that are alive stay and no other comes.
            None if it cannot be known: no trial ended, or trials are left and nobody is alive.
        seconds_since_last: Since the last trial ended, by the clocks of both hosts.
    """

    trials_per_hour: float | None = None
    worker_seconds: float | None = None
    seconds_left: float | None = None
    seconds_since_last: float | None = None

    def text(self, n_left: int, n_alive: int) -> str:
        """Return the pace in words; empty before the first trial ended."""
        if self.trials_per_hour is None or self.worker_seconds is None:
            return ""
        rate = f"{self.trials_per_hour:.3g} trials an hour lately, {duration(self.worker_seconds)} a trial"
        if n_left == 0:
            return f"{rate}; nothing left"
        if self.seconds_left is None:
            one = duration(n_left * self.worker_seconds)
            return f"{rate}; no worker: about {one} left for one"
        workers = "1 worker" if n_alive == 1 else f"{n_alive} workers"
        return f"{rate}; about {duration(self.seconds_left)} left with {workers}"


def pace_of(
    trials: Sequence[FrozenTrial], n_left: int, alive: Sequence[FrozenTrial], now: datetime | None = None
) -> Pace:
    """Return the pace of a study.

    Args:
        trials: All its trials.
        n_left: How many have not ended, those that run included.
        alive: Those that a living worker runs, one for each such worker.
        now: By default this moment.
    """
    now = now or datetime.now()
    spans = recent_spans(trials)
    if not spans:
        return Pace()
    last = max(0.0, (now - spans[-1][1]).total_seconds())
    active = sum(_seconds(span) for span in spans) / len(spans)
    pause = timedelta(seconds=max(2 * active, 5.0))
    covered, at_work = union(spans), union(spans, bridge=pause)
    if covered <= 0:  # trials that took less than the clock can tell, or of which nothing else is known
        return Pace(seconds_since_last=last, seconds_left=None if n_left else 0.0)
    worker_seconds = active * (at_work / covered)
    ran = [(now - trial.datetime_start).total_seconds() for trial in alive if trial.datetime_start]
    return Pace(3600 * len(spans) / at_work, worker_seconds, _left(n_left, ran, worker_seconds), last)


Span = tuple[datetime, datetime]


def recent_spans(trials: Sequence[FrozenTrial]) -> list[Span]:
    """Return begin and end of the trials that ended last, by their end.

    Of a trial that was taken over only its training counts, not the time for which nobody ran it.
    """
    ended = [
        trial for trial in trials if trial.datetime_complete is not None and trial.datetime_start is not None
    ]
    ended = sorted(ended, key=lambda trial: trial.datetime_complete or datetime.min)[-RECENT:]
    return [_span(trial) for trial in ended]


def _span(trial: FrozenTrial) -> Span:
    start, end = trial.datetime_start, trial.datetime_complete
    assert start is not None
    assert end is not None
    if lease_of(trial).get("attempt", 1) > 1:
        start = max(start, end - timedelta(seconds=trial.user_attrs.get("seconds", 0.0)))
    return start, end


def union(spans: Sequence[Span], bridge: timedelta = timedelta(0)) -> float:
    """Return the seconds within some span, or in a gap between two that is no longer than a bridge."""
    total, end = 0.0, None
    for start, stop in sorted(spans):
        if end is not None and start <= end + bridge:
            total += max(0.0, _seconds((end, stop)))
            end = max(end, stop)
        else:
            total += _seconds((start, stop))
            end = stop
    return total


def _seconds(span: Span) -> float:
    return (span[1] - span[0]).total_seconds()


def _left(n_left: int, ran: Sequence[float], worker_seconds: float) -> float | None:
    """Return when the last trial ends, each worker taking the next one as soon as it is free."""
    if n_left == 0:
        return 0.0
    if not ran:
        return None
    free = [max(0.0, worker_seconds - seconds) for seconds in ran]
    heapq.heapify(free)
    for _ in range(n_left - len(ran)):
        heapq.heappush(free, heapq.heappop(free) + worker_seconds)
    return max(free)
