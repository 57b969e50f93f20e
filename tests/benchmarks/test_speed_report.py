"""The tables of speed: what the README says is what the records hold, and what is missed is said."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import plot_bars
import pytest
import speed_records
import speed_report
import speed_words
import timing
from made_up_speed import kernel_lines, network_lines
from speed_records import latest, latest_runs
from speed_report import README, rewritten, tables
from speed_tables import evaluation, kernels, promises, training

from connsearch.errors import SpecError


def test_the_tables_of_the_readme_are_those_of_the_records() -> None:
    page = README.read_text(encoding="utf-8")
    assert rewritten(page, tables(*latest_runs())) == page, "python benchmarks/speed_report.py --write"


@pytest.mark.parametrize("module", [plot_bars, speed_records, speed_words, timing], ids=lambda m: m.__name__)
def test_examples_of_docstrings(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert (found.attempted > 0, found.failed) == (True, 0)


def networks(*lines: list[dict[str, Any]]) -> list[speed_records.Run]:
    return latest("compiled_speed", [line for some in lines for line in some])


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_steps_of_training() -> None:
    table = training(networks(network_lines(first_s=30.0), network_lines(mode="inference")))
    assert table.splitlines()[0] == (
        "2 x Made Up, 1 thread, batch 64 (commit abcdef0, torch 2.13.0+cpu, 2026-11-22 20:00, load 0.1):"
    )
    assert rows(table) == [
        ["DelugeNet-146", "float32, NCHW", "definition", "8.00 [7.20, 8.80]", "", "0.50 [0.41, 0.61]", "30.0",
         "1,000"],
        ["", "", "stacked", "24.0 [21.6, 26.4]", "0.33 [0.27, 0.41]", "0.17 [0.14, 0.20]", "30.0", "1,000"],
        ["", "", "torch.compile", "4.00 [3.60, 4.40]", "2.00 [1.64, 2.44]", "", "30.0", "1,000"],
        ["", "", "default", "5.00 [4.50, 5.50]", "1.60 [1.31, 1.96]", "0.80 [0.65, 0.98]", "30.0", "1,000"],
        ["", "", "fused", "2.00 [1.80, 2.20]", "4.00 [3.27, 4.89]", "2.00 [1.64, 2.44]", "30.0", "1,000"],
    ]  # fmt: skip


def test_settings_have_tables_of_their_own_and_formats_stand_beside_each_other() -> None:
    last = network_lines(channels_last=True, run="b")
    half = network_lines(channels_last=True, dtype="bfloat16", run="c")
    two, gpu = (
        network_lines(threads=2, run="d"),
        network_lines(gpu="A GPU", device="cuda", batch=256, run="e"),
    )
    table = training(networks(half, two, last, network_lines(), gpu))
    heads = [line.partition(" (")[0] for line in table.splitlines() if line.endswith("):")]
    assert heads == [
        "2 x Made Up, 1 thread, batch 64", "2 x Made Up, 2 threads, batch 64", "A GPU, 1 thread, batch 256",
    ]  # fmt: skip
    formats = [row[1] for row in rows(table) if row[0]][:3]
    assert formats == ["float32, NCHW", "float32, channels last", "bfloat16, channels last"]


def test_figures_with_freed_memory_kept_stand_apart() -> None:
    kept = kernel_lines(run="k", malloc="keeps")
    both = kernels(latest("kernel_speed", [*kernel_lines(), *kept]))
    assert [line.partition(" (")[0] for line in both.splitlines() if line.endswith("):")] == [
        "2 x Made Up, 1 thread",
        "2 x Made Up, 1 thread, freed memory kept",
    ]
    promised = [row[-1] for row in rows(both) if row[0].startswith("16 layers")]
    assert [bool(words) for words in promised] == [True, False]
    assert "not measured" in promises(networks(network_lines(malloc="keeps")))
    evaluated = networks(network_lines(mode="inference", malloc="keeps"))
    assert evaluation(evaluated).startswith("2 x Made Up, float32, NCHW, freed memory kept (")


def test_a_warm_compiler_is_said_and_so_is_how_threads_wait() -> None:
    old = [{key: value for key, value in line.items() if key != "run"} for line in network_lines()]
    assert "load 0.1, torch.compile with what it had in its caches):" in training(networks(old))
    assert "caches" not in training(networks([line for line in old if line["way"] != "torch.compile"]))
    assert "caches" not in training(networks(network_lines()))
    assert "load 0.1, OMP_WAIT_POLICY=passive):" in training(
        networks(network_lines(omp_wait_policy="passive"))
    )


def test_what_was_promised_of_training_is_there_whether_or_not_it_was_measured() -> None:
    nothing = rows(promises([]))
    assert len(nothing) == 8
    assert {row[-1] for row in nothing} == {"not measured"}
    found = rows(promises(networks(network_lines(first_s=12.5))))
    assert [row[3:] for row in found[:3]] == [
        ["at least 1.8", "12.0"], ["at least 1", "2.00"], ["at most 1.5", "**1.56, missed**"],
    ]  # fmt: skip
    assert [row[-1] for row in found[3:]] == ["not measured"] * 5


@pytest.mark.parametrize(("peak", "said"), [(500, "0.50"), (501, "**0.50, missed**")])
def test_a_peak_is_promised_as_a_share(peak: int, said: str) -> None:
    lines = network_lines("densenet-bc-100-12", peak_bytes=1000)
    lines[-1]["peak_bytes"] = peak
    assert rows(promises(networks(lines)))[-1][-1] == said


@pytest.mark.parametrize("other", [{"gpu": "A GPU", "device": "cuda"}, {"batch": 32}, {"mode": "inference"}])
def test_nothing_was_promised_of_others(other: dict[str, Any]) -> None:
    assert {row[-1] for row in rows(promises(networks(network_lines(**other))))} == {"not measured"}


def test_evaluation_beside_what_was_promised() -> None:
    plain = network_lines("densenet-121", mode="inference", batch=1)
    missed = network_lines("densenet-121", mode="inference", batch=32, threads=2, run="b", first_s=3.1)
    missed[-1] |= {"step_s": 4.1, "low_s": 4.0, "high_s": 4.2}
    assert rows(evaluation(networks(missed, plain))) == [
        ["DenseNet-121", "1", "1", "8,000 [7,200, 8,800]", "2,000 [1,800, 2,200]", "4.00 [3.27, 4.89]",
         "3.00"],
        ["DenseNet-121", "32", "2", "8,000 [7,200, 8,800]", "4,100 [4,000, 4,200]",
         "**1.95 [1.71, 2.20], missed**", "**3.10, missed**"],
    ]  # fmt: skip
    assert evaluation([]) == "No run of five repeats or more is recorded."


def test_kernels_beside_what_was_promised() -> None:
    found = latest("kernel_speed", [
        *kernel_lines(dtype="bfloat16", channels_last=True, run="b"),
        *kernel_lines(),
        *kernel_lines("weighted sums, normalized", run="c"),
        *kernel_lines("concatenation, norm and ReLU", shape=[64, 204, 32, 32], run="d"),
    ])  # fmt: skip
    paper, half, normalized, concat = rows(kernels(found))
    assert paper == [
        "16 layers, paper's form", "64 x 128 x 16 x 16", "float32, NCHW", "10.0 [9.00, 11.0]",
        "7.00 [5.73, 8.56]", "2.00 [1.64, 2.44]", "1.15 [0.94, 1.41]", "6 (stacked), 1.1 (torch.compile)",
    ]  # fmt: skip
    assert (half[2], half[-1]) == ("bfloat16, channels last", "")
    assert normalized[5:] == [
        "**2.00 [1.64, 2.44], missed**",
        "1.15 [0.94, 1.41]",
        "4 (eager), 1.1 (torch.compile)",
    ]
    assert concat[0] == "concatenation, norm and ReLU of 16"


def test_kernels_without_the_compiler() -> None:
    lines = [line for line in kernel_lines() if line["way"] != "torch.compile"]
    assert rows(kernels(latest("kernel_speed", lines)))[0][6] == ""


def test_a_page_is_rewritten_between_its_marks_and_nowhere_else() -> None:
    page = "a\n<!-- one -->\nold\n<!-- end of one -->\nb\n"
    once = rewritten(page, {"one": "| x |"})
    assert once == "a\n<!-- one -->\n\n| x |\n\n<!-- end of one -->\nb\n"
    assert rewritten(once, {"one": "| x |"}) == once
    assert rewritten("<!-- one -->\n<!-- end of one -->\n", {"one": "x"}) == (
        "<!-- one -->\n\nx\n\n<!-- end of one -->\n"
    )


@pytest.mark.parametrize("page", ["", "<!-- one -->\n", "\n<!-- end of one -->\n<!-- one -->\n"])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(SpecError, match="no place for the table 'one': it goes between <!-- one --> and"):
        rewritten(page, {"one": "x"})


def test_tables_are_printed_or_written_with_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = latest("kernel_speed", kernel_lines()), networks(network_lines())
    page, picture = tmp_path / "README.md", tmp_path / "speed.png"
    page.write_text("".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in tables(*found)))
    for name, value in (("README", page), ("PICTURE", picture), ("latest_runs", lambda: found)):
        monkeypatch.setattr(speed_report, name, value)
    monkeypatch.setattr(sys, "argv", ["speed_report.py"])
    speed_report.main()
    assert capsys.readouterr().out == "\n\n".join(tables(*found).values()) + "\n"
    assert not picture.exists()
    monkeypatch.setattr(sys, "argv", ["speed_report.py", "--write"])
    speed_report.main()
    assert capsys.readouterr().out == f"wrote {page}\nwrote {picture}\n"
    assert all(table in page.read_text() for table in tables(*found).values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(speed_report, "latest_runs", lambda: ([], []))
    before = page.read_text()
    with pytest.raises(SystemExit, match=r"^Error: nothing to draw"):
        speed_report.main()
    assert page.read_text() == before
