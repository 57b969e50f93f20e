"""Several workers on one host: processes that join one study, watched by the one that started them.

They talk to the parent through pipes of their own, so that one that is killed harms no other. A worker
that dies is replaced; its trial is taken over by whoever is free first. A worker whose parent is gone
gives its trial back and ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from connsearch.errors import ConnsearchError, StudyError
from connsearch.memory import keep_freed
from connsearch.search.hooks import Progress
from connsearch.search.storages.claims import Timing

STOP_SECONDS = 60.0
"""How long stopped workers may take to give their trials back; then they are killed."""


class Crew(NamedTuple):
    """What all workers of a study on one host have in common.

    Attributes:
        directory: The study's directory.
        storage: The database's address; None for the one that the directory says.
        total: Trials that the study is to have.
        devices: Where to train: one for each worker.
        timing: How often to look at the storage, how long to wait for it.
    """

    directory: Path
    storage: str | None
    total: int
    devices: tuple[str, ...]
    timing: Timing


@dataclass
class _Worker:
    index: int
    process: BaseProcess
    pipe: Connection
    done: bool = False


def run_workers(crew: Crew, progress: Progress) -> int:
    """Run a study with so many worker processes as there are devices; return how many trials they ran.

    Raises:
        KeyboardInterrupt: when the workers were told to stop, and have given their trials back.
        StudyError, DataError, TrainError: what the first worker that failed raised; the others are stopped.
    """
    return _Parent(crew, progress).run()


class _Parent:
    def __init__(self, crew: Crew, progress: Progress) -> None:
        self.crew, self.progress = crew, progress
        self.context = _context()
        self.workers: list[_Worker] = []
        self.ran = 0
        self.deaths = 0  # since a trial ended
        self.said = ""
        self.error: ConnsearchError | None = None

    def run(self) -> int:
        try:
            for index in range(len(self.crew.devices)):
                self._start(index)
            while self.workers and self.error is None:
                self._listen(timeout=1.0)
        finally:
            self._stop()
        if self.error is not None:
            raise self.error
        return self.ran

    def _start(self, index: int) -> None:
        ours, theirs = self.context.Pipe()
        crew = self.crew
        process = self.context.Process(
            target=_work,
            args=(theirs, crew.directory, crew.storage, crew.total, crew.devices[index], crew.timing),
            name=f"worker {index}",
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(index, process, ours))

    def _listen(self, timeout: float) -> None:
        pipes = {worker.pipe: worker for worker in self.workers}
        for ready in wait(list(pipes), timeout):
            worker = pipes[ready]  # type: ignore[index]  # what was waited for
            try:
                kind, *args = worker.pipe.recv()
            except (EOFError, OSError):
                self._ended(worker)
                continue
            self._handle(worker, kind, args)

    def _handle(self, worker: _Worker, kind: str, args: list[Any]) -> None:
        if kind == "error":
            self.error = self.error or args[0]
        elif kind == "note":
            self._note(args[0])
        elif kind == "ran":
            self.ran, worker.done = self.ran + args[0], True
        else:
            self.deaths = 0 if kind == "trial_ended" else self.deaths
            getattr(self.progress, kind)(*args)

    def _note(self, text: str) -> None:
        """Say something once, though all workers see it, each with its own reason and after its own time."""
        what = text.partition(" (")[0].partition(" after ")[0]
        if what != self.said:
            self.progress.note(text)
        self.said = what

    def _ended(self, worker: _Worker) -> None:
        """A worker has closed its pipe: it is done, has failed, or is dead, and then replaced."""
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        code = worker.process.exitcode
        if code == 0 or worker.done or self.error is not None:
            return
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        self.deaths += 1
        if self.deaths > 2 * len(self.crew.devices) + 2:
            self.error = StudyError(
                f"{self.crew.directory}: {self.deaths} workers died and no trial ended, the last of {how}: "
                "see what they wrote above; --workers 1 runs in this process"
            )
            return
        self.progress.note(f"worker {worker.index} died ({how}): another one takes its place")
        self._start(worker.index)

    def _stop(self) -> None:
        """End all workers; they give back what they hold."""
        for worker in self.workers:
            worker.process.terminate()
        end = time.monotonic() + STOP_SECONDS
        while self.workers and time.monotonic() < end:
            for ready in wait([worker.pipe for worker in self.workers], timeout=0.5):
                worker = next(worker for worker in self.workers if worker.pipe is ready)
                try:
                    kind, *args = worker.pipe.recv()
                    if kind == "ran":
                        self.ran += args[0]
                except (EOFError, OSError):
                    worker.process.join()
                    self.workers.remove(worker)
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()


def _context() -> ForkServerContext | SpawnContext:
    """Return how processes are started: copies of one that has imported all, where that is possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["connsearch.search.preload"])
    _start_fork_server()
    return context


def _start_fork_server() -> None:
    """Start the process that workers are copies of; Ctrl-C waits until `preload` says what becomes of it."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # which would let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    pipe: Connection, directory: Path, storage: str | None, total: int, device: str, timing: Timing
) -> None:
    """Be a worker process: tell the parent everything, stop when it says so or is gone."""
    from connsearch.search.study import Study

    keep_freed()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with suppress(KeyboardInterrupt), stopped_by(signal.SIGTERM):  # the trial has been given back
        hooks = _telling(pipe)
        try:
            study = Study.load(directory, storage, patience=timing.patience)
            pipe.send(("ran", study.run(total, device=device, progress=hooks, timing=timing)))
        except ConnsearchError as error:
            pipe.send(("error", error))


def _telling(pipe: Connection) -> Progress:
    sending = threading.Lock()  # the thread of the lease has things to say too

    def send(*message: object) -> None:
        with sending:
            pipe.send(message)

    def tell(kind: str) -> Callable[..., None]:
        def hook(*args: object) -> None:
            try:
                send(kind, *args)
            except OSError:  # the parent is gone
                raise KeyboardInterrupt from None

        return hook

    def note(text: str) -> None:
        with suppress(OSError):  # the next hook notices
            send("note", text)

    return Progress(
        trial_started=tell("trial_started"),
        epoch_ended=tell("epoch_ended"),
        trial_ended=tell("trial_ended"),
        trial_dropped=tell("trial_dropped"),
        note=note,
    )


@contextmanager
def stopped_by(*signals: signal.Signals) -> Iterator[None]:
    """Let signals stop a run as Ctrl-C does: with `KeyboardInterrupt`, so that trials are given back."""

    def interrupt(number: int, frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
