"""`tournament` and `replicate` on a study that trains for real, in a second."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import SPACE, STUDY, Call, Result, call, failed

ALL = ["tournament", "study.toml", "--device", "cpu", "--seeds", "2"]
COARSE = SPACE + "tolerance = 0.3\n"
TABLE = '\n[tournament]\naggregations = ["sum", "concat"]\ntopologies = ["dense", "chain"]\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Result]:
    """A directory with a study, its tournament and its replicates, and what the two calls printed."""
    here = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        Path("space.toml").write_text(COARSE)
        Path("study.toml").write_text(STUDY + TABLE)

        won = call(*ALL, "--plot", "t.png", "--csv", "t.csv", "--matrix", "m.svg")
        assert call("run", "study.toml", "--device", "cpu").code == 0
        again = call(
            "replicate", "runs/study", "--device", "cpu", "--margin", "1", "--trials", "7", "--plot", "r.pdf",
            "--csv", "r.csv",
        )  # fmt: skip
    return here, won, again


# ---- tournament ----------------------------------------------------------------------------------------


def test_a_tournament(finished: tuple[Path, Result, Result]) -> None:
    here, (code, out, err), _ = finished
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "3 networks x 2 seeds at 52 kMACs, 1 block of 2 layers"
    assert lines[1].split() == [
        "rank",
        "network",
        "params",
        "MACs",
        "error",
        "%",
        "95",
        "%",
        "behind",
        "95",
        "%",
        "p",
    ]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
    assert re.search(r"none of 2 comparisons is significant at 5 %", out)
    assert [line[:6] for line in err.splitlines()[:6]] == [f"[{n}/6] " for n in range(1, 7)]
    assert err.splitlines()[6:] == ["wrote t.png", "wrote m.svg", "wrote t.csv"]
    assert all((here / name).stat().st_size > 100 for name in ("t.png", "m.svg", "t.csv"))
    assert len((here / "t.csv").read_text().splitlines()) == 7
    assert (here / "runs/study-tournament/journal.log").is_file()


def test_the_same_command_again_trains_nothing(
    call: Call, ran: Path, finished: tuple[Path, Result, Result]
) -> None:
    assert call(*ALL) == Result(0, finished[1].out, "")
    assert call(*ALL, "--no-run") == Result(0, finished[1].out, "")


def test_json_of_a_tournament(call: Call, ran: Path) -> None:
    result = call(*ALL, "--json")
    found = json.loads(result.out)
    assert (found["rounds"], found["asked"], found["shape"]["macs"]) == (2, 2, 52_000)
    assert {row["rank"] for row in found["contestants"]} == {1, 2, 3}


def test_more_seeds_are_asked_for_later(call: Call, ran: Path) -> None:
    unfinished = call("tournament", "study.toml", "--seeds", 3, "--no-run")
    assert "unfinished: 2 of 3 rounds are complete" in unfinished.out
    result = call("tournament", "study.toml", "--seeds", 3, "--device", "cpu")
    assert result.out.startswith("3 networks x 3 seeds at")
    assert [line[:6] for line in result.err.splitlines()] == [f"[{n}/9] " for n in range(7, 10)]


def test_the_copy_of_a_tournament_is_one_too(
    call: Call, ran: Path, finished: tuple[Path, Result, Result]
) -> None:
    copied = call("tournament", "runs/study-tournament/study.toml", "--dir", "runs/study-tournament")
    assert copied == Result(0, finished[1].out, "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.toml"], "nothing.toml: no such file"),
        (["study.toml", "--set", "tournament.seed=3"],
         "study.toml: tournament.seed: unknown key. Did you mean 'seeds'? Known: aggregations, contestants, "
         "count, left_out, macs, n_layers, seeds, topologies, width_ratio."),
        (["study.toml", "--plot", "t.jpg"],
         "t.jpg: cannot draw to a file ending in '.jpg'. Did you mean '.png'? Known: .pdf, .png, .svg."),
        (["study.toml", "--csv", "no/t.csv"], "no/t.csv: there is no directory no: make it first"),
        (["study.toml", "--macs", "53000"],
         "runs/study-tournament: holds another study: space.budget.macs is 52000 there, 53000 here; choose "
         "another --dir"),
        (["study.toml", "--no-run", "--dir", "d"],
         "d: no study there: run one with `connsearch run STUDY.toml --dir d`"),
    ],
    ids=["no file", "unknown key", "suffix", "no directory", "another budget", "nothing there"],
)  # fmt: skip
def test_mistakes_are_one_line(call: Call, ran: Path, args: list[str], message: str) -> None:
    before = sorted(ran.rglob("*"))
    assert call("tournament", *args, "--device", "cpu") == failed(message)
    assert sorted(ran.rglob("*")) == before


def test_a_study_is_no_tournament(call: Call, ran: Path) -> None:
    result = call(*ALL, "--dir", "runs/study")
    assert result.code == 1
    assert result.err.startswith("Error: runs/study: holds another study: ")


def interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_is_no_error(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "study.toml").write_text(STUDY + TABLE)
    (here / "space.toml").write_text(COARSE)
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", interrupt)
    stopped = "Stopped. Run the same command again to go on with d; --no-run prints what there is.\n"
    assert call(*ALL, "--dir", "d") == Result(130, "", stopped)
    assert call(*ALL, "--dir", "d", "--no-run") == failed(
        "no round is complete yet: 0 of 3 contestants were trained with the first seeds; run the same "
        "command again to go on"
    )


# ---- replicate -----------------------------------------------------------------------------------------


def test_replicates(finished: tuple[Path, Result, Result]) -> None:
    here, _, (code, out, err) = finished
    assert code == 0
    n = len((here / "r.csv").read_text().splitlines()) - 1
    assert re.fullmatch(rf"{n} candidates, \d trainings with fresh seeds", out.splitlines()[0])
    assert re.search(
        r"^with one seed errors were \d+\.\d\d points too (low|high) on average, those of", out, re.M
    )
    assert err.splitlines()[-2:] == ["wrote r.pdf", "wrote r.csv"]
    assert (here / "r.pdf").stat().st_size > 1_000


def test_replicates_again(call: Call, ran: Path, finished: tuple[Path, Result, Result]) -> None:
    assert call("replicate", "runs/study", "--no-run") == Result(0, finished[2].out, "")
    assert call("replicate", "runs/study", "--trials", 2) == Result(0, finished[2].out, "")
    plain: dict[str, Any] = json.loads(call("replicate", "runs/study", "--no-run", "--json").out)
    assert plain.keys() >= {"objectives", "points", "hypervolume", "candidates", "trainings", "optimism"}
    assert call("status", "runs/study/replicates").code == 0


def test_mistakes_with_replicates_are_one_line(call: Call, ran: Path) -> None:
    assert call("replicate", "runs/other") == failed(
        "runs/other: no study there: run one with `connsearch run STUDY.toml --dir runs/other`"
    )
    assert call("replicate", "runs/study", "--margin", "0.1") == failed(
        "runs/study/replicates: replicates have begun there, and whose they are stays: remove it to choose "
        "again, or leave out --margin and --candidates"
    )
    assert call("replicate", "runs/study-tournament", "--no-run") == failed(
        "runs/study-tournament: no replicates there: begin them with `connsearch replicate "
        "runs/study-tournament`"
    )
    assert call("replicate", "runs/study", "--margin", "2").code == 2


def test_an_interrupted_replicate_is_no_error(call: Call, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", interrupt)
    assert call("replicate", "runs/study-tournament", "--device", "cpu") == Result(
        130, "", "Stopped. Run the same command again to go on with runs/study-tournament; --no-run prints "
        "what there is.\n",
    )  # fmt: skip
