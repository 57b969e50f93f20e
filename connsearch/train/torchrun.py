"""Was this process started by `torchrun`, as one of several? Its environment says so, without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from connsearch.errors import ConnsearchError, TrainError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What torchrun sets, and whoever else starts processes as it does: all three, or it was not meant."""


@dataclass(frozen=True)
class Launch:
    """The place of a process among those that were started together.

    Attributes:
        rank: Which one of all it is, from 0.
        size: How many there are, 2 or more.
        local_rank: Which one of its machine it is, from 0.
    """

    rank: int
    size: int
    local_rank: int


def launched() -> Launch | None:
    """Return the place of this process among several; None if it is the only one.

    Raises:
        TrainError: if the environment makes no sense.
    """
    found = [os.environ.get(name, "") for name in VARIABLES]
    if not all(found):
        return None
    said = ", ".join(f"{name}={value}" for name, value in zip(VARIABLES, found, strict=True))
    try:
        rank, size, local_rank = map(int, found)
    except ValueError:
        rank, size, local_rank = -1, 0, 0
    if not 0 <= local_rank <= rank < size:
        raise TrainError(f"the environment has {said}: start processes with torchrun, or unset these three")
    return Launch(rank, size, local_rank) if size > 1 else None


def tells(error: ConnsearchError) -> bool:
    """Return whether this process is the one to print an error that ends it.

    What arises before processes have joined does so in all of a machine: its first one prints it.
    """
    try:
        place = launched()
    except TrainError:
        return True
    if place is None:
        return True
    return place.local_rank == 0 if error.told is None else not error.told


def refuse_several(what: str, way_out: str) -> None:
    """Refuse to be one of several processes that torchrun started, for what one process does alone.

    Args:
        what: Such as "a study".
        way_out: What to do instead.

    Raises:
        TrainError: if this is one of several.
    """
    place = launched()
    if place is not None:
        raise TrainError(
            f"{what} was started by torchrun in {place.size} processes, each of which would do all of it: "
            f"{way_out}"
        )
