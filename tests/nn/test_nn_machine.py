"""What figures depend on besides what was measured."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest
import torch

import connsearch
from connsearch.nn import machine
from connsearch.nn.machine import machine_facts


def test_facts_are_plain_values_of_this_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.2345, 9.0, 9.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(machine, "malloc_policy", lambda: "keeps")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        facts = machine_facts()
    finally:
        torch.set_num_threads(before)
    assert json.loads(json.dumps(facts)) == facts
    assert list(facts) == [
        "run", "time", "connsearch", "python", "torch", "cpu", "cores", "load", "threads", "omp_wait_policy",
        "malloc",
    ]  # fmt: skip
    assert abs(time.mktime(time.strptime(facts["time"], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60
    assert (facts["connsearch"], facts["python"], facts["torch"]) == (
        connsearch.__version__, platform.python_version(), torch.__version__,
    )  # fmt: skip
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)
    assert (facts["load"], facts["threads"]) == (1.23, 3)
    assert (facts["omp_wait_policy"], facts["malloc"]) == ("passive", "keeps")


def test_each_call_is_a_run_of_its_own() -> None:
    assert machine_facts()["run"] != machine_facts()["run"]


def test_a_policy_that_is_not_set_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert machine_facts()["omp_wait_policy"] == ""


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU of {device}")
    assert machine_facts("cuda:1")["gpu"] == "the GPU of cuda:1"


def test_the_name_of_the_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast: 3000\nprocessor : 1\nmodel name\t: Slow\n")
    assert machine._cpu_name(info) == "Fast: 3000"
    info.write_text("Processor : ARM\n")
    assert machine._cpu_name(info) == machine._cpu_name(tmp_path / "none") == platform.machine()
