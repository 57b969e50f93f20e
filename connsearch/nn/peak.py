"""How many bytes does something that runs allocate, and have alive at once, at the most?

The allocators are asked, not the operations: on a CPU torch's profiler reports what its allocator hands out
and takes back, on a GPU the caching allocator counts by itself. What runs does not know, so that it is what
runs otherwise, temporary memory inside operations included. (A mode that watches operations is no such
thing: a compiled network in evaluation runs as defined under one.) Memory that libraries take from the
system by themselves is not seen.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import torch
from torch._C._profiler import _EventType
from torch.autograd.profiler import profile

_QUIET = "6"  # above all levels: Kineto, which profiles, tells on stderr that it starts and stops


def peak_bytes(run: Callable[[], object], device: str | torch.device = "cpu") -> int:
    """Return the most bytes alive at once of those that something allocates.

    Args:
        run: What allocates. What it returns is released.
        device: Where it allocates: a CPU or a CUDA device.
    """
    device = torch.device(device)
    gc.collect()
    return _on_gpu(run, device) if device.type == "cuda" else _on_cpu(run)


def _on_cpu(run: Callable[[], object]) -> int:
    """Count by address: torch may report the release of what was there before, of any size."""
    alive: dict[int, int] = {}
    total = peak = 0
    for place, change in _changes(run):
        total -= alive.pop(place, 0)
        if change > 0:
            alive[place] = change
            total += change
            peak = max(peak, total)
    return peak


def _on_gpu(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def _changes(run: Callable[[], object]) -> list[tuple[int, int]]:
    """Return each address and how many bytes torch hands out there, or takes back (negative), in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
    with profile(profile_memory=True) as recorded:
        run()
    assert recorded.kineto_results is not None
    waiting, found = list(recorded.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    return [(place, change) for _, place, change in sorted(found, key=lambda entry: entry[0])]
