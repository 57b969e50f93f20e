"""Figures of speed are compared with what was timed in the same run, and with nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from made_up_speed import kernel_lines, network_lines
from speed_records import Run, latest, latest_runs, read, runs

BEGAN = datetime.fromisoformat("2026-11-22T12:00:00")


def without_id(lines: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "run"} | more for line in lines]


def speedups(found: list[Run], way: str = "fused", than: str = "definition") -> list[float | None]:
    ratios = [run.speedup(way, than=than) for run in found]
    return [None if ratio is None else ratio.middle for ratio in ratios]


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Lines of several invocations, with ids and written at once or without and one after the other."""
    found: list[list[dict[str, Any]]] = []
    has_id = draw(st.booleans())
    for origin in range(draw(st.integers(1, 5))):
        time = (BEGAN + timedelta(minutes=origin)).isoformat()
        about = {"origin": origin, "run": f"r{origin}", "time": time, "step_s": float(1 + origin)}
        lines = [
            line
            for network in draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=3))
            for line in network_lines(network, **about)
            if draw(st.booleans())
        ]
        found.append(lines if has_id else without_id(lines))
    if not has_id:
        return [line for lines in found for line in lines]
    mixed = []
    while any(found):
        mixed.append(draw(st.sampled_from([lines for lines in found if lines])).pop(0))
    return mixed


@given(records())
def test_no_run_holds_lines_of_two(lines: list[dict[str, Any]]) -> None:
    found = runs("compiled_speed", lines)
    assert sum(len(run.ways) for run in found) == len(lines)
    for run in found:
        assert len({(line["origin"], line["network"]) for line in run.ways.values()}) == 1
        assert all(way == line["way"] for way, line in run.ways.items())


def test_lines_with_an_id_are_of_one_run_wherever_they_stand() -> None:
    ours, others = network_lines(run="a"), network_lines(run="b", step_s=1.0)
    mixed = [line for pair in zip(ours, others, strict=True) for line in pair]
    assert speedups(runs("compiled_speed", mixed)) == [4.0, 1.0]


def test_a_network_that_occurs_twice_is_two_runs() -> None:
    twice = [*network_lines(), *network_lines(step_s=1.0)]
    assert speedups(runs("compiled_speed", twice)) == [4.0, 1.0]
    assert speedups(runs("compiled_speed", without_id(twice))) == [4.0, 1.0]


APART = {
    "a minute later": {"time": "2026-11-22T20:01:00"},
    "at another commit": {"commit": "1234567"},
    "another number of repeats": {"repeats": 7},
    "another network": {"network": "densenet-121"},
    "another number of threads": {"threads": 2},
    "another batch": {"batch": 32},
    "another format": {"channels_last": True},
    "another machine": {"cpu": "Another"},
}


@pytest.mark.parametrize("change", APART.values(), ids=APART.keys())
def test_lines_without_an_id_that_differ_are_of_two_runs(change: dict[str, Any]) -> None:
    definition, *_, fused = without_id(network_lines())
    assert speedups(runs("compiled_speed", [definition, fused])) == [4.0]
    assert speedups(runs("compiled_speed", [definition, {**fused, **change}])) == [None, None]


def test_lines_without_an_id_are_of_one_run_seconds_apart_and_whether_or_not_there_were_changes() -> None:
    definition, *_, fused = without_id(network_lines())
    later = {**fused, "time": "2026-11-22T20:00:02", "commit": f"{fused['commit']}+changes"}
    assert speedups(runs("compiled_speed", [definition, later])) == [4.0]


def test_a_line_without_an_id_joins_no_run_but_the_one_before_it() -> None:
    definition, *_, fused = without_id(network_lines())
    between = without_id(network_lines("densenet-121"))
    assert speedups(runs("compiled_speed", [definition, *between, fused])) == [None, 4.0, None]
    assert speedups(runs("compiled_speed", [*network_lines()[:1], fused])) == [None, None]


def test_the_latest_run_counts_that_has_repeats_enough_and_something_to_compare() -> None:
    good = network_lines(run="a", repeats=5)
    few, none = network_lines(run="b", repeats=4, step_s=1.0), network_lines(run="c", step_s=1.0)
    for line in none:
        del line["repeats"]
    no_baseline, alone = network_lines(run="d")[1:], network_lines(run="e")[:1]
    lines = [*network_lines(run="0", step_s=1.0), *good, *few, *none, *no_baseline, *alone]
    assert speedups(latest("compiled_speed", lines)) == [4.0]
    assert speedups(latest("compiled_speed", [*lines, *network_lines(run="f", step_s=1.0)])) == [1.0]


def test_each_case_has_a_latest_run() -> None:
    lines = [*network_lines(), *network_lines(threads=2, run="b"), *network_lines(mode="inference", run="c")]
    assert len(latest("compiled_speed", lines)) == 3
    shapes = [*kernel_lines(), *kernel_lines(shape=[1, 2, 3, 4]), *kernel_lines("norm and ReLU")]
    assert len(latest("kernel_speed", shapes)) == 3


def test_the_ends_of_a_ratio_are_those_of_both_quartiles() -> None:
    (run,) = runs("compiled_speed", network_lines())
    ratio = run.speedup("fused", than="definition")
    assert ratio == pytest.approx((8 / 2, 7.2 / 2.2, 8.8 / 1.8))


def test_lines_of_an_older_form_are_left_out(tmp_path: Path) -> None:
    old = {"case": "block (64,128,16,16) fp32 NCHW x 16", "torch_ms": 3.0, "ours_ms": 1.0}
    lines = [old, *kernel_lines()]
    (tmp_path / "kernel_speed.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [line["way"] for line in read("kernel_speed", tmp_path)] == [
        "eager", "stacked", "torch.compile", "ours",
    ]  # fmt: skip
    of_kernels, of_networks = latest_runs(tmp_path)
    assert (len(of_kernels), of_networks) == (1, [])


def test_lines_without_a_policy_of_freed_memory_are_of_the_default(tmp_path: Path) -> None:
    lines = [*kernel_lines(run="a"), *kernel_lines(run="b", malloc="default")]
    (tmp_path / "kernel_speed.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [run.line["run"] for run in latest("kernel_speed", read("kernel_speed", tmp_path))] == ["b"]
