"""Whom a session of trainings tells how it goes: nobody, or the terminal."""

from __future__ import annotations

import time

from rich.console import Console

from connsearch.text import counted, duration, human
from connsearch.train.finished import SeedResult
from connsearch.train.live import LiveLine
from connsearch.train.result import EpochRecord


class Watcher:
    """Is told how trainings go; this one does nothing with it."""

    def seed_started(self, seed: int, epochs: int) -> None:
        """Take that a seed's training begins, or goes on; it has so many epochs in all."""

    def epoch_ended(self, record: EpochRecord, *, again: bool = False) -> None:
        """Take an epoch; of a training that goes on first, again, those that were done before."""

    def seed_ended(self, result: SeedResult, *, now: bool) -> None:
        """Take what a seed reached, now or in an earlier session."""

    def note(self, text: str) -> None:
        """Take a remark."""


class ConsoleWatcher(LiveLine, Watcher):
    """Shows a line for each seed, and for each epoch a live line on a terminal, a plain one elsewhere.

    Args:
        console: Where to print; a terminal or not.

    Attributes:
        about: What is trained, in front of every line; empty if there is only one thing.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.about = ""
        self._seed, self._epochs, self._done = 0, 0, 0
        self._last = 0.0  # when an epoch ended

    def seed_started(self, seed: int, epochs: int) -> None:
        """Show that a seed begins."""
        self._seed, self._epochs, self._done, self._last = seed, epochs, 0, 0.0
        self.show(self._line(f"epoch 1/{epochs}"))

    def epoch_ended(self, record: EpochRecord, *, again: bool = False) -> None:
        """Show an epoch: errors, its time, the time left."""
        if again:
            self._done = record.epoch
            return
        if self._done:
            self.note(self._line(f"goes on after epoch {self._done}"))
            self._done = 0
        now = time.monotonic()
        seconds = max(record.seconds, now - self._last if self._last else 0.0)  # with the time of validation
        self._last = now
        parts = [
            f"epoch {record.epoch}/{self._epochs}: train error {human('train_error', record.train_error)}"
        ]
        if record.val_error is not None:
            parts.append(f"val error {human('val_error', record.val_error)}")
        if record.val_mean_iou is not None:
            parts.append(f"val mean IoU {100 * record.val_mean_iou:.1f} %")
        parts.append(f"{record.seconds:.1f} s")
        if left := self._epochs - record.epoch:
            parts.append(f"about {duration(left * seconds)} left")
        line = self._line(", ".join(parts))
        if self.is_live:
            self.show(line)
        else:
            self.note(line)

    def seed_ended(self, result: SeedResult, *, now: bool) -> None:
        """Print what a seed reached."""
        self._seed = result.seed
        if result.diverged:
            text = f"diverged after {counted(result.epochs, 'epoch')}"
        else:
            text = f"test error {human('test_error', result.test_error)}"
            if result.test_mean_iou is not None:
                text += f", test mean IoU {100 * result.test_mean_iou:.1f} %"
            text += f", {counted(result.epochs, 'epoch')} in {duration(result.seconds)}"
        self.note(self._line(text if now else f"{text}, trained before"))

    def _line(self, text: str) -> str:
        return f"{self.about}seed {self._seed}: {text}"
