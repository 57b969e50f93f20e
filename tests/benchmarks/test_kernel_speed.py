"""Kernels are timed beside other ways to the same tensors; what is wrong is not timed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import kernel_cases
import kernel_speed
import pytest
import record
import torch
from kernel_cases import Case, Maps, chained_block, concat_norm_act, norm_act, normalized_block, paper_block
from kernel_speed import differs, measure
from speed_records import CHAINED, COMPILED, EAGER, NORMALIZED, OURS, PAPER, STACKED, latest_runs

pytestmark = pytest.mark.slow  # kernels are timed

FORMATS = [("float32", False), ("float32", True), ("bfloat16", True)]
NAMES = [
    "weighted sums, paper's form (2,3,5,4) float32 NCHW x 3",
    "weighted sums, normalized (2,3,5,4) float32 NCHW x 3",
    "weighted sums, chained (2,3,5,4) float32 NCHW x 3",
    "norm and ReLU (2,3,5,4) float32 NCHW x 1",
    "concatenation, norm and ReLU (2,6,5,4) float32 NCHW x 3",
]


def small(dtype: str = "float32", channels_last: bool = False) -> list[Case]:
    maps, wide = (Maps((2, C, 5, 4), dtype, channels_last) for C in (3, 6))
    blocks = [paper_block(maps, 3), normalized_block(maps, 3)]
    chained = [chained_block(maps, 3)] if dtype == "float32" else []
    return [*blocks, *chained, norm_act(maps), concat_norm_act(wide, (3, 1, 2))]


def uncompiled(case: Case) -> list[str]:
    return [way for way in case.ways if way != COMPILED]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where results go; the cases are small ones."""
    monkeypatch.setattr(record, "HERE", tmp_path)
    monkeypatch.setattr(kernel_speed, "makers", lambda *, quick: dict(zip(NAMES, MAKERS, strict=True)))
    return tmp_path / "results"


MAKERS = [lambda i=i: small()[i] for i in range(5)]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Return the exit code, or what is printed in place of one."""
    monkeypatch.setattr("sys.argv", ["kernel_speed.py", *words])
    with pytest.raises(SystemExit) as stopped:
        kernel_speed.main()
    return stopped.value.code


@pytest.mark.parametrize(("dtype", "channels_last"), FORMATS)
def test_all_ways_lead_to_the_same_tensors(dtype: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    loose = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 0.05, "atol": 0.3}
    for case in small(dtype, channels_last):
        exact = case.ways[EAGER]()
        outcomes, sources = {PAPER: (3, 3), NORMALIZED: (3, 3), CHAINED: (1, 1)}.get(
            case.operation, (1, case.n)
        )
        assert len(exact) == outcomes + sources + 1, "outcomes, gradients of sources and of parameters"
        for way in uncompiled(case):
            for a, b in zip(exact, case.ways[way](), strict=True):
                assert b.dtype == getattr(torch, dtype)
                torch.testing.assert_close(b, a, **loose)


def test_maps_are_laid_out_as_they_say() -> None:
    for dtype, channels_last in FORMATS:
        (x,) = Maps((2, 3, 5, 4), dtype, channels_last).draw(3)
        assert (x.dtype, x.is_leaf) == (getattr(torch, dtype), True)
        last = x.is_contiguous(memory_format=torch.channels_last)
        assert (last, x.is_contiguous()) == (channels_last, not channels_last)


def test_cases_are_called_what_they_are_asked_for_by() -> None:
    assert [str(case) for case in small()] == NAMES
    quick, all_of_them = (kernel_cases.makers(quick=quick) for quick in (True, False))
    assert len(quick) == len(all_of_them) == 25
    name = "weighted sums, paper's form (16,128,16,16) float32 NCHW x 6"
    assert str(quick[name]()) == name
    assert "weighted sums, normalized (64,256,8,8) bfloat16 channels_last x 24" in all_of_them


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what Inductor imports warns of itself
def test_the_compiled_loop_leads_there_too() -> None:
    for case in small()[:3]:
        assert not differs(case.ways[EAGER](), case.ways[COMPILED]())


@pytest.mark.parametrize(("dtype", "fine", "wrong"), [("float32", 0.009, 0.011), ("bfloat16", 0.05, 0.07)])
def test_a_difference_is_found(dtype: str, fine: float, wrong: float) -> None:
    x = torch.full((2, 5), -2.0, dtype=getattr(torch, dtype))
    assert differs([x, x], [x, x * (1 + fine)]) == ""
    assert differs([x, x], [x, x * (1 - wrong)]).startswith("outcome 1 is off by ")
    assert differs([x], [torch.where(x < 0, torch.nan, x)]) == "outcome 0 is off by nan"


def test_a_line_for_each_way_in_one_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--cases", "sums", "--repeats", "5") == 0
    lines = [json.loads(line) for line in (results / "kernel_speed.jsonl").read_text().splitlines()]
    assert [line["way"] for line in lines] == [EAGER, STACKED, OURS, EAGER, OURS, EAGER, STACKED, OURS]
    shared = {tuple(line[key] for key in ("run", "time", "commit", "load")) for line in lines}
    assert len(shared) == 1
    for line in lines:
        assert (line["shape"], line["n"], line["repeats"], line["threads"]) == ([2, 3, 5, 4], 3, 5, 1)
        assert (line["dtype"], line["channels_last"]) == ("float32", False)
        assert 0 < line["low_s"] <= line["step_s"] <= line["high_s"]
        assert line["first_s"] > 0
    found, _ = latest_runs(results)
    assert [[*run.ways] for run in found] == [[EAGER, STACKED, OURS], [EAGER, OURS], [EAGER, STACKED, OURS]]


def test_the_compiler_is_timed_in_the_same_rounds(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def made() -> Case:
        case = small()[0]
        ways = {way: lambda way=way: order.append(way) or case.ways[EAGER]() for way in case.ways}
        return replace(case, ways=ways)

    monkeypatch.setattr(kernel_speed, "makers", lambda *, quick: {"a": made})
    monkeypatch.setattr(kernel_speed, "cold_compiler", nullcontext)
    assert run(monkeypatch, "--repeats", "2", "--compile") == 0
    assert order == [EAGER, STACKED, COMPILED, OURS] * 3
    assert len((results / "kernel_speed.jsonl").read_text().splitlines()) == 4


def test_the_machine_is_asked_once_before_anything_runs(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(kernel_speed, "torch_machine", lambda: told.append("machine") or {"threads": 1})

    def measured(case: Case, *_: Any) -> list[dict[str, Any]]:
        told.append(case.operation)
        return measure(case, uncompiled(case), 1)

    monkeypatch.setattr(kernel_speed, "measure", measured)
    assert run(monkeypatch, "--cases", "norm and") == 0
    assert told == ["machine", "norm and ReLU", "concatenation, norm and ReLU"]


def test_what_is_wrong_is_not_timed_and_the_rest_is(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong() -> Case:
        case = small()[0]
        return replace(case, ways={**case.ways, OURS: lambda: [2 * x for x in case.ways[EAGER]()]})

    monkeypatch.setattr(kernel_speed, "makers", lambda *, quick: {NAMES[0]: wrong, NAMES[3]: MAKERS[3]})
    assert run(monkeypatch, "--repeats", "1") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {NAMES[0]}, not timed: ours: outcome 0 is off by 1.0e+00")
    assert error.count("\n") == 1
    lines = [json.loads(line) for line in (results / "kernel_speed.jsonl").read_text().splitlines()]
    assert {line["operation"] for line in lines} == {"norm and ReLU"}


def test_what_is_asked_for_in_vain_is_one_line(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = run(monkeypatch, "--cases", "blok")
    assert message == f"Error: no case contains 'blok', of {'; '.join(NAMES)}"
    assert not results.exists()


def test_without_kernels_nothing_runs(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_speed, "why_not", lambda: "no compiler")
    assert run(monkeypatch) == "Error: no compiler"
    assert not results.exists()


def test_quick_writes_nothing(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--quick", "--cases", "norm and ReLU (2,3") == 0
    assert not results.exists()


def test_memory_that_cannot_be_kept_is_not_said_to_be(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timing.keep_freed", lambda: False)
    monkeypatch.setattr("timing.malloc_policy", lambda: "MALLOC_TOP_PAD_=4")
    message = "Error: --keep-memory: malloc is not to be told so here: MALLOC_TOP_PAD_=4"
    assert run(monkeypatch, "--keep-memory") == message
    assert not results.exists()


@pytest.mark.parametrize("words", [("--repeats", "0"), ("--threads", "-1"), ("--threads", "one")])
def test_numbers_from_one_on(
    words: tuple[str, ...], results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert f"{words[1]!r} is no number from 1 on" in capsys.readouterr().err
