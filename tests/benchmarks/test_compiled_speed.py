"""Ways to run a network are timed side by side; what is not there, or wrong, is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import compiled_speed
import pytest
import record
import torch
from compiled_speed import FORMATS, NETWORKS, arguments, chosen, usual_ways

from connsearch.errors import VerifyError
from connsearch.kernels import Choice
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import preset

pytestmark = pytest.mark.slow  # networks are timed

TINY = """
name = "tiny"
input = { channels = 3, height = 8, width = 8 }
n_classes = 5
blocks = [{ topology = "dense", aggregation = "depthwise", n_layers = 2, width = 4 }]
"""
SMALL = ("--format", "float32", "NCHW", "--batch", "8", "--repeats", "1", "--ways", "definition", "fused")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a network's file; results go beside it."""
    monkeypatch.setattr(record, "HERE", tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    return str(tmp_path / "tiny.toml")


def lines(tiny: str) -> list[dict[str, Any]]:
    written = (Path(tiny).parent / "results" / "compiled_speed.jsonl").read_text().splitlines()
    return [json.loads(line) for line in written]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Return the exit code, or what is printed in place of one."""
    monkeypatch.setattr("sys.argv", ["compiled_speed.py", *words])
    with pytest.raises(SystemExit) as stopped:
        compiled_speed.main()
    return stopped.value.code


def test_a_line_for_each_way_of_a_network_in_a_file(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tiny, *SMALL, "--modes", "train", "inference") == 0
    found = lines(tiny)
    assert [(line["way"], line["mode"]) for line in found] == [
        (way, mode) for way in ("definition", "fused") for mode in ("train", "inference")
    ]
    assert len({(line["run"], line["time"], line["commit"], line["load"]) for line in found}) == 1
    for line in found:
        settings = [line[key] for key in ("network", "batch", "device", "dtype", "channels_last", "repeats")]
        assert settings == ["tiny", 8, "cpu", "float32", False, 1]
        assert line["threads"] == 1
        assert 0 < line["low_s"] <= line["step_s"] <= line["high_s"]
        assert line["peak_bytes"] > 0


def test_what_is_measured_unless_something_else_is_asked_for() -> None:
    cases = chosen(arguments().parse_args([]))
    assert [case.network.name for case in cases] == [name for name in NETWORKS for _ in FORMATS]
    formats = [(case.settings["dtype"], case.settings["channels_last"]) for case in cases[:3]]
    assert formats == [("float32", False), ("float32", True), ("bfloat16", True)]
    assert {(case.settings["batch"], case.settings["repeats"], case.threads) for case in cases} == {
        (64, 5, 1)
    }
    assert cases[0].ways == ("definition", "stacked", "torch.compile", "default", "fused")


def test_the_papers_way_is_measured_of_networks_that_have_one() -> None:
    assert "stacked" not in usual_ways(preset("densenet-bc-100-12"))
    assert "stacked" in usual_ways(preset("delugenet-146"))


def test_batches_and_threads_are_cases(tiny: str) -> None:
    words = [tiny, "resnet-20", "--batch", "1", "32", "--threads", "1", "2", "--ways", "fused", "fused"]
    cases = chosen(arguments().parse_args(words))
    assert [(c.network.name, c.settings["batch"], c.threads) for c in cases[:4]] == [
        ("tiny", 1, 1), ("tiny", 1, 2), ("tiny", 32, 1), ("tiny", 32, 2),
    ]  # fmt: skip
    assert len(cases) == 2 * 3 * 4
    assert {case.ways for case in cases} == {("fused",)}


WRONG = [
    (["delugenet-14"], r"^Error: unknown preset 'delugenet-14', and no \.toml file\. Did you mean '"),
    (["nix.toml"], r"^Error: nix\.toml: no such file$"),
    (["--ways", "fusd"], r"^Error: unknown way 'fusd'\. Did you mean 'fused'\?"),
    (["--ways", "cuda graph"], "^Error: way 'cuda graph' needs a CUDA device, not 'cpu'"),
    (["--format", "floot32", "NCHW"], r"^Error: unknown dtype 'floot32'\. Did you mean 'float32'\?"),
    (["--format", "float32", "NHWC"], r"^Error: unknown layout 'NHWC'\. Did you mean 'NCHW'\?"),
    (["--device", "tpu"], "^Error: unknown device 'tpu': use 'cpu', 'cuda' or"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_typo_is_one_line_before_anything_runs(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_speed, "torch_machine", lambda device: pytest.fail("begins to measure"))
    error = run(monkeypatch, *words)
    assert "\n" not in error
    with pytest.raises(SystemExit, match=message):
        raise SystemExit(error)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--device", "cuda") == (
        "Error: device 'cuda' is not there, 0 CUDA devices are: use 'cpu' or another one"
    )


def test_what_would_run_without_kernels_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_speed, "choose", lambda *_: Choice("reference", "no compiler"))
    assert run(monkeypatch) == "Error: no kernel runs on cpu in float32: no compiler"


@pytest.mark.parametrize("words", [("--batch", "0"), ("--repeats", "1.5"), ("--modes", "training")])
def test_values_that_argparse_refuses(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, *words) == 2


class Bench:
    """In place of `bench_network`: what each call does, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: BaseException | None) -> None:
        self.calls, self.measured = list(calls), compiled_speed.bench_network
        monkeypatch.setattr(compiled_speed, "bench_network", self)

    def __call__(self, spec: NetworkSpec, *args: Any, **settings: Any) -> Any:
        failed = self.calls.pop(0)
        if failed is not None:
            raise failed
        return self.measured(spec, *args, **settings)


def test_what_is_wrong_is_one_line_and_the_rest_is_measured(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(monkeypatch, VerifyError("tiny: values are off"), None)
    assert run(monkeypatch, tiny, *SMALL, "--threads", "1", "1") == 1
    assert "Error: tiny: values are off\n" in capsys.readouterr().err
    assert (bench.calls, len(lines(tiny))) == ([], 2)


def test_what_is_finished_when_it_is_interrupted_is_recorded(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(monkeypatch, None, KeyboardInterrupt(), None)
    assert run(monkeypatch, tiny, *SMALL, "--threads", "1", "1", "1") == 130
    assert capsys.readouterr().err.endswith("interrupted: 1 of 3 cases are recorded\n")
    assert (bench.calls, len(lines(tiny))) == ([None], 2)


def test_a_dry_run_writes_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tiny, *SMALL, "--dry") == 0
    assert not (Path(tiny).parent / "results").exists()
