"""Files that survive a loss of power, and what killed processes leave."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from connsearch.errors import ConnsearchError
from connsearch.files import remove_leftovers, write_whole


def test_a_durable_file_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a.txt", []
    sync, replace = os.fsync, os.replace

    def traced_sync(descriptor: int) -> None:
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append("names" if file == tmp_path else file.read_bytes().decode())
        sync(descriptor)

    def traced_replace(source: Path, target: Path) -> None:
        done.append("replaced")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(os, "replace", traced_replace)
    write_whole(path, b"one", durable=True)
    assert done == ["one", "replaced", "names"]
    write_whole(path, b"two")
    assert done[3:] == ["replaced"], "waits only if asked to"
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("nth", "content"), [(1, b"old"), (2, b"new")])
def test_a_disk_that_fails_to_sync_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, content: bytes
) -> None:
    path, calls = tmp_path / "a.txt", []
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        ConnsearchError, match=f"^{re.escape(str(path))}: cannot be written: Input/output error"
    ):
        write_whole(path, b"new", durable=True)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_system_that_syncs_no_directories_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    assert write_whole(tmp_path / "a.txt", b"new", durable=True).read_bytes() == b"new"


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        write_whole(tmp_path / "a.txt", b"new", durable=True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["a.txt", "a[12]*?.txt"])
def test_leftovers_of_one_file_go_and_nothing_else(tmp_path: Path, name: str) -> None:
    for other in (
        name,
        f".{name}.12.tmp",
        f".{name}.7.tmp",
        ".b.txt.12.tmp",
        f"{name}.12.tmp",
        ".a1.txt.1.tmp",
    ):
        (tmp_path / other).touch()
    remove_leftovers(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted([name, ".b.txt.12.tmp", f"{name}.12.tmp", ".a1.txt.1.tmp"])
    remove_leftovers(tmp_path / name)


def test_leftovers_that_stay_are_an_error(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.12.tmp").mkdir()
    with pytest.raises(ConnsearchError, match=r"a\.txt: leftovers cannot be removed: Is a directory$"):
        remove_leftovers(tmp_path / "a.txt")
