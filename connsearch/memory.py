"""Who keeps the memory that a process has freed, the process or the system?

By default glibc takes what is large from the system and gives it back when it is freed: each step of training
on a CPU gets the same pages anew, and the system clears them, hundreds of thousands of times. The commands
keep them for the next step. A library does not decide that for the program that imports it: only
`keep_freed` changes anything, and nothing that is imported calls it.
"""

from __future__ import annotations

import ctypes
import os
import platform

VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_")
"""glibc's own for freed memory: who sets one of them, or `glibc.malloc` in `GLIBC_TUNABLES`, has decided."""
KEEPS, DEFAULT, OTHER = "keeps", "default", "other"

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_kept: list[ctypes.CDLL] = []  # the library that was told to keep, once it is


def keep_freed() -> bool:
    """Let this process keep what it frees, for what it allocates next; return whether it does.

    Only glibc can be told: nothing is done with another C library or a preloaded `malloc`, nor where the user
    has decided by one of `VARIABLES`. Call it before anything large is allocated; twice is no more than once.
    """
    if not _kept and malloc_policy() == DEFAULT:
        libc = ctypes.CDLL(None)
        if libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1):
            _kept.append(libc)
    return bool(_kept)


def release() -> bool:
    """Give what is freed and kept back to the system; return whether there was any.

    To be called between two networks, so that the largest one's memory is not held for ever. Nothing is done
    where nothing is kept.
    """
    return any(libc.malloc_trim(ctypes.c_size_t(0)) for libc in _kept)


def malloc_policy() -> str:
    """Return what becomes of freed memory in this process.

    Returns:
        "keeps" after `keep_freed`, "default" where glibc decides, the variables that the user has set for it,
        as `NAME=value`, or "other" where `malloc` is not glibc's.
    """
    if _kept:
        return KEEPS
    if platform.libc_ver()[0] != "glibc" or "malloc" in os.environ.get("LD_PRELOAD", ""):
        return OTHER
    return " ".join(f"{name}={value}" for name, value in _set_by_user()) or DEFAULT


def _set_by_user() -> list[tuple[str, str]]:
    found = [(name, os.environ[name]) for name in VARIABLES if name in os.environ]
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return found + [("GLIBC_TUNABLES", tunables)] * ("glibc.malloc" in tunables)
