"""`list passes`, `show --ir`, `show --code`, `verify`: what they print and refuse."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny import NETWORK, Call, Result

from connsearch.cli import compiler
from connsearch.cli.compiler import program_text
from connsearch.ir import PIPELINES, list_passes, lower, optimize
from connsearch.ir.text import to_text
from connsearch.kernels import Choice
from connsearch.kernels.build import KernelNotice
from connsearch.nn import Network, build, verify
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


def test_a_program_is_shown_with_why_kernels_do_not_run(
    call: Call, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(device: str, dtype: torch.dtype) -> Choice:
        warnings.warn("there is no C++ compiler", KernelNotice, stacklevel=1)
        return Choice("reference", "there is no C++ compiler")

    spec = NetworkSpec.from_toml(net)
    last = "# fused operations run as plain PyTorch here: there is no C++ compiler"
    before = program_text(spec, "fused")
    monkeypatch.setattr("connsearch.kernels.choose", choose)
    assert program_text(spec, "fused") == f"{before}\n{last}"
    assert call("show", net, "--ir") == Result(0, f"{before}\n{last}\n", "")
    assert program_text(spec, "inference").splitlines()[-1] == last
    assert last not in program_text(spec, "none")


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
    if as_json:
        (record,) = json.loads(result.out)
        assert (record["way"], record["right"]) == ("fused", False)
        assert record["relative_error"]["float64"]["values"] > 1e-10
    else:
        assert len(result.out.splitlines()) == 1 + len(WHAT)


@pytest.fixture
def noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first kernel that is called say that it cannot run."""
    own_module = verify.own_module

    def warning(way: str, network: Network) -> object:
        warnings.warn("no kernel can be compiled; plain PyTorch runs", KernelNotice, stacklevel=1)
        return own_module(way, network)

    monkeypatch.setattr(verify, "own_module", warning)


@pytest.mark.usefixtures("noticed")
def test_a_notice_that_no_kernel_runs_is_a_line(call: Call, net: Path) -> None:
    result = call("verify", net, "--steps", 1, "--json")
    assert result.code == 0
    assert set(result.err.splitlines()) == {"no kernel can be compiled; plain PyTorch runs"}
    assert json.loads(result.out)[0]["right"]


def test_other_warnings_are_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *args, **_: shown.append(args))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with compiler._kernel_notices_told():
            warnings.warn("another", UserWarning, stacklevel=1)
    ((message, *_),) = shown
    assert str(message) == "another"


def test_verify_runs_with_the_threads_that_are_asked_for(
    call: Call, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, own_module, before = set(), verify.own_module, torch.get_num_threads()

    def noting(way: str, network: Network) -> object:
        seen.add(torch.get_num_threads())
        return own_module(way, network)

    monkeypatch.setattr(verify, "own_module", noting)
    assert call("verify", net, "--steps", 1, "--threads", before + 1).code == 0
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_ctrl_c_says_that_it_stopped(
    call: Call, net: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify.Comparison, "verification", interrupted)
    assert call(command, net) == Result(130, "", "Stopped.\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_last_line_says_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(compiler.shutil, "get_terminal_size", lambda: os.terminal_size((11, 24)))
    with compiler._watched(None) as tell:
        tell("verifying")
        tell("first step of fused")
    clear = "\r\x1b[2K"
    assert sys.stderr.getvalue() == f"{clear}verifying{clear}first step{clear}"


def test_elsewhere_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with compiler._watched(None) as tell:
        tell("verifying")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "--ir", "--pipeline", "fusd"), "unknown pipeline 'fusd'. Did you mean 'fused'?"),
        (("verify", "--pipeline", "inference"), "pipeline 'inference' has no gradients"),
        (("verify", "--dtype", "float8"), "unknown dtype 'float8'. Did you mean 'float32'?"),
        (("verify", "--pipeline", "torch.compile"), "way 'torch.compile' is not verified: it is torch's own"),
        (
            ("verify", "--pipeline", "fused", "--pipeline", "cuda graph"),
            "way 'cuda graph' needs a CUDA device, not 'cpu': use --device cuda, or leave it out",
        ),
        (
            ("verify", "--pipeline", "defalt"),
            "unknown way 'defalt'. Did you mean 'default'? Known: cuda graph, default, fused, none, stacked.",
        ),
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
