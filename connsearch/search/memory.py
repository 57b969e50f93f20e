"""Does a training fit into memory? A lower bound from the cost model, against what is free."""

from __future__ import annotations

from pathlib import Path

from connsearch.cost import NetworkCost
from connsearch.errors import TrainError
from connsearch.memory import release
from connsearch.text import si
from connsearch.train.config import TrainConfig

FLOAT_BYTES = 4
_MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


class OutOfMemoryError(TrainError):
    """A network does not fit into memory."""


def check_memory(cost: NetworkCost, train: TrainConfig, device: str) -> None:
    """Make sure that a training may fit; what the cost model counts is the least that it takes.

    Raises:
        OutOfMemoryError: if it cannot fit.
    """
    need, free = needed_bytes(cost, train, device), free_bytes(device)
    if free is not None and need > free:
        raise OutOfMemoryError(
            f"out of memory on {device}, predicted: {si(need)}B at least for parameters and "
            f"{train.micro_batch_size} images, {si(free)}B are free"
        )


def needed_bytes(cost: NetworkCost, train: TrainConfig, device: str) -> int:
    """Return the least bytes of a training: weights, gradients, moments, average, a batch's activations.

    Of a batch that goes through in parts, those of a part.
    A compiled network keeps fewer activations than the definition that the cost model counts: of those
    only what any network must keep, the most that inference has at once, is taken.
    """
    moments = _MOMENTS[train.optimizer] if train.optimizer != "sgd" or train.momentum else 0
    image = cost.training_bytes if train.pipeline == "none" else cost.inference_bytes
    halved = 2 if train.in_bfloat16(device) else 1
    copies = 2 + moments + (train.ema > 0)
    return FLOAT_BYTES * cost.params * copies + image * train.micro_batch_size // halved


def free_bytes(device: str) -> int | None:
    """Return how many bytes a process may still take; None where that is not known."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    release()  # what this process keeps is free too
    known = [amount for amount in (_available(), *map(_left, _CGROUPS)) if amount is not None]
    return min(known, default=None)


def _available() -> int | None:
    """Return what Linux says could be used without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * int(fields["MemAvailable"].split()[0]) if "MemAvailable" in fields else None


def _left(files: tuple[Path, Path]) -> int | None:
    """Return what is left of a container's limit."""
    try:
        limit, used = (file.read_text().strip() for file in files)
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
