"""Compiling the kernels of the CPU, once on each machine: with which compiler, and why not.

A library computes with one type of maps. It is compiled when it is first needed, in ten to twenty
seconds, and kept in `$CONNSEARCH_CACHE` or `~/.cache/connsearch` under a name made of all that it depends on.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from connsearch.errors import KernelError

HERE = Path(__file__).parent
PACKAGES = ("weighted_sum", "norm_act", "concat_norm_act")
VALUES = {"float32": "float", "float64": "double", "bfloat16": "BFloat16", "float16": "Float16"}
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-Wno-psabi")
# What a compiler may not know is left away: without OpenMP a kernel has one thread.
EXTRAS = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())


class KernelNotice(UserWarning):
    """A kernel would have run, but its reference in PyTorch, which is slower, does."""


def why_not(value: str = "float32") -> str | None:
    """Return why no kernel can run on maps of that dtype on this machine's CPU, or None if they can.

    Compiles what is not there yet. The first time in a process that there is a reason, it is shown too.
    """
    reason = _reason(value)
    if reason is not None:
        notice(reason)
    return reason


def notice(reason: str) -> None:
    """Show why PyTorch runs in place of kernels, the first time in a process that there is a reason."""
    if not _shown:
        _shown.append(reason)
        warnings.warn(
            f"{reason}; plain PyTorch runs in place of kernels, which is slower", KernelNotice, stacklevel=3
        )


_shown: list[str] = []


@cache
def _reason(value: str) -> str | None:
    try:
        with ThreadPoolExecutor(len(PACKAGES)) as pool:
            list(pool.map(lambda package: library(package, value), PACKAGES))
    except KernelError as error:
        return str(error)
    return None


@cache
def library(package: str, value: str) -> ctypes.CDLL:
    """Return a package's kernels for maps of a dtype, compiled if need be.

    Raises:
        KernelError: if there is no compiler, or if it fails.
    """
    source = HERE / package / "cpu.cpp"
    compiler = find_compiler()
    name = f"{package}-{value}-{fingerprint(compiler, source)}.so"
    for directory in (cache_directory(), None):
        try:
            path = (directory or temporary_directory()) / name
            if not _is_whole(path):
                _compile(compiler, source, VALUES[value], path)
            return ctypes.CDLL(str(path))
        except OSError as error:
            failed = error
    raise KernelError(f"a compiled kernel cannot be loaded: {failed}")


def find_compiler() -> list[str]:
    """Return the command of the system's C++ compiler: `$CXX`, else the first known one.

    Raises:
        KernelError: if there is none.
    """
    try:
        asked = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise KernelError(f"no kernel can be compiled: $CXX is {os.environ['CXX']!r}: {error}") from None
    for command in [asked] if asked else [["g++"], ["c++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    missing = f"$CXX is {asked[0]!r}, which is not there" if asked else "there is no C++ compiler"
    raise KernelError(
        f"no kernel can be compiled: {missing}. Install g++ (Debian: apt install g++) or set CXX"
    )


def cache_directory() -> Path | None:
    """Return where compiled kernels are kept; None if there is no place, as without a home."""
    asked = os.environ.get("CONNSEARCH_CACHE")
    try:
        return Path(asked).expanduser() if asked else Path.home() / ".cache" / "connsearch"
    except RuntimeError:  # nobody knows where home is
        return None


@cache
def temporary_directory() -> Path:
    """Return where they lie for the time of a process if they cannot be kept."""
    directory = tempfile.mkdtemp(prefix="connsearch-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def fingerprint(compiler: Sequence[str], source: Path) -> str:
    """Return a short name of all that a compiled library depends on."""
    parts = [*sorted(HERE.glob("*.h")), source]
    texts = [path.read_bytes() for path in parts]
    described = [_version(tuple(compiler)), _processor(), repr((FLAGS, EXTRAS))]
    digest = hashlib.sha256()
    for text in [*texts, *(d.encode() for d in described)]:
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()[:20]


@cache
def _version(compiler: tuple[str, ...]) -> str:
    try:
        return subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise KernelError(f"no kernel can be compiled: {error}") from error


@cache
def _processor() -> str:
    """Return what tells apart processors that cannot run each other's libraries."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = {
        line for line in lines if line.startswith(("flags", "Features", "model name", "cpu family", "model"))
    }
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def _compile(compiler: Sequence[str], source: Path, value: str, path: Path) -> None:
    """Compile a library; a process that does the same at the same time does no harm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        errors = []
        for extras in EXTRAS:
            command = [*compiler, *FLAGS, *extras, f"-DVALUE={value}", str(source), "-o", unfinished]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                _seal(Path(unfinished))
                os.replace(unfinished, path)
                return
            errors.append(_first_error(done.stderr) or f"exit code {done.returncode}")
        raise KernelError(f"no kernel can be compiled: {shlex.join(compiler)} says: {errors[0]}")
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Return whether a library is there as it was written: loading half of one kills the process."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return content[-32:] == hashlib.sha256(content[:-32]).digest()


def _seal(path: Path) -> None:
    """Append its checksum to a library, which loaders do not mind, and let others read it."""
    with path.open("ab") as file:
        file.write(hashlib.sha256(path.read_bytes()).digest())
    path.chmod(0o644)


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
