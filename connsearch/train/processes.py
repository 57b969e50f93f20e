"""Which processes train together, and what do they tell each other? One that trains alone tells nobody.

Each process holds the whole model and computes a part of every batch. The first one, of rank 0, writes and
speaks. What is here is called by all of them, in the same order, or they wait for each other.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from connsearch.data.dataset import Split
from connsearch.errors import TrainError
from connsearch.train.checkpoint import leaves
from connsearch.train.torchrun import Launch

T = TypeVar("T")


class Processes:
    """The processes of a training; of this class itself, one that trains alone and waits for nobody.

    Attributes:
        rank: Which one this is; 0 writes and speaks.
        size: How many there are.
    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return this process's device, where all asked for `name`.

        Raises:
            TrainError: if there is none for each of them.
        """
        return name

    def own_seed(self, seed: int, shared: int) -> int:
        """Return a seed of this process alone; the first one's is what a single process has."""
        return shared

    def own_part(self, split: Split) -> Split:
        """Return this process's part of a split, empty for some if there are fewer images than processes."""
        return split

    def weight(self, amount: Tensor | float, device: torch.device) -> Tensor | float:
        """Return by what to multiply a mean over a part of a batch, for gradients averaged over processes.

        They are then those of the mean over the whole batch, whatever the sizes of its parts.

        Args:
            amount: What the mean over this process's part is over: images, pixels, or their weights.
            device: Where it is.
        """
        return 1.0

    def summed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return sums over the processes, of tensors of one device; integers exactly, up to 2^53."""
        return tensors

    def from_first(self, do: Callable[[], T]) -> T:
        """Return what the first process finds, to all; what that raises is raised in all."""
        return do()

    def same_buffers(self, *models: nn.Module) -> None:
        """Give all processes the first one's buffers, above all its running statistics."""

    def named(self, generators: Mapping[str, Generator]) -> dict[str, Generator]:
        """Return this process's own generators under names that no other one uses."""
        return dict(generators)

    def gathered(self, generators: Mapping[str, Generator]) -> dict[str, Generator]:
        """Return the generators of all processes, those of others as copies."""
        return dict(generators)

    def agree(self, what: Mapping[str, Any]) -> None:
        """Make sure that all processes train the same.

        Raises:
            TrainError: naming what differs.
        """


ALONE = Processes()


class Joined(Processes):
    """Several processes, each in the group of `torch.distributed`."""

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size, self.local_rank = launch.rank, launch.size, launch.local_rank

    def device(self, name: str) -> str:
        """Return "cpu", or of a machine's GPUs the one with this process's number."""
        return own_device(name, self.local_rank)

    def own_seed(self, seed: int, shared: int) -> int:
        """Return `shared` to the first process."""
        if self.first:
            return shared
        return int(np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1, np.uint64)[0])

    def own_part(self, split: Split) -> Split:
        """Return the images from i n / size to (i + 1) n / size, without copying them."""
        start, stop = (len(split) * i // self.size for i in (self.rank, self.rank + 1))
        return Split(split.images[start:stop], split.labels[start:stop], split.mean, split.std)

    def weight(self, amount: Tensor | float, device: torch.device) -> Tensor | float:
        """Return size * amount / (amount of all), float64."""
        own = torch.zeros((), dtype=torch.float64, device=device) + amount
        (total,) = self.summed(own)
        return self.size * own / total.clamp(min=1e-6)  # a batch without any label

    def summed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return sums in the types of the tensors."""
        flat = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return tuple(p.reshape(t.shape).to(t.dtype) for p, t in zip(parts, tensors, strict=True))

    def from_first(self, do: Callable[[], T]) -> T:
        """Broadcast what `do` returns or raises, as pickles; an error that cannot be one is described."""
        box: list[Any] = [None]
        raised: Exception | None = None
        if self.first:
            try:
                box = [do()]
            except Exception as error:  # raised below, when all know
                raised, box = error, [_Raised(_portable(error))]
        dist.broadcast_object_list(box, src=0)
        if raised is not None:
            raise raised
        if isinstance(box[0], _Raised):
            raise box[0].error
        return cast(T, box[0])

    def same_buffers(self, *models: nn.Module) -> None:
        """Broadcast every buffer."""
        for model in models:
            for buffer in model.buffers():
                dense = buffer.contiguous()
                dist.broadcast(dense, src=0)
                if dense is not buffer:
                    buffer.copy_(dense)

    def named(self, generators: Mapping[str, Generator]) -> dict[str, Generator]:
        """Return the first process's names unchanged, those of others with their rank."""
        return {name if self.first else f"{name}@{self.rank}": g for name, g in generators.items()}

    def gathered(self, generators: Mapping[str, Generator]) -> dict[str, Generator]:
        """Return those of all by name; this process's own ones are themselves."""
        own = {name: (g.device.type, g.get_state()) for name, g in generators.items()}
        everyone: list[dict[str, tuple[str, Tensor]]] = [{} for _ in range(self.size)]
        dist.all_gather_object(everyone, own)
        copies = {}
        for name, (device, state) in itertools.chain.from_iterable(each.items() for each in everyone):
            copies[name] = Generator(device)
            copies[name].set_state(state)
        return copies | dict(generators)

    def agree(self, what: Mapping[str, Any]) -> None:
        """Compare with what the first process trains."""
        everyone: list[Mapping[str, Any]] = [{} for _ in range(self.size)]
        dist.all_gather_object(everyone, what)
        expected = dict(leaves(everyone[0]))
        for rank, other in enumerate(everyone):
            found = dict(leaves(other))
            for key in sorted(expected.keys() | found.keys()):
                if expected.get(key) != found.get(key):
                    raise TrainError(
                        f"process {rank} trains something else: {key} is {found.get(key)!r} there, "
                        f"{expected.get(key)!r} in process 0: start all with the same arguments and data"
                    )


class _Raised(NamedTuple):
    error: Exception


def own_device(name: str, local_rank: int) -> str:
    """Return the device of a process where all asked for `name`.

    Raises:
        TrainError: if it has none.
    """
    if name == "cpu":
        return name
    if name not in ("cuda", f"cuda:{local_rank}"):
        raise TrainError(f"device {name!r} is for one process: several take 'cuda', a GPU each, or 'cpu'")
    there = torch.cuda.device_count()
    if local_rank >= there:
        raise TrainError(
            f"process {local_rank} of this machine has no GPU, {there} are there: "
            f"start torchrun with --nproc-per-node {max(there, 1)}, or train on device 'cpu'"
        )
    return f"cuda:{local_rank}"


def _portable(error: Exception) -> Exception:
    """Return an error as another process can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return TrainError(f"process 0 of this training ended: {type(error).__name__}: {error}")
    return error
