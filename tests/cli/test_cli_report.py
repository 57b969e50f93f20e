"""`report`, by its whole output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_up_study import made_up_study
from tiny import Call, Result, failed

N = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a study in `d`."""
    return made_up_study(tmp_path_factory.mktemp("report"), N)


@pytest.fixture
def study(made: Path, here: Path) -> Path:
    """The study, copied to `d` in the working directory."""
    return shutil.copytree(made / "d", here / "d")


def test_a_report_is_written_here(call: Call, study: Path, here: Path) -> None:
    assert call("report", "d") == Result(0, f"Finished: {N} of {N} trials.\n", "wrote report.html\n")
    page = (here / "report.html").read_text()
    assert "<h1>Which one?</h1>" in page
    assert "connsearch retrain d 0 --seeds 0,1,2" in page


def test_a_report_replaces_what_was_there(call: Call, study: Path, here: Path) -> None:
    (here / "r.html").write_text("old")
    assert call("report", "d", "-o", "r.html", "--no-importance").code == 0
    first = (here / "r.html").read_bytes()
    assert call("report", "d", "-o", "r.html").code == 0
    assert (here / "r.html").read_bytes() == first
    assert not list(here.glob(".r.html*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no study there: run one with `connsearch run STUDY.toml --dir nowhere`"),
        (["d", "-o", "no/r.html"], "no/r.html: there is no directory no: make it first"),
        (["d", "-o", "d"], "d: is a directory: name a file"),
        (
            ["d", "--tournament", "d"],
            "d: is no tournament: make one with `connsearch tournament STUDY.toml`",
        ),
        (
            ["d", "--tournament", "nowhere"],
            "nowhere: no study there: run one with `connsearch run STUDY.toml --dir nowhere`",
        ),
    ],
)
def test_mistakes(call: Call, study: Path, here: Path, arguments: list[str], message: str) -> None:
    assert call("report", *arguments) == failed(message)
    assert not (here / "report.html").exists()
