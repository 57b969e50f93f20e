"""Freed memory is kept by the processes of commands, and by no others."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from connsearch import memory
from connsearch.memory import VARIABLES, keep_freed, malloc_policy, release

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep")
SET_BY_USERS = [
    ("MALLOC_MMAP_MAX_", "65536"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TOP_PAD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("GLIBC_TUNABLES", "glibc.malloc.check=0"),
]
BLOCKS = """
import mmap, resource
from connsearch.memory import keep_freed, malloc_policy, release

def faults(times, size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE >> 20
"""


def own_process(code: str, **variables: str) -> str:
    """Return what a fresh process prints, in which nobody has decided about freed memory but `variables`."""
    decided = (*VARIABLES, "GLIBC_TUNABLES", "LD_PRELOAD")
    env = {name: value for name, value in os.environ.items() if name not in decided}
    process = subprocess.run(
        [sys.executable, "-c", code], env=env | variables, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def faults(code: str, **variables: str) -> tuple[list[str], int]:
    """Return what some code prints, and how often the system gives pages to a process that runs it."""
    *printed, found = own_process(f"{BLOCKS}\n{code}\nfaults(1)\nprint(faults(5))", **variables).splitlines()
    return printed, int(found)


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has decided about this process, whose C library is glibc."""
    monkeypatch.setattr(memory, "_kept", [])
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    for name in (*VARIABLES, "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)


@glibc
def test_what_is_freed_is_kept() -> None:
    kept, few = faults("print(keep_freed(), keep_freed(), malloc_policy())")
    default, many = faults("print(malloc_policy())")
    assert (kept, default) == (["True True keeps"], ["default"])
    assert few < 50 < many  # with huge pages 160, else 80,000


@glibc
@pytest.mark.parametrize(("name", "value"), SET_BY_USERS, ids=[name for name, _ in SET_BY_USERS])
def test_users_decide(name: str, value: str) -> None:
    told, many = faults("print(keep_freed(), malloc_policy(), release())", **{name: value})
    assert told == [f"False {name}={value} False"]
    assert many > 50


@glibc
def test_what_is_kept_is_released() -> None:
    code = """
        keep_freed()
        blocks = [b"x" * (20 << 20) for _ in range(8)]
        del blocks[::2]  # holes between those in use
        before = held()
        print(release(), before - held())
        """
    released, amount = own_process(f"{BLOCKS}\nif True:{code}").split()
    assert (released, 78 <= int(amount) <= 85) == ("True", True)


@glibc
def test_a_process_that_keeps_nothing_releases_nothing() -> None:
    code = 'blocks = [b"x" * 9_999 for _ in range(9_999)]; end = b"x" * 9_999; del blocks; before = held()'
    released, amount = own_process(f"{BLOCKS}\n{code}\nprint(release(), before - held())").split()
    assert (released, abs(int(amount)) < 9) == ("False", True)  # of the 100 MB below what is in use


@glibc
def test_commands_keep() -> None:
    code = (
        "import sys\n"
        "from connsearch.cli import run_app\n"
        "from connsearch.memory import malloc_policy\n"
        "print(malloc_policy())\n"
        "sys.argv = ['connsearch', '--version']\n"
        "try: run_app()\n"
        "except SystemExit: print(malloc_policy())"
    )
    before, _, after = own_process(code).splitlines()
    assert (before, after) == ("default", "keeps")


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("library", [("", ""), ("musl", "1.2")])
def test_another_library_is_left_alone(library: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert (keep_freed(), release(), malloc_policy()) == (False, False, "other")


@pytest.mark.usefixtures("undecided")
def test_a_preloaded_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", None)
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so.4")
    assert (keep_freed(), release(), malloc_policy()) == (False, False, "other")


class Refusing:
    """A C library that does not do what it is told."""

    def mallopt(self, parameter: int, value: int) -> int:
        return int(parameter != -1)


@pytest.mark.usefixtures("undecided")
def test_what_was_refused_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Refusing())
    assert (keep_freed(), release(), malloc_policy()) == (False, False, "default")


@pytest.mark.usefixtures("undecided")
def test_variables_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2")
    assert malloc_policy() == "default"
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    words = "MALLOC_MMAP_MAX_= MALLOC_TRIM_THRESHOLD_=1 GLIBC_TUNABLES=glibc.malloc.arena_max=1"
    assert malloc_policy() == words
