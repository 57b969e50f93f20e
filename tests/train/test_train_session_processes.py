"""A session whose process is killed goes on; several processes that torchrun started are one session."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import killed_session
import pytest
import safetensors.torch
import torch
from killed_session import session

pytestmark = pytest.mark.slow


def start(directory: Path, epochs_left: int = 0, **variables: str) -> subprocess.Popen[str]:
    program = [sys.executable, killed_session.__file__, str(directory), str(epochs_left)]
    return subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=os.environ | variables)


def test_a_killed_session_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    killed = start(tmp_path / "killed", 6)  # in the second seed
    _, err = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, err
    assert json.loads((tmp_path / "killed/summary.json").read_text())["test_error"]["seeds"] == 1
    assert not (tmp_path / "killed/seed-1/result.json").exists()
    found, whole = session(tmp_path / "killed"), session(tmp_path / "whole")
    assert [r.test_error for r in found.results] == [r.test_error for r in whole.results]
    for seed in ("seed-0", "seed-1"):
        ours, theirs = (
            safetensors.torch.load_file(tmp_path / name / seed / "weights.safetensors")
            for name in ("killed", "whole")
        )
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_several_processes_are_one_session(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1]), "WORLD_SIZE": "2"}
    both = [start(tmp_path / "two", RANK=rank, LOCAL_RANK=rank, **place) for rank in ("0", "1")]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    result = json.loads((tmp_path / "two/seed-1/result.json").read_text())
    assert result["machine"]["processes"] == 2
    alone = session(tmp_path / "one").results[1]
    assert result["train_error"] == pytest.approx(alone.train_error, abs=0.05)
    assert sum(map(sum, result["test_confusion"]["counts"])) == 40  # no image twice
    weights = [
        safetensors.torch.load_file(tmp_path / name / "seed-1/weights.safetensors") for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-3)
