"""Where a trial's overhead goes: seconds by part, calls of the storage, round trips to the database.

A part's time is its own: what a part inside it takes is not counted twice. Parts are found by wrapping
the functions that they are.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from types import SimpleNamespace
from typing import Any

PARTS = ("sampler", "storage", "solver", "build", "checkpoint", "claim", "wait", "rest")


@dataclass
class Trial:
    """What one trial took outside training.

    Attributes:
        number: Its number.
        seconds: From the end of the worker's trial before it.
        cpu: Of the whole process, in seconds.
        parts: Seconds by part.
        calls: Calls of the storage by method, those that are answered from memory not counted.
        database: Statements, transactions and pings; each is a round trip or two.
    """

    number: int
    seconds: float
    cpu: float
    parts: dict[str, float]
    calls: dict[str, int]
    database: dict[str, int]


@dataclass
class Meter:
    """Adds up where the main thread's time goes, trial by trial."""

    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stack = ["rest"]
        self._main = threading.get_ident()
        self._start()

    def _start(self) -> None:
        self._begin = self._since = time.perf_counter()
        self._cpu = time.process_time()
        self._seconds: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._database: Counter[str] = Counter()

    def _book(self) -> None:
        now = time.perf_counter()
        self._seconds[self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a context as a part's; other threads' is not counted."""
        if threading.get_ident() != self._main:
            yield
            return
        self._book()
        self._stack.append(name)
        try:
            yield
        finally:
            self._book()
            self._stack.pop()

    def ended(self, number: int, outcome: object = None) -> None:
        """Close the account of a trial; a hook of `Progress`."""
        self._book()
        seconds, cpu = time.perf_counter() - self._begin, time.process_time() - self._cpu
        figures = dict(self._seconds), dict(self._calls), dict(self._database)
        self.trials.append(Trial(number, seconds, cpu, *figures))
        self._start()

    # ---- what is measured --------------------------------------------------------------------------

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Count the time of a function, or of a method, as a part's."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def timed(*args: Any, **more: Any) -> Any:
            with self.part(part):
                return inner(*args, **more)

        setattr(owner, name, timed)

    def wrap_storage(self, owner: Any) -> None:
        """Count calls of what is behind a patient storage, and their time."""
        inner = owner._try

        @wraps(inner)
        def counted(*args: Any, **more: Any) -> Any:
            if threading.get_ident() == self._main:
                self._calls[sys._getframe(1).f_code.co_name] += 1
            with self.part("storage"):
                return inner(*args, **more)

        owner._try = counted

    def count_round_trips(self) -> None:
        """Count what SQLAlchemy asks of databases."""
        from sqlalchemy import Engine, Pool, event

        def count(what: str) -> Callable[..., None]:
            def counted(*args: Any) -> None:
                self._database[what] += 1

            return counted

        event.listen(Engine, "before_cursor_execute", count("statements"))
        event.listen(Engine, "commit", count("commits"))
        event.listen(Engine, "rollback", count("rollbacks"))
        event.listen(Pool, "checkout", count("pings"))

    def install(self) -> None:
        """Wrap the parts of a trial of a study."""
        import connsearch.nn
        from connsearch.search import drawing, runner
        from connsearch.search.space import SearchSpace
        from connsearch.search.storages.claims import ClaimLog
        from connsearch.search.storages.patient import PatientStorage
        from connsearch.train import checkpoint, loop

        self.wrap(drawing, "_draw", "sampler")
        self.wrap(SearchSpace, "member", "solver")
        self.wrap(connsearch.nn, "build", "build")
        self.wrap(loop._Run, "_save", "checkpoint")
        self.wrap(checkpoint.Checkpoint, "__init__", "checkpoint")
        self.wrap(checkpoint.Checkpoint, "load", "checkpoint")
        self.wrap(ClaimLog, "take", "claim")
        self.wrap(runner, "next_claim", "claim")
        self.wrap(runner._Runner, "_begin", "claim")
        waiting = SimpleNamespace(sleep=time.sleep, monotonic=time.monotonic)
        self.wrap(waiting, "sleep", "wait")
        runner.time = waiting  # type: ignore[assignment]
        self.wrap_storage(PatientStorage)
        self.count_round_trips()
