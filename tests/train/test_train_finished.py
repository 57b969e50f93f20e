"""What seeds amount to: spread, summary, progress on a terminal and elsewhere; which seeds are asked for."""

from __future__ import annotations

import io
import math
import re
import statistics
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from connsearch.errors import SpecError, TrainError
from connsearch.train import EpochRecord, SeedResult, Summary, read_summary
from connsearch.train.finished import to_csv
from connsearch.train.seeds import parse_seeds
from connsearch.train.spread import Spread
from connsearch.train.watching import ConsoleWatcher, Watcher


def made(seed: int, error: float | None, *, iou: float | None = None) -> SeedResult:
    return SeedResult(seed, 2, error is None, 75.0, 0.2, None, None, None, error, iou)


def summary(*results: SeedResult) -> Summary:
    return Summary("net", 1_000_000, 50_000, "digits", ("train", "val"), 1437, 360, 2, results)


def test_the_interval_is_students() -> None:
    values = [0.11, 0.14, 0.12, 0.19]
    found = Spread.of(values)
    scale = statistics.stdev(values) / math.sqrt(4)
    assert found.interval == pytest.approx(
        stats.t.interval(0.95, 3, loc=statistics.fmean(values), scale=scale)
    )
    assert (found.mean, found.deviation) == pytest.approx((0.14, statistics.stdev(values)))


def test_few_seeds_claim_little() -> None:
    assert (Spread.of([0.1]).deviation, Spread.of([0.1]).interval) == (None, None)
    two = Spread.of([0.1, 0.2])
    assert two.deviation == pytest.approx(0.0707, abs=1e-4)
    assert two.interval is None
    assert two.sentence() == "15.00 ± 7.07 % (mean and deviation of 2 seeds), 10.00 to 20.00 %"
    assert Spread.of([0.1]).sentence() == "10.00 % (1 seed: nothing is known of its spread)"
    assert Spread.of([0.0, 0.0, 0.02]).sentence().endswith("mean at 95 %: 0.00 to 3.54 %")


def test_a_diverged_seed_is_told_and_in_no_mean() -> None:
    found = summary(made(0, 0.1), made(1, None), made(2, 0.3))
    assert found.test_error == Spread.of([0.1, 0.3])
    assert found.to_dict()["diverged"] == 1
    assert str(found) == (
        "net on digits: 1 MMACs, 50 k parameters, 2 epochs on 1437 training + validation images\n"
        "seed      epochs  train error  test error        time\n"
        "   0           2      20.00 %     10.00 %  1 min 15 s\n"
        "   1  2 diverged      20.00 %           -  1 min 15 s\n"
        "   2           2      20.00 %     30.00 %  1 min 15 s\n"
        "test error 20.00 ± 14.14 % (mean and deviation of 2 seeds), 10.00 to 30.00 %; 360 images\n"
        "1 of 3 seeds diverged, a loss was not finite: they are in no mean; a lower lr may help"
    )


def test_of_pixels_the_mean_iou_is_there_too() -> None:
    found = summary(made(0, 0.1, iou=0.5), made(1, 0.2, iou=0.7))
    assert found.to_dict()["test_mean_iou"]["mean"] == pytest.approx(0.6)
    lines = str(found).splitlines()
    assert re.split(r" {2,}", lines[1])[-3:] == ["test error", "test mean IoU", "time"]
    assert lines[-1] == (
        "test mean IoU 60.00 ± 14.14 % (mean and deviation of 2 seeds), 50.00 to 70.00 %; 360 images"
    )


def test_files_come_back(tmp_path: Path) -> None:
    found = summary(made(0, 0.1), made(1, None))
    assert read_summary(tmp_path) is None
    found.write(tmp_path)
    assert read_summary(tmp_path) == found
    (tmp_path / "summary.json").write_text('{"name": "x"}')
    with pytest.raises(
        TrainError, match=r"summary\.json: is no summary of trainings: KeyError\('macs'\): delete it"
    ):
        read_summary(tmp_path)


def test_a_table_of_rows_with_different_keys() -> None:
    assert to_csv([{"a": 1}, {"a": 2, "b": None}, {"b": "x,y"}]) == b'a,b\n1,\n2,\n,"x,y"\n'


@pytest.mark.parametrize("text", ["", "a", "1;2", "1.5", "0,,1"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match=rf"^seeds are whole numbers .*, got '{re.escape(text)}'$"):
        parse_seeds(text)


def test_seeds_once_each_in_their_order() -> None:
    assert parse_seeds("3,0,3, 7") == (3, 0, 7)
    with pytest.raises(SpecError, match=r"^seeds are 0 to 9223372036854775807, got 9223372036854775808$"):
        parse_seeds("9223372036854775808")


# ---- progress ------------------------------------------------------------------------------------------


def watched(*, terminal: bool) -> str:
    """Return what is printed of a seed that goes on after an epoch, and of one that was done before."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with ConsoleWatcher(console) as watcher:
        watcher.about = "trial 3, "
        watcher.seed_started(7, 3)
        watcher.epoch_ended(EpochRecord(1, 0.1, 2.0, 0.5, 2.0, 0.6, 60.0), again=True)
        watcher.epoch_ended(EpochRecord(2, 0.1, 2.0, 0.4, 2.0, 0.5, 60.0, 0.25))
        watcher.epoch_ended(EpochRecord(3, 0.1, 2.0, 0.3, None, None, 60.0))
        watcher.seed_ended(made(7, 0.1, iou=0.5), now=True)
        watcher.seed_ended(made(8, None), now=False)
    return file.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    assert watched(terminal=False).splitlines() == [
        "trial 3, seed 7: goes on after epoch 1",
        "trial 3, seed 7: epoch 2/3: train error 40.0 %, val error 50.0 %, val mean IoU 25.0 %, 60.0 s, "
        "about 1 min 0 s left",
        "trial 3, seed 7: epoch 3/3: train error 30.0 %, 60.0 s",
        "trial 3, seed 7: test error 10.0 %, test mean IoU 50.0 %, 2 epochs in 1 min 15 s",
        "trial 3, seed 8: diverged after 2 epochs, trained before",
    ]


def test_a_live_line_on_a_terminal() -> None:
    text = watched(terminal=True)
    assert "\x1b[" in text  # the cursor goes back
    assert "trial 3, seed 7: epoch 3/3: train error 30.0 %, 60.0 s" in text
    printed = [line for line in text.replace("\r", "\n").splitlines() if "test error" in line]
    assert len(printed) == 1


def test_nobody_is_told_by_default() -> None:
    watcher = Watcher()
    watcher.seed_started(0, 1)
    watcher.seed_ended(made(0, 0.1), now=True)
    watcher.note("x")
