"""Whose is a trial? A log of claims, read by all in one order; the first claim of an attempt holds.

See docs/decisions/0010-claims-and-leases.md for why a log, and what each storage guarantees.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LEASE = "lease"
"""The attribute of a trial that says whose it is."""


@dataclass(frozen=True)
class Timing:
    """How often workers look at the storage, and how long they wait, in seconds.

    Attributes:
        beat: Between two signs of life of a running trial.
        expiry: After which a lease that has not changed belongs to a dead worker.
        poll: Longest pause of a worker that waits for others.
        patience: How long a storage may be away.
    """

    beat: float = 10.0
    expiry: float = 60.0
    poll: float = 1.0
    patience: float = 600.0


@dataclass(frozen=True)
class Worker:
    """One that runs trials: a process of a machine, and a key of its own.

    Attributes:
        key: Of this worker alone.
        host: The machine's name, for people.
        machine: What tells whether a process can be looked for here.
        pid: Of its process.
        started: When the process started, as the machine counts; 0 where that is not known.
    """

    key: str
    host: str
    machine: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Worker:
        """Return a new worker of this process."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex[:12], socket.gethostname(), _machine(), pid, _started(pid))

    def is_gone(self) -> bool:
        """Return whether its process has surely ended; False also where that cannot be seen."""
        if self.machine != _machine():
            return False
        if self.pid == os.getpid() and self.started == _started(self.pid):
            return self.key not in _RUNNING
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return self.started != _started(self.pid)

    def __enter__(self) -> Worker:
        _RUNNING.add(self.key)
        return self

    def __exit__(self, *error: object) -> None:
        _RUNNING.discard(self.key)


_RUNNING: set[str] = set()
"""Keys of the workers that run in this process."""


@cache
def _machine() -> str:
    """Return what is equal for processes that see each other by number: a boot, a name space."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.system()} {uuid.getnode():x}"


def _started(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 where there is no /proc, or it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return -1 if state in "ZX" else int(fields[18])


@dataclass(frozen=True)
class Claim:
    """An attempt at a trial.

    Attributes:
        trial: The trial's number.
        attempt: Counted from 1.
        worker: Who.
        epoch: The last epoch that earlier attempts had finished.
        deaths: How many earlier attempts in a row died without finishing a further epoch.
    """

    trial: int
    attempt: int
    worker: Worker
    epoch: int = 0
    deaths: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claim:
        """Return the claim that `to_dict` gave."""
        return cls(**{**data, "worker": Worker(**data["worker"])})

    def successor(self, worker: Worker, lease: Mapping[str, Any]) -> Claim:
        """Return the claim of the next attempt, given the last sign of life of this one."""
        epoch = max(self.epoch, int(lease.get("epoch", 0)))
        before = 0 if epoch > self.epoch else self.deaths
        died = 0 if lease.get("released", False) else 1
        return Claim(self.trial, self.attempt + 1, worker, epoch, before + died)


class ClaimLog:
    """The log of a study's claims; may be used by several threads.

    Args:
        log: The Optuna study that is the log.
    """

    def __init__(self, log: optuna.Study) -> None:
        self._log, self._lock = log, threading.Lock()
        self._read, self._read_at = 0, 0.0
        self._holders: dict[int, Claim] = {}

    def holders(self) -> dict[int, Claim]:
        """Return the latest claim that holds, for each trial that was claimed."""
        with self._lock:
            self._read_at = time.monotonic()
            entries = self._log.get_trials(deepcopy=False)
            for entry in entries[self._read :]:
                claim = Claim.from_dict(entry.user_attrs["claim"])
                there = self._holders.get(claim.trial)
                if there is None or claim.attempt > there.attempt:
                    self._holders[claim.trial] = claim
            self._read = len(entries)
            return dict(self._holders)

    def take(self, claim: Claim) -> bool:
        """Append a claim; return whether it holds."""
        from optuna.trial import create_trial

        storage = self._log._storage
        storage.create_new_trial(
            self._log._study_id, create_trial(value=float(claim.trial), user_attrs={"claim": claim.to_dict()})
        )
        return self.holders().get(claim.trial) == claim

    def holds(self, claim: Claim, within: float = 0.0) -> bool:
        """Return whether no later attempt than this was claimed, as it was so many seconds ago at most."""
        if time.monotonic() - self._read_at < within:
            return self._holders.get(claim.trial) == claim
        return self.holders().get(claim.trial) == claim


class Watch:
    """Which workers are dead, as far as one who looks at their leases now and then can tell.

    Args:
        expiry: Seconds after which a lease that does not change is a dead worker's.
    """

    def __init__(self, expiry: float) -> None:
        self.expiry = expiry
        self._seen: dict[int, tuple[object, float]] = {}

    def is_free(self, claim: Claim, lease: Mapping[str, Any], outages: int) -> bool:
        """Return whether a claim has been given back, or its worker is dead.

        Args:
            claim: The claim.
            lease: The trial's lease; empty if there is none.
            outages: How often the storage was away; nobody could give a sign of life then.
        """
        own = lease if lease.get("attempt") == claim.attempt else {}
        if own.get("released", False) or claim.worker.is_gone():
            return True
        sign = (claim.attempt, own.get("beat"), outages)
        before = self._seen.get(claim.trial)
        if before is None or before[0] != sign:
            self._seen[claim.trial] = (sign, time.monotonic())
            return False
        return time.monotonic() - before[1] > self.expiry


def lease_of(trial: FrozenTrial | None) -> dict[str, Any]:
    """Return a trial's lease; empty if it has none."""
    return dict(trial.user_attrs.get(LEASE, {})) if trial is not None else {}


def next_claim(
    trials: Sequence[FrozenTrial],
    log: ClaimLog,
    watch: Watch,
    worker: Worker,
    *,
    total: int,
    outages: int,
) -> Claim | None:
    """Return the claim to try next: of a trial that was cut off, else of a new one; None to wait.

    Args:
        trials: All trials of the study.
        log: Who claimed what; read after the trials.
        watch: Who is dead.
        worker: Who wants to claim.
        total: Trials that the study is to have.
        outages: As `Watch.is_free` takes it.
    """
    holders = log.holders()
    for number in range(min(total, len(trials) + 1)):
        trial = trials[number] if number < len(trials) else None
        if trial is not None and trial.state.is_finished():
            continue
        holder = holders.get(number)
        if holder is None:
            return Claim(number, 1, worker)
        lease = lease_of(trial)
        if watch.is_free(holder, lease, outages):
            own = lease if lease.get("attempt") == holder.attempt else {}
            return holder.successor(worker, own)
    return None
