from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from connsearch.errors import ConnsearchError
from connsearch.files import write_whole


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_whole(path, b"one") == path
    assert write_whole(str(path), b"two") == path
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "Is a directory"),
        (".", "Is a directory"),
        ("there", "Is a directory"),
        ("nowhere/a.txt", "No such file or directory"),
        ("file/a.txt", "Not a directory"),
        ("a" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    path = tmp_path / name
    with pytest.raises(ConnsearchError, match=f"^{re.escape(str(path))}: cannot be written: {reason}$"):
        write_whole(path, b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "there"]
    assert os.listdir(tmp_path / "there") == []


@pytest.mark.parametrize("name", [".", "/", ""])
def test_a_path_without_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnsearchError, match=r"^[./]: cannot be written: "):
        write_whole(name, b"new")
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_half_way_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def full(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConnsearchError, match=r"a\.txt: cannot be written: No space left on device$"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]
