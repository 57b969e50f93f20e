"""The journal file: whole lines only, whoever is killed and however full the disk is."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import dying
import pytest
from made_up import make_config

import copies
from connsearch.errors import StudyError
from connsearch.search.storages.journal import Journal
from connsearch.search.study import Study


def journal(path: Path) -> Journal:
    return Journal(path / "journal.log", path / "lock")


def test_lines_are_appended_and_read(tmp_path: Path) -> None:
    one, other = journal(tmp_path), journal(tmp_path)
    one.append_logs([{"a": 1}])
    assert list(other.read_logs(0)) == [{"a": 1}]
    other.append_logs([{"b": "é"}, {"c": [1, 2]}])
    assert list(one.read_logs(1)) == [{"b": "é"}, {"c": [1, 2]}]
    assert (tmp_path / "journal.log").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("torn", [b'{"half": ', b"x" * 200_000])
@pytest.mark.parametrize("whole", [b"", b'{"a":1}\n'])
def test_the_end_of_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, whole: bytes, torn: bytes) -> None:
    (tmp_path / "journal.log").write_bytes(whole + torn)
    reader, writer = journal(tmp_path), journal(tmp_path)
    before = list(reader.read_logs(0))
    writer.append_logs([{"b": 2}])
    assert (tmp_path / "journal.log").read_bytes() == whole + b'{"b":2}\n'
    assert [*before, *reader.read_logs(len(before))] == [json.loads(line) for line in whole.splitlines()] + [
        {"b": 2}
    ]


@pytest.mark.parametrize("written", [0, 5])
def test_a_write_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    target = journal(tmp_path)
    target.append_logs([{"a": 1}])
    write, parts = os.write, [written]

    def full(file: int, data: Any) -> int:
        if not parts or not parts[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: parts.pop()])

    message = (
        f"{tmp_path / 'journal.log'}: cannot be written: No space left on device; what was finished "
        "is in it: make room and run the same command again"
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StudyError, match=f"^{re.escape(message)}$"):
            target.append_logs([{"b": 2}])
    assert (tmp_path / "journal.log").read_bytes() == b'{"a":1}\n'
    target.append_logs([{"c": 3}])
    assert list(target.read_logs(0)) == [{"a": 1}, {"c": 3}]


LINES = 120  # that each writer appends


@pytest.mark.large
def test_writers_that_are_killed_harm_nobody(tmp_path: Path) -> None:
    writers = [copies.start(dying.append, tmp_path, index, LINES) for index in range(4)]
    for count, writer in zip((20, 50), writers[:2], strict=True):
        while not (tmp_path / "journal.log").exists() or len(list(journal(tmp_path).read_logs(0))) < count:
            assert writer.is_alive()
        writer.kill()
    for writer in writers:
        writer.join()
    logs = list(journal(tmp_path).read_logs(0))
    for index in range(4):
        lines = [log["line"] for log in logs if log["writer"] == index]
        assert lines == list(range(len(lines)))
        assert len(lines) == LINES or index < 2


@pytest.mark.slow
@pytest.mark.parametrize("room", [10, 9_000])
def test_a_study_whose_disk_is_full_says_so_and_goes_on_later(tmp_path: Path, room: int) -> None:
    unbroken = Study.from_config(tmp_path / "unbroken", make_config())
    unbroken.run(3)
    study = Study.from_config(tmp_path / "full", make_config())
    path = study.directory / "journal.log"
    told = tmp_path / "told"
    process = copies.start(dying.run_on_a_full_disk, str(study.directory), path.stat().st_size + room, told)
    process.join()
    assert process.exitcode == 0
    message = f"{path}: cannot be written: File too large; what was finished is in it: make room .*"
    assert re.fullmatch(message, told.read_text())
    assert path.read_bytes().endswith(b"\n")
    again = Study.load(study.directory)
    assert again.run(3) > 0

    def reached(study: Study) -> list[Any]:
        return [(trial.number, trial.params, trial.values) for trial in study.trials()]

    assert reached(again) == reached(unbroken)
