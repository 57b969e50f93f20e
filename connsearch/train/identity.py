"""Which training is this? What decides a curve bit for bit, as plain data that can be compared.

The weights that a model starts from decide it too, but are not part: a resumed training takes its
weights from the checkpoint, whatever the model at hand holds.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from connsearch import __version__
from connsearch.data.dataset import Dataset, Split
from connsearch.nn import CompiledNetwork, Network
from connsearch.train.config import TrainConfig
from connsearch.train.state import model_tensors

FORMAT = 1
"""Counts changes of what a checkpoint holds."""


def identity(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    device: torch.device,
    processes: int = 1,
) -> dict[str, Any]:
    """Return a training's identity; two that differ in it have curves that may differ.

    Raises:
        TrainError: if a module keeps a state that is no ordinary tensor.
    """
    return {
        "format": FORMAT,
        "seed": seed,
        "config": config.identity(),
        "data": data_identity(dataset),
        "model": _model(model),
        "machine": machine_identity(config, device) | {"processes": processes},
    }


def data_identity(dataset: Dataset) -> dict[str, Any]:
    """Everything that training reads of a data set, its test split thus left out."""
    splits = tuple(split for split in (dataset.train, dataset.val) if split is not None)
    described = {
        "name": dataset.name,
        "train": list(dataset.train.images.shape),
        "val": None if dataset.val is None else list(dataset.val.images.shape),
        "n_classes": dataset.n_classes,
        "flip": dataset.augment.flip,
        "shift": dataset.augment.shift,
        "black": torch.tensor(dataset.black).tolist(),  # as exact as training reads it
        "sha256": _digest(splits),
    }
    if dataset.train.raw:
        described["scale"] = [list(dataset.train.mean), list(dataset.train.std)]
    if dataset.train.dense:
        described["void"] = dataset.void
    return described


def _digest(splits: Sequence[Split]) -> str:
    """Return a hash of images and labels; where splits know theirs, of these, as images may be many."""
    digest = hashlib.sha256()
    if all(split.digest for split in splits):
        digest.update(" ".join(split.digest for split in splits).encode())
        return digest.hexdigest()
    for tensor in (*(s.images for s in splits), *(s.labels for s in splits)):
        digest.update(tensor.detach().cpu().reshape(-1).numpy().data)
    return digest.hexdigest()


def _model(model: nn.Module) -> dict[str, Any]:
    trained = {f"model/{name}" for name, p in model.named_parameters() if p.requires_grad}
    described: dict[str, Any] = {
        "class": type(model).__qualname__,
        "tensors": {
            name.removeprefix("model/"): _described(tensor) + (", trained" if name in trained else "")
            for name, tensor in model_tensors(model).items()
        },
    }
    if isinstance(model, Network | CompiledNetwork):
        described["network"] = model.spec.to_full_dict()
    if isinstance(model, CompiledNetwork):
        described["program"] = hashlib.sha256(str(replace(model.program, name="")).encode()).hexdigest()
    return described


def _described(tensor: Tensor) -> str:
    return " ".join([str(tensor.dtype).removeprefix("torch."), *map(str, tensor.shape)])


def machine_identity(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What rounding depends on besides the program. Of a GPU's host it depends on nothing."""
    versions = {"connsearch": __version__, "torch": torch.__version__}
    if device.type == "cuda":
        return {**versions, "device": torch.cuda.get_device_name(device), "threads": None}
    instructions = torch.backends.cpu.get_cpu_capability()
    threads = config.threads or torch.get_num_threads()
    return {**versions, "device": f"cpu {platform.machine()} {instructions}", "threads": threads}
