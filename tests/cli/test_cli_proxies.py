"""`connsearch proxies`, and what `plan` says of a warm start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny import SPACE, STUDY, Call


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text(SPACE)
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    return file


def test_a_study_is_judged_by_its_own_trials(call: Call, study: Path) -> None:
    assert call("run", str(study), "--trials", "9").code == 0
    early = call("proxies", "runs/study")
    assert (early.code, early.out) == (1, "")
    assert early.err.endswith("Error: runs/study: 9 trials can be ranked, correlations need 10: run more\n")
    assert call("run", str(study), "--trials", "10").code == 0
    found = call("proxies", "runs/study", "--proxy", "snip", "--proxy", "naswot", "--csv", "proxies.csv")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0] == "rank correlation with val_error over 10 trials [95 % interval]; best is -1"
    assert [line.split()[0] for line in lines[2:6]] == ["macs", "params", "snip", "naswot"]
    assert lines[6].startswith("clearly better than MACs: ")
    assert found.err.endswith("wrote proxies.csv\n")
    assert Path("proxies.csv").read_text().startswith("trial,val_error,macs,params,snip,naswot\n")
    data = json.loads(call("proxies", "runs/study", "--proxy", "snip", "--json").out)
    assert [each["proxy"] for each in data["proxies"]] == ["macs", "params", "snip"]


def test_a_typo_is_one_line(call: Call, study: Path) -> None:
    assert call("run", str(study), "--trials", "10").code == 0
    found = call("proxies", "runs/study", "--proxy", "synflo")
    assert (found.code, found.out) == (1, "")
    assert "Error: unknown proxy 'synflo'. Did you mean 'synflow'? Known: " in found.err


def test_the_plan_names_the_first_trials(call: Call, study: Path) -> None:
    found = call("plan", str(study), "--set", 'warm_start={presets=["densenet-40-12"]}', "--set",
                 'prefilter={proxy="snip"}')  # fmt: skip
    assert found.code == 1
    assert (
        "warm_start.presets: preset 'densenet-40-12' has aggregation concat, the space sum: put it"
        in found.err
    )
    found = call("plan", str(study), "--set", 'warm_start={presets=["resnet-20"]}', "--set",
                 'prefilter={proxy="snip"}')  # fmt: skip
    assert found.code == 0
    starts = [line for line in found.out.splitlines() if line.startswith(("start", "filter"))]
    assert starts[0].startswith(
        "start      trial 0 is resnet-20 at 52 k MACs: dense x sum, layers 1, widths "
    )
    assert starts[1].startswith("filter     snip picks 1 of 4 candidates at one budget, from 20 finished")


def test_the_plan_names_the_other_study(call: Call, study: Path, tmp_path: Path) -> None:
    assert call("run", str(study)).code == 0
    table = ["--set", 'warm_start={study="runs/study", trials=2}', "--set", "seed=1", "--dir", "runs/next"]
    found = call("plan", str(study), *table)
    assert found.code == 0, found.err
    starts = [line for line in found.out.splitlines() if line.startswith("start")]
    assert len(starts) == 3
    assert " of study at " in starts[0]
    assert starts[2] == "start      the sampler sees 3 trials of study besides its own"
    away = call("plan", str(study), "--set", 'warm_start={study="runs/other"}', "--dir", "runs/next")
    assert away.code == 1
    assert away.err.startswith(f"Error: warm_start.study: {tmp_path / 'runs/other'}: no study there")
