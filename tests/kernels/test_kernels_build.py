"""Where compiled kernels come from, and what happens where there is no compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from connsearch import kernels
from connsearch.errors import KernelError
from connsearch.kernels import build, dispatch
from connsearch.kernels.convolve import cpu as convolve

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
MAPS = torch.arange(24.0).reshape(1, 2, 3, 4)


def forget() -> None:
    for remembered in (build._reason, build.library, build.temporary_directory, dispatch._choose):
        remembered.cache_clear()
    build._shown.clear()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has compiled nothing yet, with a cache of its own, and only one small kernel."""
    shown = list(build._shown)
    monkeypatch.setenv("CONNSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PACKAGES", ("toy",))
    monkeypatch.setattr(build, "HERE", tmp_path / "here")
    (tmp_path / "here" / "toy").mkdir(parents=True)
    write(tmp_path, "int answer() { return 42; }")
    forget()
    yield
    forget()
    build._shown.extend(shown)


def write(tmp_path: Path, function: str) -> None:
    (tmp_path / "here" / "toy" / "cpu.cpp").write_text(f'extern "C" {function}')


@needs_compiler
def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.why_not() is None
    assert build.library("toy", "float32").answer() == 42
    (found,) = (tmp_path / "cache").iterdir()
    assert found.name.startswith("toy-float32-")
    build.library.cache_clear()
    monkeypatch.setattr(build, "_compile", None)  # is not called again
    assert build.library("toy", "float32").answer() == 42


@needs_compiler
@pytest.mark.parametrize("what", ["source", "header", "flags", "compiler", "processor"])
def test_what_a_library_depends_on_names_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "here" / "toy" / "cpu.cpp"
    before = build.fingerprint(["g++"], source)
    assert build.fingerprint(["g++"], source) == before
    if what == "source":
        write(tmp_path, "int answer() { return 43; }")
    if what == "header":
        (tmp_path / "here" / "maps.h").write_text("// new")
    if what == "flags":
        monkeypatch.setattr(build, "FLAGS", ("-O0",))
    if what == "compiler":
        monkeypatch.setattr(build, "_version", lambda compiler: "g++ 99")
    if what == "processor":
        monkeypatch.setattr(build, "_processor", lambda: "another")
    assert build.fingerprint(["g++"], source) != before


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONNSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    assert build.library("toy", "float32").answer() == 42
    assert len(list(build.temporary_directory().iterdir())) == 1


@needs_compiler
def test_a_damaged_library_is_compiled_again_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "here" / "toy" / "cpu.cpp"
    (tmp_path / "cache").mkdir()
    name = f"toy-float32-{build.fingerprint(build.find_compiler(), source)}.so"
    (tmp_path / "cache" / name).write_text("no library")
    assert build.library("toy", "float32").answer() == 42


@needs_compiler
def test_several_at_once_get_whole_libraries(tmp_path: Path) -> None:
    def answer(_: int) -> int:
        return int(build.library.__wrapped__("toy", "float32").answer())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(4))) == [42] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no unfinished files


@needs_compiler
def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    write(tmp_path, "int answer() { return nothing; }")
    with pytest.warns(build.KernelNotice, match="plain PyTorch runs in place of kernels, which is slower"):
        reason = build.why_not()
    assert reason is not None
    assert reason.startswith("no kernel can be compiled: g++ says: ")
    assert re.search("error: .nothing. was not declared", reason)
    assert list((tmp_path / "cache").iterdir()) == []


@needs_compiler
def test_flags_that_a_compiler_does_not_know_are_left_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "EXTRAS", (("-fno-such-flag",), ()))
    assert build.library("toy", "float32").answer() == 42


@pytest.fixture
def _no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.usefixtures("_no_compiler")
def test_without_a_compiler_the_reference_runs_and_says_so_once() -> None:
    with pytest.warns(build.KernelNotice, match="there is no C\\+\\+ compiler. Install g\\+\\+"):
        y = kernels.norm_act(MAPS, torch.ones(2), torch.zeros(2), "none")
    assert torch.equal(y, MAPS)
    kernels.batch_stats(MAPS)  # a second notice would be an error
    assert build.why_not() is not None
    choice = kernels.choose("cpu", torch.float32)
    assert choice.backend == "reference"
    assert choice.reason.startswith("no kernel can be compiled: there is no C++ compiler")


@pytest.mark.usefixtures("_no_compiler")
def test_a_notice_that_is_an_error_comes_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(build.KernelNotice):
            kernels.batch_stats(MAPS)
        kernels.batch_stats(MAPS)


def test_convolutions_that_cannot_be_compiled_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(package: str, value: str) -> None:
        raise KernelError(f"{package} cannot be compiled for {value}")

    monkeypatch.setattr(convolve, "library", fails)
    convolve.why_not.cache_clear()
    try:
        with pytest.warns(
            build.KernelNotice, match="convolve cannot be compiled for float32; plain PyTorch runs"
        ):
            assert not convolve.fits([32], 32)
    finally:
        convolve.why_not.cache_clear()


@pytest.mark.usefixtures("_no_compiler")
def test_a_backend_that_is_asked_for_does_not_fall_back() -> None:
    with (
        kernels.use_backend("cpu"),
        pytest.raises(KernelError, match="there is no C\\+\\+ compiler"),
    ):
        build.library("toy", "float32")


def test_a_compiler_that_is_asked_for_and_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-g++ -m64")
    with pytest.raises(KernelError, match=r"\$CXX is 'no-such-g\+\+', which is not there"):
        build.find_compiler()


@needs_compiler
def test_a_compiler_that_is_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ -m64")
    assert build.find_compiler() == ["g++", "-m64"]
    assert build.library("toy", "float32").answer() == 42


@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_threads_are_those_of_torch() -> None:
    """Two libraries of OpenMP in a process would be two pools of threads that fight for the cores."""
    script = (
        "import torch; from connsearch import kernels;"
        "kernels.batch_stats(torch.zeros(2, 3, 4, 4));"
        "lines = open('/proc/self/maps').read().splitlines();"
        "print(len({x.split()[-1] for x in lines if 'libgomp' in x or 'libomp' in x or 'libiomp' in x}))"
    )
    env = {k: v for k, v in os.environ.items() if k != "CONNSEARCH_CACHE"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "1"


def test_the_default_cache_lies_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONNSEARCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build.cache_directory() == tmp_path / ".cache" / "connsearch"


@needs_compiler
def test_half_a_library_is_compiled_again(tmp_path: Path) -> None:
    build.library("toy", "float32")
    (found,) = (tmp_path / "cache").iterdir()
    assert found.stat().st_mode & 0o777 == 0o644
    whole = found.read_bytes()
    for broken in (whole[:1000], b"", b"\x7fELF"):
        found.unlink()  # a loaded file must not shrink
        found.write_bytes(broken)
        build.library.cache_clear()
        assert build.library("toy", "float32").answer() == 42
        assert len(found.read_bytes()) == len(whole)


def test_without_a_home_kernels_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CONNSEARCH_CACHE")
    monkeypatch.setattr(Path, "expanduser", nobody)
    assert build.cache_directory() is None


def test_a_compiler_that_does_not_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", 'g++ "')
    with pytest.raises(KernelError, match=r"\$CXX is 'g\+\+ \"': No closing quotation"):
        build.find_compiler()
