from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from tiny import NETWORK, SPACE, STUDY, Call, Result


@pytest.fixture
def call() -> Call:
    """Call the command line: see `tiny.call`."""
    return tiny.call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with space.toml, study.toml and net.toml."""
    for name, text in (("space.toml", SPACE), ("study.toml", STUDY), ("net.toml", NETWORK)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ran(finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, a copy of the one that a module's `finished` has made."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
