"""Progress of a run on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console

from connsearch.search.hooks import Progress
from connsearch.search.measures import VAL_ERROR, VAL_IOU_ERROR, epoch_error
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
        done: Trials that were finished before.
        best: The least validation error before, and its trial.
        epochs: Epochs of a trial.
        console: Where to print; a terminal or not.
        error: Which error is shown, as `connsearch.search.measures` names them.
    """

    def __init__(
        self,
        total: int,
        done: int,
        epochs: int,
        console: Console,
        best: tuple[float, int] | None = None,
        error: str = VAL_ERROR,
    ) -> None:
        super().__init__(console)
        self.total, self.done, self.epochs = total, done, epochs
        self.best, self.error = best, error
        self.ran = 0
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
        self.done, self.ran = self.done + 1, self.ran + 1
        member = self._members.pop(number, None)
        if isinstance(outcome, str):
            line = f"trial {number}: failed: {outcome}"
        else:
            error = outcome.value(self.error)
            ended_well = not outcome.training.diverged and outcome.pruned is None
            if ended_well and (self.best is None or error < self.best[0]):
                self.best = (error, number)
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
            parts.append(f"best {human(self.error, self.best[0])} (trial {self.best[1]})")
        seconds = time.monotonic() - self.started
        if self.ran and seconds > 0:
            left = seconds / self.ran * (self.total - self.done)
            parts += [f"{60 * self.ran / seconds:.1f} trials/min", f"about {duration(left)} left"]
        return parts


def _what(member: Member) -> str:
    topology, aggregation, depths, widths = describe(member)
    return f"{topology} x {aggregation}, layers {depths}, widths {widths}"
