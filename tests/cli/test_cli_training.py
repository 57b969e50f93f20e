"""`train` and `retrain` from the command line: what is printed, what is written, how a mistake is told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny import NETWORK, SPACE, STUDY, Call, Result, call, failed

from connsearch.search.study import Study
from connsearch.spec import NetworkSpec
from connsearch.train import load_trained

DATA = "synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32, n_test=32)"
TRAIN = ["train", "net.toml", "--dataset", DATA, "-o", "out", "--device", "cpu", "--set", "batch_size=16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A directory with a study, its front retrained, and what that printed."""
    here = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name, text in (("space.toml", SPACE), ("study.toml", STUDY), ("net.toml", NETWORK)):
            Path(name).write_text(text)

        assert call("run", "study.toml", "--dir", "d", "--device", "cpu").code == 0
        files = ["--plot", "r.png", "--csv", "r.csv"]
        return here, call("retrain", "d", "--front", "--seeds", "0,1", "--device", "cpu", *files)


# ---- train ---------------------------------------------------------------------------------------------


def test_a_network_is_trained_and_tested(call: Call, here: Path) -> None:
    code, out, err = call(*TRAIN, "--epochs", 2, "--seeds", "0,1")
    assert code == 0
    lines = out.splitlines()
    assert re.fullmatch(
        r"small on synthetic\(.*\): [\d.]+ kMACs, .* 2 epochs on 64 training images", lines[0]
    )
    assert lines[1].split() == ["seed", "epochs", "train", "error", "val", "error", "test", "error", "time"]
    assert [line.split()[:2] for line in lines[2:4]] == [["0", "2"], ["1", "2"]]
    assert re.fullmatch(
        r"test error .* ± .* % \(mean and deviation of 2 seeds\), .* to .* %; 32 images", lines[4]
    )
    told = err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["seed 0"] * 3 + ["seed 1"] * 3 + ["wrote out"]
    assert re.match(r"seed 0: epoch 1/2: train error .* %, val error .* %, [\d.]+ s, about ", told[0])
    again = call(*TRAIN, "--epochs", 2, "--json")
    assert re.fullmatch(r"seed 0: test error .*, trained before\nwrote out\n", again.err)
    record = json.loads(again.out)
    assert [result["seed"] for result in record["results"]] == [0, 1]
    assert record == json.loads((here / "out" / "summary.json").read_text())


def test_a_recipe_fills_and_what_is_set_wins(call: Call, here: Path) -> None:
    changes = ["--recipe", "fast", "--set", "train.ema=0.5", "--set", 'pipeline="none"', "--epochs", "1"]
    assert call(*TRAIN, *changes).code == 0
    text = (here / "out" / "seed-0" / "train.toml").read_text()
    assert 'schedule = "one_cycle"' in text
    assert "ema = 0.5" in text
    assert "batch_size = 16" in text


def test_a_preset_takes_the_size_of_the_images(call: Call, here: Path) -> None:
    result = call("train", "resnet-20", *TRAIN[2:], "--epochs", "1", "--set", "batch_size=32")
    assert result.code == 0
    note = result.err.splitlines()[0]
    assert note == "resnet-20: with 1 x 8 x 8 images and 4 classes, as 'synthetic' has"
    spec = load_trained("out/seed-0/weights.safetensors").network.spec
    assert (spec.n_classes, spec.input.channels, spec.input.height) == (4, 1, 8)
    assert NetworkSpec.from_toml("out/seed-0/network.toml") == spec


def test_ctrl_c_says_how_to_go_on(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from connsearch.train.watching import ConsoleWatcher

    with monkeypatch.context() as patch:

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ConsoleWatcher, "epoch_ended", stop)
        stopped = call(*TRAIN, "--epochs", "3")
    assert stopped == Result(130, "", "Stopped. Run the same command again to go on with out.\n")
    again = call(*TRAIN, "--epochs", "3")
    assert again.code == 0
    assert again.err.splitlines()[0] == "seed 0: goes on after epoch 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "fst"], "recipe: unknown recipe 'fst'. Did you mean 'fast'?"),
        (["--set", "lrr=1"], "lrr: unknown key. Did you mean 'lr'?"),
        (["--set", "lr=fast"], "lr: must be a number, got 'fast'"),
        (["--seeds", "0;1"], "seeds are whole numbers with commas between them, such as 0,1,2, got '0;1'"),
        (["--dataset", "digts"], "dataset: unknown dataset 'digts'. Did you mean 'digits'?"),
        (
            ["--dataset", "synthetic"],
            "dataset 'synthetic' holds 3 x 16 x 16 images of 10 classes, the network",
        ),
        (["--device", "gpu"], "unknown device 'gpu': use 'cpu', 'cuda' or 'cuda:<number>'"),
        (["-o", "net.toml"], "net.toml: is a file: name a directory (-o)"),
    ],
)
def test_a_mistake_is_one_line(call: Call, here: Path, arguments: list[str], message: str) -> None:
    before = sorted(here.iterdir())
    result = call(*TRAIN, *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {message}")
    assert result.err.count("\n") == 1
    assert sorted(here.iterdir()) == before


# ---- retrain -------------------------------------------------------------------------------------------


def test_a_front_is_retrained(finished: tuple[Path, Result], ran: Path, call: Call) -> None:
    code, out, err = finished[1]
    assert code == 0
    lines = out.splitlines()
    assert re.fullmatch(r"d: \d trials?, 1 epochs? on 96 training \+ validation images", lines[0])
    numbers = set(Study.load("d").pareto_front().points["trial"])
    assert {int(line.split()[0]) for line in lines[2:-1]} == numbers
    assert err.splitlines()[-4:] == [
        "1 epoch, as in the study: --epochs N -o OUT trains longer",
        *("wrote d/retrained", "wrote r.png", "wrote r.csv"),
    ]
    assert (ran / "r.png").read_bytes().startswith(b"\x89PNG")
    assert (ran / "r.csv").read_text() == (ran / "d/retrained/summary.csv").read_text()
    record = json.loads(call("retrain", "d", "--front", "--seeds", "0", "--device", "cpu", "--json").out)
    assert record == json.loads((ran / "d/retrained/summary.json").read_text())
    assert all(each["seeds"] == 2 for each in record["trials"])


def test_longer_and_elsewhere(call: Call, ran: Path) -> None:
    longer = ["retrain", "d", "0", "--seeds", "3", "--epochs", "2", "--device", "cpu"]
    assert call(*longer) == failed(
        "d/retrained: holds other trainings: train.epochs is 1 there, 2 here: give the same, or name another "
        "directory (-o)"
    )
    result = call(*longer, "-o", "long")
    assert result.code == 0
    assert result.err.splitlines()[0].startswith("trial 0, seed 3: epoch 1/2: train error ")
    assert (ran / "long/trial-0/seed-3/weights.safetensors").exists()


def test_retrain_exact(call: Call, ran: Path) -> None:
    equal = Result(0, "trial 1: equal, all 1 epochs value for value\n", "")
    assert call("retrain", "--exact", "d", 1) == equal
    result = call("retrain", "d", 2, "--exact", "--json")
    assert json.loads(result.out) == {"trial": 2, "epochs": 1, "equal": True, "difference": "", "changed": {}}
    journal = ran / "d/journal.log"
    recorded = json.loads(journal.read_text().splitlines()[-1])
    assert recorded["op_code"] == 6  # the end of the last trial
    journal.write_text(re.sub(r'"train_loss":[\d.]+', '"train_loss":1.5', journal.read_text()))
    result = call("retrain", "--exact", "d", 1)
    assert result.code == 1
    assert re.match(r"trial 1: differs from epoch 1 on: train_loss 1\.5 recorded, [\d.]+ now\n", result.out)
    assert call("retrain", "--exact", "d", 9) == failed("d: no trial 9: it has 3, counted from 0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name TRIALs, or give --front (not both)"),
        (["0", "--front"], "name TRIALs, or give --front (not both)"),
        (["--exact"], "--exact takes one TRIAL"),
        (["0", "1", "--exact"], "--exact takes one TRIAL"),
        (["0", "--exact", "--epochs", "3"], "--exact takes one TRIAL"),
    ],
)
def test_usage(call: Call, ran: Path, arguments: list[str], message: str) -> None:
    result = call("retrain", "d", *arguments)
    assert result.code == 2
    assert message in re.sub(r"\s+", " ", result.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "0"], "nowhere: no study there"),
        (["d", "7"], "d: no trial 7: it has 3, counted from 0"),
        (["d", "0", "--plot", "r.gif"], "r.gif: cannot draw to a file ending in '.gif'."),
        (["d", "0", "--set", "lr"], "--set takes key=value, got 'lr'"),
    ],
)
def test_a_mistake_in_retrain_is_one_line(call: Call, ran: Path, arguments: list[str], message: str) -> None:
    result = call("retrain", *arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {message}")
    assert result.err.count("\n") == 1


# ---- export --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_export_takes_what_was_retrained_and_says_so(call: Call, ran: Path) -> None:
    record = json.loads((ran / "d/retrained/summary.json").read_text())
    number = record["trials"][0]["trial"]
    result = call("export", "d", number, "-o", "out", "--format", "python")
    assert result.err == ""  # nothing is trained again
    weights = f"d/retrained/trial-{number}/seed-0/weights.safetensors"
    assert re.fullmatch(
        rf"trial {number} of d, retrained for 1 epochs on training \+ validation images, seed 0, "
        rf"test error [\d.]+ % \({weights}\)",
        result.out.splitlines()[-1],
    )
    ours, theirs = (load_trained(path).network.state_dict() for path in ("out/weights.safetensors", weights))
    assert all((value == theirs[name]).all() for name, value in ours.items())
    studied = call("export", "d", number, "-o", "other", "--format", "toml", "--as-studied")
    assert studied.err.startswith(f"training trial {number} again: a study keeps no weights\n")


def test_export_of_what_is_not_retrained(call: Call, ran: Path) -> None:
    shutil.rmtree("d/retrained")
    message = "d: trial 0 is not retrained there: `connsearch retrain d 0` does that, --weights names a file"
    assert call("export", "d", 0, "-o", "out", "--retrained").err.startswith(f"Error: {message}")
    result = call("export", "d", 0, "-o", "out", "--retrained", "--inexact")
    assert result.code == 2
    assert "--retrained names the weights: leave out" in re.sub(r"\s+", " ", result.err)
