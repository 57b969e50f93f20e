"""`bench`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tiny import NETWORK, Call, Result

from connsearch.nn import bench, machine
from connsearch.nn.bench import Measurement


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.toml"
    path.write_text(NETWORK)
    return path


KEYS = {  # of a line, with units, and their types
    "run": str, "time": str, "connsearch": str, "python": str, "torch": str, "cpu": str, "cores": int,
    "load": float, "threads": int, "omp_wait_policy": str, "malloc": str,
    "network": str, "batch": int, "dtype": str, "channels_last": bool, "device": str, "repeats": int,
    "way": str, "mode": str, "first_s": float, "step_s": float, "low_s": float, "high_s": float,
    "peak_bytes": int, "backend": str, "bytes_moved": int, "least_bytes_moved": int, "saved_bytes": int,
    "least_saved_bytes": int,
}  # fmt: skip
UNKNOWN = {  # of ways that run no kernels, or no program
    "definition": {"backend"}, "stacked": {"backend", "bytes_moved", "saved_bytes"}, "fused": set(),
}  # fmt: skip


@pytest.mark.large
def test_a_line_for_each_way_and_mode(call: Call, net: Path) -> None:
    ways = ["definition", "stacked", "fused"]
    options = [word for way in ways for word in ("--pipeline", way)]
    result = call("bench", net, *options, "--batch", 2, "--repeats", 2, "--json")
    assert (result.code, result.err) == (0, "")
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [(r["way"], r["mode"]) for r in records] == [(w, m) for w in ways for m in ("train", "inference")]
    assert len({record["run"] for record in records}) == 1
    for record in records:
        assert list(record) == list(KEYS)
        unknown = UNKNOWN[record["way"]]
        assert {key for key, value in record.items() if value is None} == unknown
        assert all(type(record[key]) is KEYS[key] for key in KEYS if key not in unknown)
        assert 0 < record["low_s"] <= record["step_s"] <= record["high_s"]
        assert record["first_s"] > 0
        assert record["peak_bytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("option", "mode"), [("--train", "train"), ("--inference", "inference")])
def test_one_mode_in_less_precision(call: Call, net: Path, option: str, mode: str) -> None:
    options = [option, "--dtype", "bfloat16", "--channels-last", "--batch", 2, "--repeats", 1]
    result = call("bench", net, *options)
    assert (result.code, result.err) == (0, "")
    about, header, *rows = result.out.splitlines()
    assert about.startswith("small: batch 2, bfloat16, channels last, ")
    assert header.split()[:2] == ["way", "mode"]
    assert [row.split()[:2] for row in rows] == [["definition", mode], ["fused", mode]]


MEASURED = [Measurement("fused", "train", 1.0, 0.5, 0.25, 0.75, 2_000_000, "cpu", 4_000_000, 10**6, 0, 0)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a measurement, which is not made, was asked for; the machine is busier after it."""
    found: dict[str, object] = {}
    loads = iter([0.5, 9.0])

    def measured(spec: object, ways: list[str], **settings: object) -> list[Measurement]:
        os.getloadavg()
        found.update(settings, ways=ways, threads=torch.get_num_threads())
        return MEASURED

    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0.0, 0.0))
    monkeypatch.setattr(machine, "_cpu_name", lambda info: "Fast 3000")
    monkeypatch.setattr(bench, "bench_network", measured)
    return found


TABLE = """\
small: batch 8, float32, channels first, Fast 3000, 3 threads, load 0.5
way    mode   first step s  step ms    quartiles ms  times fused  peak MB  moved MB / least  saved MB / least
fused  train          1.00    500.0  250.0 to 750.0         1.00      2.0         4.0 / 1.0             0 / 0
"""


def test_the_whole_output(call: Call, net: Path, asked: dict[str, object]) -> None:
    result = call("bench", net, "--batch", 8, "--threads", 3, "--pipeline", "fused", "--pipeline", "fused")
    assert result == Result(0, TABLE, "")
    assert {key: asked[key] for key in ("ways", "modes", "batch", "repeats", "threads")} == {
        "ways": ["fused"], "modes": ("train", "inference"), "batch": 8, "repeats": 5, "threads": 3,
    }  # fmt: skip


@pytest.mark.usefixtures("asked")
def test_facts_are_of_the_machine_before_it_measures(call: Call, net: Path) -> None:
    record = json.loads(call("bench", net, "--json", "--threads", 2, "--channels-last").out)
    assert (record["load"], record["threads"], record["cpu"]) == (0.5, 2, "Fast 3000")
    settings = {
        "network": "small", "batch": 64, "dtype": "float32", "channels_last": True, "device": "cpu",
        "repeats": 5,
    }  # fmt: skip
    assert {key: record[key] for key in settings} == settings
    assert {key: record[key] for key in Measurement._fields} == MEASURED[0]._asdict()


@pytest.mark.usefixtures("asked")
def test_lines_are_appended_to_a_file(call: Call, net: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"way": "older"}\n')
    result = call("bench", net, "--output", path, "--threads", 3, "--batch", 8)
    assert result == Result(0, TABLE, f"wrote {path}\n")
    assert [json.loads(line)["way"] for line in path.read_text().splitlines()] == ["older", "fused"]


def test_a_file_that_cannot_be_written_is_refused_before_measuring(call: Call, net: Path) -> None:
    where = net.parent / "none"
    result = call("bench", net, "--output", where / "r.jsonl")
    assert result == Result(1, "", f"Error: {where}/r.jsonl: there is no directory {where}: make it first\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--pipeline", "stackd"],
            "unknown way 'stackd'. Did you mean 'stacked'? Known: cuda graph, default, defi",
        ),
        (["--dtype", "float8"], "unknown dtype 'float8'. Did you mean 'float32'?"),
        (["--pipeline", "cuda graph"], "way 'cuda graph' needs a CUDA device, not 'cpu': use --device"),
    ],
)
def test_typos_are_one_line(call: Call, net: Path, options: list[str], message: str) -> None:
    result = call("bench", net, *options)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {message}")
    assert result.err.count("\n") == 1
