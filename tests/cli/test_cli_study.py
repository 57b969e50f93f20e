"""`plan`, `run`, `status`, `front` on a study that trains for real, in a second."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import SPACE, STUDY, Call, Result, call, failed

from connsearch.cost import network_cost
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.space import SearchSpace
from connsearch.search.study import Study

PERCENT = r"\d+\.\d %"
WHAT = r"(chain|dense) x sum, layers \d, widths \d+"
TRIAL = rf"\[(\d)/\d\] trial \d: error {PERCENT}, [\d.]+ kMACs, {WHAT}, \d+\.\d s · .*"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A directory in which the study has run, and what the run printed."""
    here = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        Path("space.toml").write_text(SPACE)
        Path("study.toml").write_text(STUDY)
        return here, call("run", "study.toml", "--device", "cpu")


# ---- plan ----------------------------------------------------------------------------------------------


def test_plan(call: Call, here: Path) -> None:
    before = sorted(here.rglob("*"))
    result = call("plan", "study.toml")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:3] == [
        "question   Which one?",
        "space      2 kinds (categories), searched: macs_budget, topology, n_layers_1",
        "members    20.8 k to 86.4 k MACs, 368 to 1.44 k parameters, 1 to 3 layers (100 drawn)",
    ]
    assert lines[3] == f"budget     {members_within(100)} % of these lie within 2 % below it, none above"
    assert re.fullmatch(r"training   synthetic\(.*\), 1 epoch, batch 16; activations up to 250 kB", lines[4])
    assert re.fullmatch(r"time       about \d+ s a trial, \d+ s for 3 trials with sampler random", lines[5])
    assert lines[6] == "storage    runs/study, new; journal file; fits the workers of one host"
    assert re.fullmatch(
        r"workers    up to (\d+) at once on this host \(\d+ cores, [\d.]+ .B of free memory\): --workers \1",
        lines[7],
    )
    assert len(lines) == 8
    assert sorted(here.rglob("*")) == before


def test_plan_without_the_data_set(call: Call, here: Path) -> None:
    dataset = '{ name = "parquet", path = "nowhere" }'
    result = call("plan", "study.toml", "--set", f"train.dataset={dataset}")
    assert result.code == 1
    assert re.fullmatch(r"Error: .*nowhere.*\n", result.err)
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "question", "space", "members", "budget", "training", "storage", "workers"
    ]  # fmt: skip
    assert lines[4].endswith("; activations up to 250 kB; the data set cannot be had: nothing is timed")


def members_within(n: int) -> int:
    """Return how many of so many members of the space of seed 0 use 98 to 100 % of their budget."""
    space, rng = SearchSpace.from_toml("space.toml"), random.Random(0)
    members = [space.draw(rng) for _ in range(n)]
    return sum(0.98 <= network_cost(spec).macs / budget.macs <= 1 for _, budget, spec in members)


def test_plan_of_a_study_that_has_begun(call: Call, ran: Path) -> None:
    result = call("plan", "study.toml")
    assert result.out.splitlines()[-2] == (
        "storage    runs/study, finished: nothing is left of 3 trials; journal file; fits the workers of one "
        "host"
    )
    more = call("plan", "study.toml", "--set", "n_trials=4")
    assert more.out.splitlines()[-2] == (
        "storage    runs/study, goes on after 3 finished trials; journal file; fits the workers of one host"
    )
    other = call("plan", "study.toml", "--set", "seed=1")
    assert other == failed("runs/study: holds another study: seed is 0 there, 1 here; choose another --dir")


# ---- run -----------------------------------------------------------------------------------------------


def test_run(finished: tuple[Path, Result]) -> None:
    here, result = finished
    assert result.code == 0
    assert [re.fullmatch(TRIAL, line)[1] for line in result.err.splitlines()] == ["1", "2", "3"]
    closing = (
        rf"runs/study: 3 complete, 0 failed, 0 pruned; best trial \d: val_error {PERCENT}, macs [\d.]+ k\n"
    )
    assert re.fullmatch(closing, result.out)
    assert {file.name for file in (here / "runs/study").iterdir()} == {"journal.log", "study.toml", "lock"}


def test_the_same_command_again_runs_nothing(call: Call, ran: Path, finished: tuple[Path, Result]) -> None:
    assert call("run", "study.toml") == Result(0, finished[1].out, "")
    assert call("run", "study.toml", "--trials", 2) == Result(0, finished[1].out, "")


def test_more_trials_go_on(call: Call, ran: Path) -> None:
    result = call("run", "study.toml", "--trials", 5, "--set", "question=Still?")
    assert result.code == 0
    assert [line[:13] for line in result.err.splitlines()] == ["[4/5] trial 3", "[5/5] trial 4"]
    assert result.out.startswith("runs/study: 5 complete, 0 failed, 0 pruned; best trial ")


def test_the_copy_of_the_study_runs_too(call: Call, ran: Path) -> None:
    again = call("run", "runs/study/study.toml", "--dir", "runs/again")
    assert again.code == 0

    def reached(path: str) -> list[tuple[dict[str, Any], list[float]]]:
        return [(trial.params, trial.values) for trial in Study.load(path).trials()]

    assert reached("runs/again") == reached("runs/study")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_copy_is_not_written_over_by_its_own_study(call: Call, here: Path, command: str) -> None:
    before = sorted(here.rglob("*"))
    assert call(command, "study.toml", "--dir", ".") == failed(
        ".: holds a study.toml that is no study's copy: choose another --dir"
    )
    assert (here / "study.toml").read_text() == STUDY
    assert sorted(here.rglob("*")) == before


def test_overrides_make_another_study(call: Call, ran: Path) -> None:
    assert call("run", "study.toml", "--set", "space.blocks.topology=chain") == failed(
        "runs/study: holds another study: space.blocks.topology is {'any_of': ['chain', 'dense']} there, "
        "chain here; choose another --dir"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "train.dataset=digts"],
         "study.toml: train.dataset: unknown dataset 'digts'. Did you mean 'digits'? "
         "Known: cifar_binary, digits, hub, idx, image_folder, mask_folder, parquet, synthetic."),
        (["--set", "train.dataset=digits"],
         "dataset 'digits' holds 1 x 8 x 8 images of 10 classes, the network takes 1 x 8 x 8 images and "
         "knows 4 classes: set input = { channels = 1, height = 8, width = 8 } and n_classes = 10"),
        (["--set", "train.dataset.n_train=0"], "dataset 'synthetic': n_train must be 1 or more, got 0"),
        (["--set", "space=other.toml"], "other.toml: no such file"),
        (["--set", "space.budget.macs=20_000"],
         "budget: no chain x sum fits: macs: the least possible is 20,752 (widths 4 of 1 layers), "
         "over the budget of 20,000: raise macs or use fewer layers"),
        (["--set", "epochs"], "--set takes key=value, got 'epochs'"),
        (["--set", "train.epochs=ten"], "study.toml: train.epochs: must be an integer, got 'ten'"),
        (["--set", "sampler=tpee"],
         "study.toml: sampler: unknown sampler 'tpee'. Did you mean 'tpe'? Known: gp, nsga2, random, tpe."),
        (["--device", "gpu"], "unknown device 'gpu': use 'cpu', 'cuda' or 'cuda:<number>'"),
        (["--set", "sampler={ name = 'nsga2', population_size = 1 }"],
         "sampler 'nsga2': population_size must be 2 or more, got 1"),
        (["--set", "sampler={ name = 'tpe', n_startup_trials = -1 }"],
         "sampler 'tpe': n_startup_trials must be 0 or more, got -1"),
        (["--set", "space.budget.macs=30_000"],
         "budget: no member drawn comes within 2 % of its budget, the closest uses 69.2 % of 30,000 macs: "
         "raise the budget or its tolerance"),
        (["--set", "self=1"], "study.toml: self: unknown key. Known: {}, seed, space, {}."),
        (["--set", "train.dataset.seed=18446744073709551616"],
         "dataset 'synthetic': seed must be at most 18446744073709551615, got 18446744073709551616"),
        (["--device", "mps"], "unknown device 'mps': use 'cpu', 'cuda' or 'cuda:<number>'"),
        (["--device", "cuda:99"], None),
        (["--dir", "net.toml"], "net.toml: cannot be written: {}; choose another directory"),
        (["--dir", "net.toml/below"], "net.toml/below: cannot be written: {}; choose another directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_study_that_cannot_start_leaves_nothing_behind(
    call: Call, here: Path, command: str, args: list[str], message: str | None
) -> None:
    before = sorted(here.rglob("*"))
    result = call(command, "study.toml", *args)
    assert result.code == 1
    assert not result.out or (command == "plan" and "; the data set cannot be had: " in result.out)
    pattern = ".*" if message is None else re.escape(message).replace(r"\{\}", ".*")
    assert re.fullmatch(f"Error: {pattern}\n", result.err), result.err
    assert sorted(here.rglob("*")) == before


def test_a_study_whose_space_is_missing(call: Call, here: Path) -> None:
    (here / "space.toml").unlink()
    for command in ("plan", "run"):
        assert call(command, "study.toml") == failed("space.toml: no such file")


def test_an_interrupt_is_no_error(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.attempt.evaluate_network", interrupt)
        assert call("run", "study.toml", "--dir", "d") == Result(
            130, "", "Stopped. Run the same command again to go on with d.\n"
        )
    assert call("status", "d").out.startswith(
        "trials   0 of 3 finished: 0 complete, 0 failed, 0 pruned, 1 unfinished\n"
    )
    assert call("run", "study.toml", "--dir", "d").code == 0


# ---- status --------------------------------------------------------------------------------------------


def test_status(call: Call, ran: Path) -> None:
    result = call("status", "runs/study")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        "trials   3 of 3 finished: 3 complete, 0 failed, 0 pruned, 0 unfinished\n"
        rf"best     trial \d: val_error {PERCENT}, macs [\d.]+ k\n"
        r"volume   [\d.e+]+, measured from val_error 100.0 %, macs 90 k\n"
        r"rate     [\d.e+]+ trials an hour lately, \d+ s a trial; nothing left\n"
        r"last     a trial ended .* ago\n",
        result.out,
    )


def test_status_json(call: Call, ran: Path) -> None:
    result = call("status", "runs/study", "--json")
    assert (result.code, result.err) == (0, "")
    status = json.loads(result.out)
    first = ["asked", "states", "best", "seconds_per_trial", "reasons", "running"]
    more = ["workers", "hypervolume", "reference", "trials_per_hour", "worker_seconds", "seconds_left"]
    assert list(status) == [*first, *more, "seconds_since_last"]
    assert status["asked"] == 3
    assert status["states"] == {"complete": 3, "failed": 0, "pruned": 0, "unfinished": 0}
    assert list(status["best"]) == ["trial", "val_error", "macs"]
    assert status["seconds_per_trial"] > 0
    assert status["reasons"] == {}
    assert status["running"] == status["workers"] == []
    assert status["seconds_left"] == 0.0
    assert status["trials_per_hour"] > 0
    assert status["reference"] == {"val_error": 1.0, "macs": 90_000.0}


def test_status_tells_who_runs_what(call: Call, ran: Path) -> None:
    study = Study.load("runs/study")
    storage, key = study._study._storage, study._study._study_id
    leases = [
        {"host": "here", "pid": 7, "epoch": 2, "time": time.time()},
        {"host": "there", "pid": 8, "epoch": 0, "time": time.time() - 600},
        {"host": "nowhere", "pid": 9, "epoch": 0, "time": time.time(), "released": True},
    ]
    for lease in leases:
        storage.set_trial_user_attr(storage.create_new_trial(key), "lease", lease)
    assert call("status", "runs/study").out.splitlines()[-2:] == [
        "running  trial 3 on here, process 7: epoch 2 done, seen 0 s ago",
        "running  trial 4 on there, process 8: epoch 0 done, seen 10 min 0 s ago; silent, to be taken over",
    ]


# ---- storage, workers ----------------------------------------------------------------------------------


def test_a_study_in_a_database(call: Call, here: Path) -> None:
    url = "sqlite:///studies.db"
    new = call("plan", "study.toml", "--storage", url)
    assert re.fullmatch(
        r"storage    runs/study, new; SQLite 3[\d.]+; fits up to 4 workers, all on one host",
        new.out.splitlines()[-2],
    )
    ran = call("run", "study.toml", "--storage", url, "--trials", 1)
    assert (ran.code, ran.out.partition(";")[0]) == (0, "runs/study: 1 complete, 0 failed, 0 pruned")
    assert call("run", "study.toml", "--trials", 2).out.startswith("runs/study: 2 complete")
    for args in (["status", "runs/study"], ["status", "runs/study", "--storage", url]):
        assert call(*args).out.startswith("trials   2 of 2 finished")
    assert call("front", "runs/study", "--storage", url).code == 0
    other = call("run", "study.toml", "--storage", "sqlite:///other.db")
    assert other == failed(
        "runs/study: its study is in sqlite:///studies.db, not in sqlite:///other.db: choose another --dir"
    )
    assert not Path("other.db").exists()


@pytest.mark.slow
def test_several_workers(call: Call, here: Path) -> None:
    result = call("run", "study.toml", "--workers", 2, "--trials", 4, "--device", "cpu")
    assert (result.code, result.out.partition(";")[0]) == (0, "runs/study: 4 complete, 0 failed, 0 pruned")
    assert [line[:5] for line in result.err.splitlines()] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert call("run", "study.toml", "--workers", 2, "--trials", 4) == Result(0, result.out, "")


# ---- front ---------------------------------------------------------------------------------------------


def test_front(call: Call, ran: Path) -> None:
    result = call("front", "runs/study")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{Study.load('runs/study').pareto_front()}\n"
    lines = result.out.splitlines()
    assert re.fullmatch(r"Pareto front: \d of 3 trials", lines[0])
    assert lines[1].split() == [
        "trial", "macs", "params", "val_error", "topology", "aggregation", "n_layers", "widths",
    ]  # fmt: skip
    assert re.fullmatch(r"hypervolume [\d.e+]+, measured from val_error 100.0 %, macs 90 k", lines[-1])


def test_front_json(call: Call, ran: Path) -> None:
    result = call("front", "runs/study", "--json")
    assert (result.code, result.err) == (0, "")
    front = json.loads(result.out)
    assert list(front) == ["objectives", "points", "hypervolume", "reference"]
    assert front["objectives"] == ["val_error", "macs"]
    assert front["reference"] == {"val_error": 1.0, "macs": 90_000.0}
    trials = {trial.number: trial for trial in Study.load("runs/study").trials()}
    for point in front["points"]:
        assert list(point)[:4] == ["trial", "macs", "params", "val_error"]
        assert [type(point[key]) for key in ("trial", "macs", "params", "val_error")] == [
            int,
            int,
            int,
            float,
        ]
        assert [point["val_error"], point["macs"]] == trials[point["trial"]].values


def test_front_files(call: Call, ran: Path) -> None:
    names = ["f.svg", "f.png", "f.html", "f.csv"]
    plain = call("front", "runs/study")
    result = call(
        "front", "runs/study", "--plot", "f.svg", "--plot", "f.png", "--plot", "f.html", "--csv", "f.csv"
    )
    assert result == Result(0, plain.out, "".join(f"wrote {name}\n" for name in names))
    starts = [b"<?xml", b"\x89PNG", b"<!", b"trial,macs,params,val_error,"]
    for name, start in zip(names, starts, strict=True):
        assert (ran / name).read_bytes()[:30].lower().startswith(start.lower())
    assert len(pd.read_csv("f.csv")) == 3
    front = Study.load("runs/study").pareto_front()
    assert ParetoFront.from_csv("f.csv", reference=front.reference) == front


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--plot", "a.gif"],
            "a.gif: cannot draw to a file ending in '.gif'. Known: .html, .pdf, .png, .svg.",
        ),
        (["--plot", "nowhere/a.svg"], "nowhere/a.svg: there is no directory nowhere: make it first"),
        (["--plot", "nowhere/a.html"], "nowhere/a.html: there is no directory nowhere: make it first"),
        (["--csv", "nowhere/a.csv"], "nowhere/a.csv: there is no directory nowhere: make it first"),
        (
            ["--plot", "a.png", "--csv", "nowhere/a.csv"],
            "nowhere/a.csv: there is no directory nowhere: make it first",
        ),
        (["--csv", "."], ".: is a directory: name a file"),
        (["--plot", "a.png", "--csv", "runs"], "runs: is a directory: name a file"),
        (["--plot", "a.png", "--plot", "b.svg/"], "b.svg: is a directory: name a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_front_files_that_cannot_be(call: Call, ran: Path, args: list[str], message: str) -> None:
    (ran / "b.svg").mkdir()
    before = sorted(ran.rglob("*"))
    result = call("front", "runs/study", *args)
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(f"Error: {message}\n", result.err), result.err
    assert sorted(ran.rglob("*")) == before


@pytest.mark.parametrize(
    ("objectives", "labels"),
    [
        (["val_error", "params"], ["parameters", "validation error (%)"]),
        (["params", "macs"], ["MACs per image (multiply-accumulates)", "parameters"]),
        (["training_bytes"], ["training bytes", "validation error (%)"]),
        (["val_error"], ["MACs per image (multiply-accumulates)", "validation error (%)"]),
        (["params", "val_error", "macs"], ["MACs per image (multiply-accumulates)", "validation error (%)"]),
    ],
    ids=" ".join,
)
def test_a_front_is_drawn_in_the_studys_own_objectives(
    call: Call, here: Path, objectives: list[str], labels: list[str]
) -> None:
    table = ", ".join(f'{name} = "minimize"' for name in objectives)
    assert call("run", "study.toml", "--dir", "d", "--set", f"objectives={{ {table} }}").code == 0
    assert call("front", "d", "--plot", "f.svg", "--plot", "f.html").code == 0
    comments = re.findall(r"<!-- (.*) -->", (here / "f.svg").read_text())
    assert [text for text in comments if text in labels] == labels
    page = (here / "f.html").read_text()
    assert [f'"label": "{label}"' in page for label in labels] == [True, True]


def test_the_front_of_a_study_without_trials(call: Call, here: Path) -> None:
    from connsearch.search.config import StudyConfig

    Study.from_config("d", StudyConfig.from_toml("study.toml"))
    assert call("front", "d") == Result(0, "Pareto front: no trial yet that can be ranked\n", "")
    assert json.loads(call("front", "d", "--json").out)["points"] == []
    result = call("front", "d", "--plot", "a.svg")
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(r"Error: .*no complete trial.*\n", result.err)
    assert (
        call("status", "d").out == "trials   0 of 3 finished: 0 complete, 0 failed, 0 pruned, 0 unfinished\n"
    )


@pytest.mark.parametrize("command", [["status"], ["front"], ["front", "--json"]], ids=" ".join)
def test_a_directory_without_a_study(call: Call, here: Path, command: list[str]) -> None:
    (here / "empty").mkdir()
    (here / "damaged").mkdir()
    (here / "damaged/journal.log").write_bytes(b"\xff\n\xff\n")
    for place in (".", "empty", "nowhere", "net.toml"):
        assert call(*command, place) == failed(
            f"{place}: no study there: run one with `connsearch run STUDY.toml --dir {place}`"
        )
    result = call(*command, "damaged")
    assert (result.code, result.out) == (1, "")
    assert re.fullmatch(
        r"Error: damaged/journal\.log: no study's journal, or damaged \(.*\): restore it, .*\n", result.err
    )
