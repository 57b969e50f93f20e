"""Trainings by several processes; as a program, it starts them as torchrun would, but by forks.

Takes a number of processes, a JSON list of trainings, each a table of arguments of `training`, and a folder
for itself; each process does all of them, in order. Prints a JSON list of what each process found.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from connsearch.data import Augment, Dataset, Split, load_dataset
from connsearch.errors import ConnsearchError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.nn import build
from connsearch.spec import NetworkSpec
from connsearch.train import EpochRecord, StopTraining, TrainConfig, train

RANK = "RANK"
IMAGES = "synthetic(n_train=70, n_val=33, n_test=9, channels=2, height=6, width=6, n_classes=3, noise=0.3)"


def column(pipeline: str = "none", drop: str | None = None, **values: Any) -> nn.Module:
    """Return two blocks of a searched network."""
    block = {"topology": "dense", "aggregation": "sum", "n_layers": 3, "width": 4} | values
    shape = {"channels": 2, "height": 6, "width": 6}
    spec = NetworkSpec.from_dict({"input": shape, "n_classes": 3, "blocks": [block] * 2, "drop": drop})
    return build(spec, pipeline=pipeline)


def plain(dropout: float = 0.0) -> nn.Module:
    """Return a network without norms."""
    convs = nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Dropout(dropout), nn.Conv2d(6, 6, 3, stride=2)
    return nn.Sequential(*convs, nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))


def normed() -> nn.Module:
    """Return a network with batch norms of maps and of vectors, one of them without parameters."""
    convs = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 6, 3, bias=False)
    norms = nn.BatchNorm2d(6, affine=False), nn.Tanh(), nn.Flatten(), nn.BatchNorm1d(24, momentum=None)
    return nn.Sequential(*convs, *norms, nn.Linear(24, 3))


def heads() -> nn.Module:
    """Return a network with a second head."""
    nodes = (Node("stem", "stem"), Node("a"), Node("early", "head"), Node("b"), Node("late", "head"))
    graph = ConnectivityGraph(nodes, ((), (0,), (1,), (1,), (3,)))
    shape = {"channels": 2, "height": 6, "width": 6}
    return build(NetworkSpec.from_graph(graph, width=4, n_classes=3, input=shape), pipeline="none")


def pixels() -> nn.Module:
    """Return a network that names the class of each pixel."""
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 1))


class Diverging(nn.Module):
    """Gives the second process no numbers from the 7th step on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes = nn.Linear(72, 3), 0

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        self.passes += self.training
        logits: Tensor = self.linear(images.flatten(1))
        return logits * torch.nan if self.passes >= 7 and os.environ.get(RANK) == "1" else logits


class Odd(nn.Module):
    """One of its layers is frozen, one is used by nobody, one, if any, by the first process alone."""

    def __init__(self, by_first: bool = False, trains: bool = True) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(72, 16), nn.Linear(16, 3)
        self.frozen, self.never, self.sometimes = (nn.Linear(16, 16) for _ in range(3))
        self.frozen.requires_grad_(False)
        self.by_first = by_first
        if not trains:
            self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        h = self.frozen(self.trunk(images.flatten(1)).tanh())
        if self.by_first and os.environ.get(RANK, "0") == "0":
            h = h + self.sometimes(h)
        logits: Tensor = self.head(h)
        return logits


MODELS: dict[str, Callable[..., nn.Module]] = {
    "column": column,
    "plain": plain,
    "normed": normed,
    "heads": heads,
    "pixels": pixels,
    "odd": Odd,
    "diverging": Diverging,
}


def made(model: str, **values: Any) -> nn.Module:
    """Return a model, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[model](**values)


def images(n_train: int = 70, shift: int = 1) -> Dataset:
    """Return images that are mirrored and shifted."""
    return replace(
        load_dataset(IMAGES.replace("n_train=70", f"n_train={n_train}")), augment=Augment(True, shift)
    )


def maps(dataset: Dataset) -> Dataset:
    """Return the images with a label for each pixel, of which many are void."""

    def labelled(split: Split) -> Split:
        maps_BHW = (split.images[:, 0] > 0).long() + (split.images[:, 1] > 0)
        return Split(split.images, torch.where(split.images[:, 0] > 1, 3, maps_BHW).byte())

    splits = {name: labelled(getattr(dataset, name)) for name in ("train", "val", "test")}
    return replace(dataset, **splits, void=3)


def training(
    model: Sequence[Any] = ("plain",),
    config: dict[str, Any] | None = None,
    *,
    n_train: int = 70,
    seed: int = 0,
    checkpoint: str | None = None,
    stop: int = 0,
    fail: int = 0,
    fails: str = "",
) -> dict[str, Any]:
    """Train and return what can be told of it.

    Args:
        model: Its name and maybe a table of arguments.
        config: On top of some epochs.
        n_train: How many images train.
        seed: Of the training.
        checkpoint: Where to keep it.
        stop: After which epoch the callback stops the training.
        fail: In which process something goes wrong, if `fails` says what.
        fails: "seed", another one; "kill" and "raise", in the second epoch; "callback", after it.
    """
    how = TrainConfig.from_dict({"dataset": "synthetic", "epochs": 3, "batch_size": 16} | (config or {}))
    name, *values = model
    network = made(name, **(values[0] if values else {}))
    here = int(os.environ.get(RANK, "0"))
    told: list[int] = []

    def on_epoch(record: EpochRecord) -> None:
        told.append(record.epoch)
        if record.epoch == stop:
            raise StopTraining
        if record.epoch == 2 and fails == "callback":
            raise RuntimeError("no more of this")

    if fails and fail == here:
        seed += fails == "seed"
        _spoil(network, fails)
    data = maps(images(n_train)) if name == "pixels" else images(n_train)
    result = train(network, data, how, seed=seed, on_epoch=on_epoch, checkpoint=checkpoint)
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    network(torch.zeros(4, 2, 6, 6)).sum().backward()  # it is an ordinary model again
    return {
        "curve": [record.to_dict() for record in result.curve],
        "diverged": result.diverged,
        "weights": digest.hexdigest(),
        "kinds": sorted({type(module).__name__ for module in network.modules()}),
        "told": told,
    }


def _spoil(network: nn.Module, fails: str) -> None:
    """Have the 7th pass of training go wrong."""
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += network.training
        if passes == 7 and fails == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if passes == 7 and fails == "raise":
            raise ValueError("it is broken")

    network.register_forward_pre_hook(count)


def _found(arguments: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        return training(**arguments)
    except (ConnsearchError, RuntimeError, ValueError) as error:
        told = getattr(error, "told", False)
        seconds = time.perf_counter() - start
        return {"error": type(error).__name__, "message": str(error), "told": told, "seconds": seconds}


def _process(rank: int, size: int, port: int, trainings: list[dict[str, Any]], path: Path) -> None:
    place = {RANK: rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    path.write_text(json.dumps([_found(arguments) for arguments in trainings]))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def main(size: int, trainings: list[dict[str, Any]], folder: Path) -> None:
    """Start the processes and wait for them."""
    torch.set_num_threads(1)  # a child of a process with more waits for them for ever
    port = _free_port()
    paths = [folder / f"process-{rank}.json" for rank in range(size)]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                _process(rank, size, port, trainings, paths[rank])
            except Exception:
                traceback.print_exc()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    print(json.dumps([json.loads(path.read_text()) if path.exists() else None for path in paths]))


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
