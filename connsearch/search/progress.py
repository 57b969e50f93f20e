"""Progress of a run on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from connsearch.errors import StudyError
from connsearch.search.hooks import Progress
from connsearch.search.measures import VAL_IOU_ERROR, epoch_error, error_of, order_of
from connsearch.search.members import describe
from connsearch.search.objective import Outcome
from connsearch.search.space import Member
from connsearch.text import duration, human
from connsearch.train.live import LiveLine
from connsearch.train.result import EpochRecord


class ConsoleProgress(LiveLine):
    """Shows each finished trial as a line, and the running one, best, rate and time left as a live line.

    Args:
        total: Trials that the study is to have.
        finished: Returns how many the study has by now, those of other runs included.
        epochs: Epochs of a trial.
        console: Where to print; a terminal or not.
        objectives: The study's, with their directions.
        best: The best trial before: its number as `trial`, and its objectives.
    """

    def __init__(
        self,
        total: int,
        finished: Callable[[], int],
        epochs: int,
        console: Console,
        *,
        objectives: Mapping[str, str],
        best: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(console)
        self.total, self.finished, self.epochs = total, finished, epochs
        self.objectives, self.best, self.error = objectives, best, error_of(objectives)
        self.done = self.before = finished()
        self.started = time.monotonic()
        self._members: dict[int, Member] = {}
        self._running: dict[int, str] = {}

    def hooks(self) -> Progress:
        """Return what a study calls."""
        return Progress(
            self._trial_started, self._epoch_ended, self._trial_ended, self._trial_dropped, self.note
        )

    def _trial_started(self, number: int, member: Member) -> None:
        self._members[number] = member
        self._show(number, f"trial {number}: {_what(member)}")

    def _epoch_ended(self, number: int, record: EpochRecord) -> None:
        error = human(self.error, epoch_error(record.to_dict(), self.error))
        self._show(number, f"trial {number}: epoch {record.epoch}/{self.epochs}, {self._word} {error}")

    @property
    def _word(self) -> str:
        return "IoU error" if self.error == VAL_IOU_ERROR else "error"

    def _trial_ended(self, number: int, outcome: Outcome | str) -> None:
        self.done = self._count()
        member = self._members.pop(number, None)
        if isinstance(outcome, str):
            line = f"trial {number}: failed: {outcome}"
        else:
            error = outcome.value(self.error)
            if not outcome.training.diverged and outcome.pruned is None:
                reached = {"trial": number, **{name: outcome.value(name) for name in self.objectives}}
                known = [reached] if self.best is None else [reached, self.best]
                self.best = min(known, key=lambda trial: order_of(trial, self.objectives))
            end = ", diverged" if outcome.training.diverged else ""
            end = f", {outcome.pruned}" if outcome.pruned is not None else end
            what = _what(member) if member is not None else ""
            line = (
                f"trial {number}: {self._word} {human(self.error, error)}, "
                f"{human('macs', outcome.cost.macs)}MACs, {what}, {outcome.training.seconds:.1f} s{end}"
            )
        parts = [line] if self.is_live else [line, *self._standing()]
        self.note(f"[{self.done}/{self.total}] {' · '.join(parts)}")
        self._show(number, "")

    def _count(self) -> int:
        """Return how many trials the study has; while its storage is away, one more than were known."""
        try:
            return self.finished()
        except StudyError:
            return self.done + 1

    def _trial_dropped(self, number: int) -> None:
        self._members.pop(number, None)
        self._show(number, "")

    def _show(self, number: int, running: str) -> None:
        self._running.pop(number, None)
        if running:
            self._running[number] = running
        if self.is_live:
            parts = [f"{self.done}/{self.total} trials", *self._standing(), *self._running.values()]
            self.show(" · ".join(parts))

    def _standing(self) -> list[str]:
        """Return the best so far, the rate and the time left, as far as they are known."""
        parts = []
        if self.best is not None:
            first = next(iter(self.objectives))
            parts.append(f"best {human(first, self.best[first])} (trial {self.best['trial']})")
        seconds, ended = time.monotonic() - self.started, self.done - self.before
        if ended > 0 and seconds > 0:
            left = seconds / ended * max(0, self.total - self.done)
            parts += [f"{60 * ended / seconds:.1f} trials/min", f"about {duration(left)} left"]
        return parts


def _what(member: Member) -> str:
    topology, aggregation, depths, widths = describe(member)
    return f"{topology} x {aggregation}, layers {depths}, widths {widths}"
