"""What the command line says when torchrun has started it as one of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from connsearch.cli import app

STUDY = Path(__file__).parents[2] / "studies" / "digits.toml"


@pytest.fixture(params=[0, 1])
def rank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One of two processes."""
    number: int = request.param
    for name, value in {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    return number


def test_a_study_is_refused_once_and_nothing_is_written(rank: int, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(STUDY), "--dir", str(tmp_path / "study")])
    assert result.exit_code == 1
    expected = (
        "Error: a study was started by torchrun in 2 processes, each of which would do all of it: "
        "start it without torchrun; --workers N runs N trials at once\n"
    )
    assert result.output == (expected if rank == 0 else "")
    assert not list(tmp_path.iterdir())


def test_a_typo_is_told_once(rank: int) -> None:
    result = CliRunner().invoke(app, ["cost", "nosuch-net"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: unknown preset 'nosuch-net'") == (rank == 0)
    assert bool(result.output) == (rank == 0)


def test_reading_is_for_any_process(rank: int) -> None:
    result = CliRunner().invoke(app, ["cost", "resnet-20"])
    assert result.exit_code == 0, result.output
