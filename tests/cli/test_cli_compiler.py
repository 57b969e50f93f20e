"""`list passes`, `show --ir`, `show --code`, `verify`, `bench`: what they print and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny import NETWORK, Call, Result

from connsearch.ir import PIPELINES, list_passes, lower, optimize
from connsearch.ir.text import to_text
from connsearch.nn import Network, build
from connsearch.spec.network import NetworkSpec


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.toml"
    path.write_text(NETWORK)
    return path


def test_list_passes(call: Call) -> None:
    result = call("list", "passes")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == list_passes()
    assert "share_statistics  Compute statistics at the sources of what normalises them." in result.out


@pytest.mark.parametrize("pipeline", [None, *sorted(PIPELINES)])
def test_show_ir_is_the_program_with_reasons(call: Call, net: Path, pipeline: str | None) -> None:
    result = call("show", net, "--ir", *(["--pipeline", pipeline] if pipeline else []))
    assert (result.code, result.err) == (0, "")
    program = optimize(lower(NetworkSpec.from_toml(net)), pipeline or "fused")
    *lines, summary = result.out.splitlines()
    assert [line.partition("  # ")[0] for line in lines] == to_text(program).splitlines()
    n_left = sum("  # as defined: " in line for line in lines)
    assert re.fullmatch(rf"# {len(program.ops)} operations: \d+ fused, {n_left} as defined", summary)


def test_show_ir_says_why_an_operation_is_not_fused(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "elu.toml"
    path.write_text(
        NETWORK.replace('"depthwise"', '"gated"') + 'unit = { name = "basic", activation = "elu" }\n'
    )
    out = call("show", path, "--ir").out
    assert "  # as defined: each gate reads the sum so far\n" in out
    assert "  # as defined: no kernel for the activation 'elu'\n" in out


def test_show_code_is_what_runs(call: Call, net: Path) -> None:
    result = call("show", net, "--code")
    assert result == Result(0, build(NetworkSpec.from_toml(net)).code + "\n", "")


def test_show_code_of_evaluation(call: Call, net: Path) -> None:
    result = call("show", net, "--code", "--pipeline", "inference")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("def forward(self, images):\n")
    assert "share" not in result.out


WHAT = ["values", "gradients", "statistics", "inference"]


@pytest.mark.slow
def test_verify_prints_errors_beside_those_of_the_definition(call: Call, net: Path) -> None:
    result = call("verify", net, "--pipeline", "default", "--pipeline", "fused", "--steps", 1)
    assert (result.code, result.err) == (0, "")
    header, *rows = result.out.splitlines()
    assert header.split() == ["way", "what", "float64", "dtype", "in", "dtype", "definition"]
    words = [row.split() for row in rows]
    assert [w[:2] for w in words] == [[p, w] for p in ("default", "fused") for w in WHAT]
    assert all(w[3] == "float32" and float(w[2]) <= 1e-10 and float(w[4]) <= 1e-2 for w in words)


@pytest.mark.slow
def test_verify_in_less_precision_with_channels_last(call: Call, net: Path) -> None:
    options = ["--dtype", "bfloat16", "--dtype", "float16", "--channels-last", "--steps", 2, "--json"]
    result = call("verify", net, *options)
    assert (result.code, result.err) == (0, "")
    records = json.loads(result.out)
    assert [(r["way"], r["dtype"], r["channels_last"]) for r in records] == [
        ("fused", "bfloat16", True), ("fused", "float16", True),
    ]  # fmt: skip
    for record in records:
        errors, dtype = record["relative_error"], record["dtype"]
        assert list(errors) == ["float64", "float64_allowed", dtype, f"{dtype}_definition"]
        assert all(list(found) == WHAT for found in errors.values())
        assert max(errors["float64"].values()) <= 1e-10 < min(errors[dtype].values())


@pytest.mark.parametrize("as_json", [False, True])
def test_verify_of_what_is_wrong(
    call: Call, net: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def own_module(way: str, network: Network) -> Network:
        if way == "fused":
            for parameter in network.parameters():
                parameter.data += 1
        return network

    monkeypatch.setattr("connsearch.nn.verify.own_module", own_module)
    result = call("verify", net, *(["--json"] if as_json else []))
    assert result.code == 1
    assert re.fullmatch(
        r"Error: small: values of 'fused' are off by \S+ in float64, more than 1e-10\n", result.err
    )
    assert (result.out == "") == as_json


KEYS = {  # of a measurement, with units, and their types
    "way": str, "mode": str, "first_s": float, "step_s": float, "low_s": float, "high_s": float,
    "peak_bytes": int, "bytes_moved": int, "least_bytes_moved": int, "saved_bytes": int,
    "least_saved_bytes": int,
}  # fmt: skip


@pytest.mark.large
def test_bench_measures_each_way_in_both_modes(call: Call, net: Path) -> None:
    ways = ["definition", "stacked", "fused"]
    options = [word for way in ways for word in ("--pipeline", way)]
    result = call("bench", net, *options, "--batch", 2, "--repeats", 2, "--json")
    assert (result.code, result.err) == (0, "")
    records = json.loads(result.out)
    assert [(r["way"], r["mode"]) for r in records] == [(w, m) for w in ways for m in ("train", "inference")]
    for record in records:
        assert list(record) == list(KEYS)
        unknown = {"bytes_moved", "saved_bytes"} if record["way"] == "stacked" else set()
        assert {key for key, value in record.items() if value is None} == unknown
        assert all(type(record[key]) is KEYS[key] for key in KEYS if key not in unknown)
        assert 0 < record["low_s"] <= record["step_s"] <= record["high_s"]
        assert record["first_s"] > 0
        assert record["peak_bytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("option", "mode"), [("--train", "train"), ("--inference", "inference")])
def test_bench_of_one_mode_in_less_precision(call: Call, net: Path, option: str, mode: str) -> None:
    options = [option, "--dtype", "bfloat16", "--channels-last", "--batch", 2, "--repeats", 1]
    result = call("bench", net, *options)
    assert (result.code, result.err) == (0, "")
    header, *rows = result.out.splitlines()
    assert header.split()[:2] == ["way", "mode"]
    assert header.endswith("times definition  peak MB  moved MB / least  saved MB / least")
    assert [row.split()[:2] for row in rows] == [["definition", mode], ["fused", mode]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "--ir", "--pipeline", "fusd"), "unknown pipeline 'fusd'. Did you mean 'fused'?"),
        (("verify", "--pipeline", "inference"), "pipeline 'inference' has no gradients"),
        (("bench", "--pipeline", "stackd"), "unknown way 'stackd'. Did you mean 'stacked'?"),
        (("bench", "--dtype", "float8"), "unknown dtype 'float8'. Did you mean 'float32'?"),
        (
            ("bench", "--pipeline", "cuda graph"),
            "way 'cuda graph' needs a CUDA device, not 'cpu': use --device",
        ),
        (("verify", "--dtype", "float8"), "unknown dtype 'float8'. Did you mean 'float32'?"),
        (("verify", "--pipeline", "torch.compile"), "way 'torch.compile' is not verified: it is torch's own"),
    ],
)
def test_typos_are_one_line(call: Call, net: Path, args: tuple[str, ...], message: str) -> None:
    command, *options = args
    result = call(command, net, *options)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {message}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ir", "--graph"], "one of --graph, --ir and --code at a time"),
        (["--pipeline", "fused"], "--pipeline is for --ir and --code"),
    ],
)
def test_show_refuses_options_that_do_not_go_together(
    call: Call, net: Path, options: list[str], message: str
) -> None:
    result = call("show", net, *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
