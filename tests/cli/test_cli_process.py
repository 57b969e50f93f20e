"""The command as a process of its own: what it imports, how it starts, how it is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import Call

ROOT = Path(__file__).parents[2]
CODE = "import sys; from connsearch.cli import run_app; sys.argv[0] = 'connsearch'; run_app()"
COMMAND = [sys.executable, "-c", CODE]
HEAVY = ("torch", "sklearn", "matplotlib", "scipy", "pandas", "optuna", "jinja2", "networkx")


def modules_after(code: str, modules: tuple[str, ...] = HEAVY) -> set[str]:
    """Return which modules, by default heavy packages, a fresh process has imported after some code."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(m for m in {modules} if m in sys.modules)))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(process.stdout.splitlines()[-1]))


def seconds_of(args: list[str]) -> float:
    """Return the wall time of a fresh process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *args], capture_output=True, check=True)
    return time.perf_counter() - start


def test_import_is_light() -> None:
    assert modules_after("import connsearch; dir(connsearch)") == set()


def test_help_is_light() -> None:
    code = (
        "from connsearch.cli import app\n"
        "for args in (['--help'], ['run', '--help']):\n"
        "    try: app(args)\n"
        "    except SystemExit as done: assert not done.code"
    )
    assert modules_after(code) == set()


def test_counting_and_sampling_need_no_torch() -> None:
    code = (
        "import connsearch as cs\n"
        "cs.network_cost(cs.preset('densenet-40-12'))\n"
        "cs.SearchSpace; cs.StudyConfig"
    )
    assert modules_after(code) == set()


def test_a_list_imports_its_own_registry_alone() -> None:
    code = "from connsearch.catalog import catalog; catalog('topologies')"
    assert modules_after(code, ("connsearch.search", "connsearch.data", "connsearch.train")) == set()


@pytest.mark.parametrize(
    "args", [["-c", "import connsearch"], ["-c", CODE, "--help"]], ids=["import", "help"]
)
def test_the_start_is_quick(args: list[str]) -> None:
    assert any(seconds_of(args) < 0.8 for _ in range(8))


def test_make_clean_deletes_what_make_made_and_no_study_of_the_users() -> None:
    make = ["make", "-n", "--no-print-directory", "clean"]
    process = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "rm -rf .venv front.png front.svg front.html runs/digits\n"


def test_lists_are_light() -> None:
    code = "from connsearch.catalog import CATALOGS, catalog; [catalog(kind) for kind in CATALOGS]"
    assert modules_after(code) <= {"networkx"}  # of presets that are wired at random


def test_a_closed_pipe_is_no_error(here: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        process = subprocess.run(
            [*COMMAND, "show", "net.toml"], stdout=write, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(write)
    assert "Traceback" not in process.stderr
    assert process.stderr.count("\n") <= 1


def heed_interrupts() -> None:
    """Undo what a shell does to commands in the background, which then never hear of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_stops_a_run_and_the_same_command_goes_on(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = [*COMMAND, "run", "study.toml", "--device", "cpu", "--trials"]
    process = subprocess.Popen(
        [*run, "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert re.match(r"\[1/500\] trial 0: error ", first)
    assert (process.returncode, out) == (130, "")
    *trials, last = err.splitlines()
    assert all(re.match(r"\[\d+/500\] trial \d+: error ", line) for line in trials)
    assert last == "Stopped. Run the same command again to go on with runs/study."

    total = len(trials) + 3
    again = call(*run[len(COMMAND) :], total)
    assert again.code == 0
    assert again.out.startswith(f"runs/study: {total} complete, 0 failed, 0 pruned; best trial ")
    assert again.err.startswith(f"[{len(trials) + 2}/{total}] trial {len(trials) + 1}: error ")


def fork_server_of(group: int) -> bool:
    """Return whether a process group has a process that workers are to be copies of."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            its_group = int((place / "stat").read_text().rpartition(")")[2].split()[2])
            if its_group == group and b"forkserver" in (place / "cmdline").read_bytes():
                return True
        except OSError:  # it has ended
            continue
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("pause", [0.0, 0.4, 1.0])
def test_ctrl_c_while_workers_are_made_ready_is_one_line(here: Path, pause: float) -> None:
    run = subprocess.Popen(
        [*COMMAND, "run", "study.toml", "--device", "cpu", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    while not fork_server_of(run.pid):
        assert run.poll() is None
        time.sleep(0.02)
    time.sleep(pause)  # it starts, and imports torch
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert err == "Stopped. Run the same command again to go on with runs/study.\n"
