"""What processes do that are killed, or have no room to write."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import torch

from connsearch.errors import StudyError
from connsearch.search.hooks import Progress
from connsearch.search.storages.journal import Journal
from connsearch.search.study import Study


def run_and_die(path: str, hook: str, trial: int, epoch: int) -> None:
    """Run a study; kill this process when a hook tells of a trial, or of an epoch of it."""
    torch.set_num_threads(1)

    def die(number: int, what: object) -> None:
        if number == trial and getattr(what, "epoch", epoch) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    Study.load(path).run(4, device="cpu", progress=Progress(**{hook: die}))  # type: ignore[arg-type]


def run_on_a_full_disk(path: str, room: int, told: Path) -> None:
    """Run a study where no file may be of more than `room` bytes; leave what it says."""
    study = Study.load(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        study.run(3, device="cpu")
    except StudyError as error:
        told.write_text(str(error))


def append(path: Path, writer: int, lines: int) -> None:
    """Append long lines to the journal of a directory."""
    target = Journal(path / "journal.log", path / "lock")
    for line in range(lines):
        target.append_logs([{"writer": writer, "line": line, "filling": "x" * 20_000}])
