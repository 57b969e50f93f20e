"""Where a study's record is: found again, joined, refused, tested by plan."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import make_config
from postgres import server_or_skip

from connsearch.errors import StudyError
from connsearch.search.plan import plan_of
from connsearch.search.storages import ADDRESS, COPY, JOURNAL, LOCK, find
from connsearch.search.storages.databases import check, label, parse
from connsearch.search.study import Study


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*")}


def test_a_database_is_remembered_by_the_directory(tmp_path: Path, sqlite: str, made_up: None) -> None:
    Study.from_config(tmp_path / "one", make_config(), sqlite).run(2)
    assert files(tmp_path / "one") == {ADDRESS, COPY, LOCK}
    assert (tmp_path / "one" / ADDRESS).read_text().splitlines()[1:] == [
        f'storage = "{sqlite}"', 'study = "one"',
    ]  # fmt: skip
    assert Study.load(tmp_path / "one").run(3) == 1
    assert Study.from_config(tmp_path / "one", make_config(), sqlite).run(4) == 1
    Study.from_config(tmp_path / "two", make_config(seed=1), sqlite).run(1)  # beside it, in one database
    assert [len(Study.load(tmp_path / name).trials()) for name in ("one", "two")] == [4, 1]


def test_a_study_is_joined_from_another_directory_of_its_name(
    tmp_path: Path, sqlite: str, made_up: None
) -> None:
    Study.from_config(tmp_path / "here/study", make_config(), sqlite).run(2)
    there = Study.from_config(tmp_path / "there/study", make_config(), sqlite)
    assert there.run(3) == 1
    message = (
        f"{tmp_path}/elsewhere/study: holds another study: seed is 0 there, 5 here; choose another --dir"
    )
    with pytest.raises(StudyError, match=f"^{re.escape(message)}$"):
        Study.from_config(tmp_path / "elsewhere/study", make_config(seed=5), sqlite)


def test_a_directory_has_one_storage(tmp_path: Path, sqlite: str) -> None:
    Study.from_config(tmp_path / "journal", make_config())
    Study.from_config(tmp_path / "database", make_config(), sqlite)
    for name, message in (
        ("journal", f"{tmp_path}/journal: its study is in {JOURNAL} there, not in sqlite:///other.db"),
        ("database", f"{tmp_path}/database: its study is in {sqlite}, not in sqlite:///other.db"),
    ):
        with pytest.raises(StudyError, match=f"^{re.escape(message)}: choose another --dir$"):
            Study.from_config(tmp_path / name, make_config(), "sqlite:///other.db")


def test_a_password_is_neither_kept_nor_shown(tmp_path: Path) -> None:
    url = parse("postgresql://me:secret@db.example/studies?sslmode=require")
    assert label(url) == "postgresql+psycopg://me@db.example/studies?sslmode=require"
    tmp_path.joinpath(ADDRESS).write_text(f'storage = "{label(url)}"\nstudy = "x"\n')
    place = find(tmp_path, "postgresql+psycopg://me:secret@db.example/studies?sslmode=require")
    assert place.url is not None
    assert (place.url.password, place.name) == ("secret", "x")
    assert "secret" not in place.label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "--storage nonsense: not an address. Known: "),
        ("mysql://u:secret@h/d", "--storage mysql://u@h/d: no database that can hold studies. Known: "),
        ("sqlite://", "--storage sqlite://: no database that can hold studies. Known: "),
        ("grpc:///x", "--storage grpc:///x: no database that can hold studies. Known: "),
    ],
)
def test_what_is_no_database(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=f"^{re.escape(message)}postgresql"):
        find(tmp_path, text)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://u@/d?host=/nowhere", "postgresql.*: cannot be reached: .*"),
        (
            "sqlite:////nowhere/at/all.db",
            "sqlite.*: (cannot be used: .*|there is no directory /nowhere/at: .*)",
        ),
        ("grpc://localhost:1", "grpc://localhost:1: no gRPC proxy answers there"),
    ],
)
def test_a_database_that_is_not_there_leaves_nothing_behind(
    tmp_path: Path, url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("grpc"):
        pytest.importorskip("grpc")
        monkeypatch.setattr(
            "optuna.storages.GrpcStorageProxy.wait_server_ready",
            lambda self, timeout: (_ for _ in ()).throw(ConnectionError),
        )
    with pytest.raises(StudyError, match=f"^(postgresql.*: cannot be used: .*|{message})$"):
        Study.from_config(tmp_path / "study", make_config(), url)
    with pytest.raises(StudyError, match=f"^({message})$"):
        plan_of(make_config(), tmp_path / "study", None, url)
    assert files(tmp_path) == set()


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, url, extra in (
        ("psycopg", "postgresql://u@h/d", "needs psycopg: pip install 'connsearch[postgres]'"),
        ("grpc", "grpc://h", "needs grpcio and protobuf: pip install 'connsearch[grpc]'"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(StudyError, match=f": {re.escape(extra)} "):
            check(parse(url))


def storage_line(tmp_path: Path, url: str | None, **changes: Any) -> str:
    return plan_of(make_config(**changes), tmp_path / "study", None, url).text.splitlines()[-2]


def test_a_plan_tests_the_storage(tmp_path: Path, sqlite: str, made_up: None) -> None:
    new, place = "storage    {}, new; ".format(tmp_path / "study"), tmp_path / "study"
    assert storage_line(tmp_path, None) == f"{new}journal file; fits the workers of one host"
    fits = r"SQLite 3[\d.]+; fits up to 4 workers, all on one host"
    assert re.fullmatch(re.escape(new) + fits, storage_line(tmp_path, sqlite))
    assert files(tmp_path) == set()
    Study.from_config(place, make_config(), sqlite).run(2)
    again = rf"storage    {place}, goes on after 2 finished trials; {fits}"
    assert re.fullmatch(again, storage_line(tmp_path, None))
    with pytest.raises(StudyError, match="holds another study: seed is 0 there, 1 here"):
        storage_line(tmp_path, None, seed=1)
    Path(f"{tmp_path}/studies.db").write_text("no database" * 100)
    with pytest.raises(StudyError, match="no SQLite database: file is not a database"):
        storage_line(tmp_path, sqlite)


@pytest.mark.slow
def test_a_plan_tests_postgresql(tmp_path: Path, made_up: None) -> None:
    with server_or_skip() as server:
        new = storage_line(tmp_path, server.url)
        assert re.search(
            r"; PostgreSQL \d+\.\d+; fits \d+ more workers, on any hosts \(\d+ connections are free\)$",
            new,
        )
        assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
        Study.from_config(tmp_path / "study", make_config(), server.url).run(1)
        assert "goes on after 1 finished trial; PostgreSQL" in storage_line(tmp_path, None)
