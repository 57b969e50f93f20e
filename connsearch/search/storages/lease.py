"""A lease: the sign of life of the worker that runs a trial, and how it notices that it has lost it."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from connsearch.errors import StudyError
from connsearch.search.storages.claims import LEASE, Claim, ClaimLog

if TYPE_CHECKING:
    from connsearch.search.storages.patient import PatientStorage

LAST_PATIENCE = 5.0
"""Seconds for which a worker that stops waits for a storage that is away."""


class LeaseLostError(Exception):
    """Another worker has taken the trial over, or finished it."""


class MisplacedError(LeaseLostError):
    """The trial has another number than the one that was claimed, or another worker's knobs: look again."""


class Lease:
    """Keeps a claim alive while its context is open; left with an exception, it gives the claim back.

    The trial has the claim's first sign of life already.

    Args:
        storage: Where the trial is.
        trial_id: Its key there.
        claim: What is held.
        log: Where later claims appear.
        seconds: Between two signs of life.
    """

    def __init__(
        self, storage: PatientStorage, trial_id: int, claim: Claim, log: ClaimLog, seconds: float
    ) -> None:
        self._storage, self._trial_id, self._claim, self._log = storage, trial_id, claim, log
        self._seconds = seconds
        self._epoch, self._beat = claim.epoch, 0
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._live, name=f"lease of trial {claim.trial}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if error is not None:
            self._storage.patience = min(self._storage.patience, LAST_PATIENCE)
        self._thread.join()
        if error is not None and not isinstance(error, LeaseLostError) and self._trouble is None:
            try:
                self._write(released=True)
            except (StudyError, LeaseLostError) as trouble:  # it runs out by itself
                error.add_note(f"the lease of trial {self._claim.trial} could not be given back: {trouble}")

    def reached(self, epoch: int) -> None:
        """Record that an epoch is finished.

        Raises:
            LeaseLostError: if the trial is no longer this worker's.
            StudyError: if the storage cannot be written.
        """
        self._raise_trouble()
        if epoch > self._epoch:
            self._epoch = epoch
            self._write()

    def check(self) -> None:
        """Make sure that the trial is still this worker's; raises as `reached`."""
        self._raise_trouble()
        if not self._log.holds(self._claim):
            raise LeaseLostError

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def _live(self) -> None:
        try:
            while not self._stop.wait(self._seconds):
                self._write()
                if not self._log.holds(self._claim):
                    raise LeaseLostError
        except Exception as error:  # raised again in the thread that trains
            self._trouble = error
        finally:
            self._storage.remove_session()

    def _write(self, *, released: bool = False) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with self._writing:
            self._beat += 1
            sign = first_sign(self._claim) | {"epoch": self._epoch, "beat": self._beat}
            try:
                self._storage.set_trial_user_attr(
                    self._trial_id, LEASE, sign | ({"released": True} if released else {})
                )
            except UpdateFinishedTrialError:
                raise LeaseLostError from None


def first_sign(claim: Claim) -> dict[str, Any]:
    """Return the lease of a claim that was just taken."""
    worker = claim.worker
    return {
        "worker": worker.key,
        "host": worker.host,
        "pid": worker.pid,
        "attempt": claim.attempt,
        "epoch": claim.epoch,
        "beat": 0,
        "time": time.time(),
    }
