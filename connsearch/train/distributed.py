"""How do processes that `torchrun` started find each other, and how do they end?

They end together: one that has an error leaves its reason in the store of the group; when it ends, the others
notice that its connections are closed, and end with that reason, which one of them all tells. One that is
killed leaves no word; the others say so.
"""

from __future__ import annotations

import itertools
import json
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache
from typing import cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.distributed_c10d import _abort_process_group
from torch.distributed.rendezvous import rendezvous

from connsearch.errors import ConnsearchError, TrainError
from connsearch.train.processes import ALONE, Joined, Processes, own_device
from connsearch.train.torchrun import Launch, launched

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one that is alive but does not answer."""
ENDED = "ended"
"""Where the store holds which process ended first, and why."""

_current: Joined | None = None
_uses = itertools.count()


@contextmanager
def joined(device: str = "cpu") -> Iterator[Processes]:
    """Join the processes that torchrun started this one with; alone if it did not.

    Inside, the same again is the same group. A group that the program has set up by itself is used, and left.

    Args:
        device: What all train on: "cpu" (gloo), or "cuda" (NCCL): each process has the GPU of its number.

    Raises:
        TrainError: if there is no GPU for this process, the environment makes no sense, or another process
            has ended.
    """
    global _current
    launch = launched()
    if launch is None or _current is not None:
        yield _current or ALONE
        return
    cuda = _cuda(device, launch)
    store = None if dist.is_initialized() else _join(launch, cuda)
    _current = Joined(launch)
    leave = dist.destroy_process_group
    try:
        with _current_device(cuda):
            yield _current
            if store is not None:
                dist.barrier()
    except BaseException as error:
        _let_go(error)
        if cuda is not None:  # where an orderly end waits for what the others do not send any more
            leave = _abort_process_group
        end = _end(error, launch.rank, store)
        if end is error:
            raise
        raise end from None
    finally:
        _current = None
        if store is not None:
            leave()


def _join(launch: Launch, cuda: torch.device | None) -> Store:
    """Set up the group; return a store of its own."""
    store = PrefixStore(f"connsearch/{next(_uses)}", _store())
    dist.init_process_group(
        "gloo" if cuda is None else "cpu:gloo,cuda:nccl",
        store=PrefixStore("group", store),
        rank=launch.rank,
        world_size=launch.size,
        timeout=PATIENCE,
        device_id=cuda,
    )
    return store


@cache
def _store() -> Store:
    """Return the store where processes find each other; one for the life of a process, which may hold it."""
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    return cast(Store, store)


def _cuda(device: str, launch: Launch) -> torch.device | None:
    try:
        name = own_device(device, launch.local_rank)
    except TrainError as error:
        error.told = False  # the others may have a device, and say nothing
        raise
    return None if name == "cpu" else torch.device(name)


def _current_device(cuda: torch.device | None) -> AbstractContextManager[object]:
    return nullcontext() if cuda is None else torch.cuda.device(cuda)


def _let_go(error: BaseException | None) -> None:
    """Drop what the calls that an error has ended still hold of the group, which is to go first."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _end(error: BaseException, rank: int, store: Store | None) -> BaseException:
    """Leave word of why this process ends; return what it is to raise, which may be another's reason."""
    lost = _is_lost_connection(error)
    why = _why(error, lost=lost)
    word = json.dumps({"rank": rank, "why": why})
    first = word
    if store is not None:
        with suppress(dist.DistError):  # the store may have gone with the process that kept it
            first = store.compare_set(ENDED, "", word).decode()  # what is there then
    if lost:
        known = json.loads(first)
        by_itself = TrainError(f"process {known['rank']} of this training ended: {known['why']}")
        error = TrainError(why) if first == word else by_itself
    if isinstance(error, ConnsearchError):
        error.told = first != word
    return error


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether an error says no more than that another process does not answer."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))


def _why(error: BaseException, *, lost: bool) -> str:
    if lost:
        return (
            "a process of this training was lost, without a word of why: see what torchrun says of it; "
            "with a checkpoint, training goes on from the last finished epoch when it is started again"
        )
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, ConnsearchError) else f"{type(error).__name__}: {error}"
