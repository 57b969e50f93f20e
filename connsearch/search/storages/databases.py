"""Databases that hold studies: what is at an address, how it is opened, how many workers it fits."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connsearch.errors import ConnsearchError, StudyError
from connsearch.text import first_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

KNOWN = "postgresql+psycopg://USER@HOST/DATABASE, sqlite:///FILE, grpc://HOST:PORT"
CONNECTIONS = 2
"""What a worker may hold at once: one to run trials, one for its sign of life."""
SQLITE_WORKERS = 4
GRPC_PORT = 13000
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "tcp_user_timeout": 30_000,
}
_OPEN_TRIES, _OPEN_PAUSE = 5, 0.3
_TABLES_KEY = 7_110_526_037_015_313_773
"""Of the advisory lock under which tables are made: any number that nobody else takes."""


def parse(text: str) -> URL:
    """Return a database's address.

    Raises:
        StudyError: if it is none of a database that can hold studies.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StudyError(f"--storage {text}: not an address. Known: {KNOWN}.") from None
    kind = url.drivername.partition("+")[0]
    if kind in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg") if "+" not in url.drivername else url
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url
    if kind == "grpc" and url.host:
        return url
    raise StudyError(f"--storage {label(url)}: no database that can hold studies. Known: {KNOWN}.")


def label(url: URL) -> str:
    """Return an address as it may be shown: without its password."""
    return without_password(url).render_as_string()


def without_password(url: URL) -> URL:
    """Return an address without its password."""
    return url._replace(password=None)


def connect(url: URL) -> BaseStorage:
    """Return Optuna's storage at an address; tables that are missing are made.

    Raises:
        StudyError: if a package is missing, or the database cannot be reached or used.
    """
    try:
        if url.drivername == "grpc":
            return _grpc(url)
        from optuna.storages import get_storage

        return get_storage(_database(url))
    except ImportError as error:
        raise StudyError(f"{label(url)}: {_package(url)} ({error})") from None


def _package(url: URL) -> str:
    if url.drivername == "grpc":
        return "needs grpcio and protobuf: pip install 'connsearch[grpc]'"
    if url.drivername == "postgresql+psycopg":
        return "needs psycopg: pip install 'connsearch[postgres]'"
    return f"the driver of {url.drivername} is not installed"


def _grpc(url: URL) -> BaseStorage:
    import_module("grpc")  # Optuna would miss it later
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import GrpcStorageProxy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=url.host or "localhost", port=url.port or GRPC_PORT)
    try:
        proxy.wait_server_ready(timeout=10)
    except ConnectionError:
        raise StudyError(f"{label(url)}: no gRPC proxy answers there") from None
    return proxy


def _database(url: URL) -> Any:
    """Open a database; processes that make SQLite's tables at once get in each other's way, and try again."""
    import time

    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)  # told in our own words
    for tries in range(1, _OPEN_TRIES + 1):
        try:
            with _alone(url):
                database = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=_engine(url))
            break
        except (SQLAlchemyError, StorageInternalError) as error:
            if tries == _OPEN_TRIES or not _reachable(url):
                raise StudyError(f"{label(url)}: cannot be used: {_reason(error)}") from None
            time.sleep(_OPEN_PAUSE * tries)
        except RuntimeError as error:  # tables of another version of Optuna
            raise StudyError(f"{label(url)}: {error}") from None
    if url.drivername.startswith("sqlite"):
        _one_step(database.engine)
    weakref.finalize(database, database.engine.dispose)  # closes connections that nobody can use any more
    return database


@contextmanager
def _alone(url: URL) -> Iterator[None]:
    """Keep others from making tables in a PostgreSQL database at the same time."""
    if not url.drivername.startswith("postgresql"):
        yield
        return
    from sqlalchemy import NullPool, create_engine, text

    engine = create_engine(url, poolclass=NullPool, connect_args=_engine(url)["connect_args"])
    with engine.connect() as connection:  # its end is the lock's
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _TABLES_KEY})
        yield


def _engine(url: URL) -> dict[str, Any]:
    if url.drivername.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    args = _POSTGRESQL if url.drivername == "postgresql+psycopg" else {}
    pool = {"pool_pre_ping": True, "pool_size": CONNECTIONS, "max_overflow": CONNECTIONS}
    return {"connect_args": args, **pool}


def _one_step(engine: Engine) -> None:
    """Start SQLite's transactions as writers, so that what Optuna reads in one is true until its end."""
    from sqlalchemy import event

    def by_hand(connection: Any, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")  # a commit waits for the disk once, not thrice

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", by_hand)
    event.listen(engine, "begin", begin)
    engine.dispose()


def _reachable(url: URL) -> bool:
    try:
        check(url)
    except ConnsearchError:
        return False
    return True


def check(url: URL) -> str:
    """Return what a database is and how many workers it fits; makes nothing there.

    Raises:
        StudyError: if it cannot be reached, or studies cannot be kept there.
    """
    if url.drivername == "grpc":
        connect(url)
        where = f"{url.host}:{url.port or GRPC_PORT}"
        return f"gRPC proxy at {where}; fits as many workers as the database behind it"
    if url.drivername.startswith("sqlite"):
        return _check_sqlite(url)
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(url, **_engine(url))
    except ImportError as error:
        raise StudyError(f"{label(url)}: {_package(url)} ({error})") from None
    try:
        with engine.connect() as connection:

            def ask(question: str) -> Any:
                return connection.execute(text(question)).scalar()

            version = str(ask("SHOW server_version")).split()[0]
            if not ask("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
                raise StudyError(f"{label(url)}: {url.username or 'this user'} may not create tables there")
            reserved = int(ask("SHOW superuser_reserved_connections"))
            free = (
                int(ask("SHOW max_connections"))
                - reserved
                - int(ask("SELECT count(*) FROM pg_stat_activity"))
            )
    except SQLAlchemyError as error:
        raise StudyError(f"{label(url)}: cannot be reached: {_reason(error)}") from None
    finally:
        engine.dispose()
    workers = max(0, free // CONNECTIONS)
    return f"PostgreSQL {version}; fits {workers} more workers, on any hosts ({free} connections are free)"


def has_studies(url: URL) -> bool:
    """Return whether a database has tables for studies; makes none.

    Raises:
        StudyError: if it cannot be reached.
    """
    if url.drivername == "grpc":
        return True
    if url.drivername.startswith("sqlite") and not Path(str(url.database)).exists():
        return False
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(url, **_engine(url))
    try:
        return bool(inspect(engine).has_table("studies"))
    except SQLAlchemyError as error:
        raise StudyError(f"{label(url)}: cannot be reached: {_reason(error)}") from None
    finally:
        engine.dispose()


def _check_sqlite(url: URL) -> str:
    import sqlite3

    from connsearch.search.storages import check_writable

    file = Path(str(url.database))
    if not file.parent.is_dir():
        raise StudyError(f"{label(url)}: there is no directory {file.parent}: make it first")
    check_writable(file.parent)
    if file.exists():
        try:
            with sqlite3.connect(file) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise StudyError(f"{label(url)}: no SQLite database: {error}") from None
        finally:
            connection.close()
    return f"SQLite {sqlite3.sqlite_version}; fits up to {SQLITE_WORKERS} workers, all on one host"


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if type(error).__name__ == "StorageInternalError" and error.__cause__ else error
    return first_line(getattr(cause, "orig", None) or cause)
