"""What benchmarks write beside their figures, and what their scripts share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import record
import torch
from record import append, machine, torch_machine
from timing import cold_compiler


def test_the_machine() -> None:
    found = machine()
    assert [*found] == ["time", "commit", "cpu", "load", "python"]
    assert found["cpu"].startswith(f"{os.cpu_count()} x ")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_machine_without_torch() -> None:
    """Plain Python is not timed beside what torch has in memory."""
    code = "import sys, record; record.machine(); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=record.__file__.rpartition("/")[0], check=False
        ).returncode
        == 0
    )


def test_the_machine_of_networks_has_an_id_for_each_run() -> None:
    ours, others = torch_machine(), torch_machine()
    assert ours["commit"] == machine()["commit"]
    assert (ours["threads"], ours["torch"]) == (torch.get_num_threads(), torch.__version__)
    assert ours["run"] != others["run"]
    json.dumps(ours)


def test_a_commit_is_said_to_be_another_where_sources_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.setattr(record, "HERE", tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "source.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "--short", "HEAD").strip()
    assert record.commit() == head
    append("speed", {"a": 1})
    assert record.commit() == head, "results are no source"
    (tmp_path / "source.py").write_text("2")
    assert record.commit() == f"{head}+changes"


def test_lines_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "HERE", tmp_path)
    append("speed", {"a": 1})
    append("speed", {"a": 2})
    lines = (tmp_path / "results" / "speed.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"benchmark": "speed", "a": a} for a in (1, 2)]


def test_a_cold_compiler_has_folders_of_its_own_and_the_old_ones_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/warm")
    monkeypatch.setattr(torch, "compile", lambda run: run)
    folders = []
    for _ in range(2):
        with cold_compiler(["definition", "torch.compile max-autotune"]):
            folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
            assert not any(Path(folders[-1]).iterdir())
    assert len({*folders, "/warm"}) == 3
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/warm"
    with cold_compiler(["definition", "fused"]):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/warm", "nothing to be cold"
