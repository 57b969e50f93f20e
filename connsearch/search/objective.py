"""The objective: build one network, train it, say what came of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from connsearch.cost import NetworkCost, network_cost
from connsearch.memory import malloc_policy
from connsearch.search.measures import ERRORS
from connsearch.search.memory import OutOfMemoryError, check_memory
from connsearch.search.pruning.rules import Pruned
from connsearch.search.seeds import stream_seed
from connsearch.spec.network import NetworkSpec
from connsearch.text import first_line
from connsearch.train.config import TrainConfig
from connsearch.train.result import EpochRecord, TrainResult
from connsearch.train.torchrun import launched

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch says on CUDA, on a CPU under Linux, on one under Windows."""


class Outcome(NamedTuple):
    """What a trial reached: the exact cost, how training went, and why it was pruned, if it was."""

    cost: NetworkCost
    training: TrainResult
    pruned: Pruned | None = None

    def value(self, objective: str) -> float:
        """Return the value of an objective; of a network that diverged, an error is 1."""
        if objective in ERRORS:
            return float(getattr(self.training, objective))
        return float(getattr(self.cost, objective))


def evaluate_network(
    spec: NetworkSpec,
    train_config: TrainConfig,
    *,
    study_seed: int,
    trial: int,
    device: str,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Return the outcome of one trial; a function of its arguments alone, on one machine.

    Args:
        spec: The network.
        train_config: How it is trained; only the training and validation splits are read.
        study_seed: Together with the trial's number it gives the seeds of weights and batches.
        trial: The trial's number.
        device: Where to train, such as "cpu" or "cuda".
        on_epoch: Called after each epoch; as `connsearch.train.train` takes it.
        checkpoint: As `connsearch.train.train` takes it.

    Raises:
        OutOfMemoryError: if memory does not suffice, or the cost says so before the network is built.
        TrainError: as `connsearch.train.train`.
    """
    import torch

    from connsearch.data import load_dataset
    from connsearch.nn import build
    from connsearch.train import train

    cost = network_cost(spec)
    check_memory(cost, train_config, device)
    data, seed = load_dataset(train_config.dataset), stream_seed(study_seed, trial, "train")
    with enough_memory(device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(study_seed, trial, "init"))
            network = build(spec, pipeline=train_config.pipeline)
        result = train(
            network, data, train_config, seed=seed, device=device, on_epoch=on_epoch, checkpoint=checkpoint
        )
    return Outcome(cost, result)


def check_training(spec: NetworkSpec, config: TrainConfig, device: str) -> None:
    """Make sure that a training may fit into memory. Of several processes, each with a part, nobody knows.

    Raises:
        OutOfMemoryError: if it cannot fit.
    """
    if launched() is None:
        check_memory(network_cost(spec), config, device)


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """Turn running out of memory, of which torch tells in several ways, into one error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = first_line(str(error))
        if isinstance(error, MemoryError) or any(words in reason for words in _NO_MEMORY):
            raise OutOfMemoryError(f"out of memory on {device}: {reason or 'no more is there'}") from None
        raise


def environment(device: str, threads: int) -> dict[str, Any]:
    """Return what a trial's numbers depend on besides its seeds; `threads` as `TrainConfig` says."""
    import torch

    return {
        "device": torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else platform.processor() or "cpu",
        "kind": device.partition(":")[0],
        "threads": threads or torch.get_num_threads(),
        "malloc": malloc_policy(),
        "python": platform.python_version(),
        **_versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("connsearch", "torch", "optuna", "numpy")}


def training_device(asked: str | None = None) -> str:
    """Return the device to train on: the asked one, else "cuda" where there is one, else "cpu".

    Raises:
        TrainError: if the asked one is unknown or not there.
    """
    import torch

    from connsearch.train.surroundings import torch_device

    return str(torch_device(asked or ("cuda" if torch.cuda.is_available() else "cpu")))
