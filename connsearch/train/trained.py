"""Which network does a file hold? A training's checkpoint, or weights by name; with its specification.

A file of weights is a safetensors file with a network's state dict. Those that connsearch writes say in
their metadata which network it is, `network`, and what it was trained on, `dataset`, both as JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from connsearch.errors import SpecError, TrainError
from connsearch.files import write_whole
from connsearch.nn.network import Network
from connsearch.registry import Ref
from connsearch.spec.network import NetworkSpec
from connsearch.train.checkpoint import LENGTH_BYTES, header_of

MARK, DATASET = "network", "dataset"
"""Metadata of a file of weights: the specification; the data set that it was trained on, both as JSON."""


@dataclass(frozen=True)
class Trained:
    """A network with weights from a file.

    Attributes:
        network: In evaluation mode, on the CPU.
        dataset: What it was trained on, as `load_dataset` takes it; None if the file does not say.
        epochs: Finished epochs of its training; None if the file is no checkpoint.
    """

    network: Network
    dataset: Ref | None = None
    epochs: int | None = None


def load_trained(path: str | os.PathLike[str], spec: NetworkSpec | None = None) -> Trained:
    """Return the network that a checkpoint or a file of weights holds.

    Args:
        path: The file.
        spec: Which network it is, for a file that does not say.

    Raises:
        TrainError: if the file is missing, damaged or something else, does not say which network it is of
            and there is no `spec`, or holds another one.
    """
    file = Path(path)
    content = _read(file)
    try:
        header = header_of(content)
        tensors = safetensors.torch.load(content)
        metadata = _metadata(content)
    except (KeyError, RecursionError, TypeError, ValueError, SafetensorError) as error:
        what = "is damaged" if isinstance(error, ValueError) else "is no safetensors file"
        raise TrainError(
            f"{file}: {what}: {error}: name a training's checkpoint, or a network's weights as safetensors"
        ) from None
    try:
        if header is not None:
            return _of_checkpoint(file, header, tensors, spec)
        there = json.loads(metadata[MARK]) if MARK in metadata else None
        dataset = _dataset(json.loads(metadata[DATASET])) if DATASET in metadata else None
        return Trained(_network(file, tensors, there, spec), dataset)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise TrainError(f"{file}: names a network that cannot be built: {error}") from None
        raise TrainError(f"{file}: does not hold what its header says, {error!r}") from None


def save_trained(trained: Trained, path: str | os.PathLike[str]) -> Path:
    """Write a network's weights, and which network it is, as a safetensors file; return its path.

    Raises:
        ConnsearchError: if the file cannot be written.
    """
    metadata = {MARK: json.dumps(trained.network.spec.to_full_dict())}
    if trained.dataset is not None:
        metadata[DATASET] = json.dumps(trained.dataset.to_data())
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in trained.network.state_dict().items()
    }
    return write_whole(path, weights_content(tensors, metadata))


def weights_content(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return the content of a safetensors file; equal tensors and metadata give equal bytes.

    The library writes metadata in an order that changes from call to call; here they are sorted.
    """
    content = safetensors.torch.save(tensors, metadata)
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // LENGTH_BYTES) * LENGTH_BYTES)  # tensors begin at a multiple
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + content[end:]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file: name a training's checkpoint or a file of weights") from None
    except IsADirectoryError:
        raise TrainError(f"{path}: is a directory: name a checkpoint or a file of weights in it") from None
    except OSError as error:
        raise TrainError(f"{path}: cannot be read: {error.strerror or error}") from None


def _metadata(content: bytes) -> dict[str, Any]:
    """Return the metadata of a safetensors file that is whole."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    return dict(json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length]).get("__metadata__", {}))


def _of_checkpoint(
    path: Path, header: dict[str, Any], tensors: dict[str, Tensor], spec: NetworkSpec | None
) -> Trained:
    training = header["training"]
    if "network" not in training["model"] and spec is None:
        raise TrainError(
            f"{path}: is of the training of a {training['model']['class']}, not of a network of connsearch: "
            "name the network that it is"
        )
    weights = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith("model/")}
    network = _network(path, weights, training["model"].get("network"), spec)
    return Trained(network, _dataset(training["config"]["dataset"]), len(header["curve"]))


def _dataset(data: object) -> Ref:
    """Return the reference of a data set; its name need not be registered here."""
    if isinstance(data, str):
        return Ref(data)
    table: dict[str, Any] = dict(data)  # type: ignore[call-overload]  # anything else is a TypeError
    name = table.pop("name")
    return Ref(name, tuple(sorted(table.items())))


def _network(
    path: Path, weights: dict[str, Tensor], there: dict[str, Any] | None, spec: NetworkSpec | None
) -> Network:
    """Return the network that a file names, or else the given one, with the weights."""
    own = None if there is None else NetworkSpec.from_dict(there)
    if own is None and spec is None:
        raise TrainError(
            f"{path}: does not say which network its {len(weights)} tensors are of: "
            "name it, a preset or a NetworkSpec file (--net)"
        )
    if own is not None and spec is not None and own.replaced(name="") != spec.replaced(name=""):
        raise TrainError(f"{path}: holds the network {own.name!r}, not {spec.name!r}: leave out --net")
    chosen = own or spec
    assert chosen is not None
    with torch.random.fork_rng(devices=[]):  # the first weights are replaced
        network = Network(chosen)
    _check_fits(path, network, weights)
    network.load_state_dict(weights)
    return network.eval()


def _check_fits(path: Path, network: Network, weights: dict[str, Tensor]) -> None:
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [name for name in (*wanted, *given) if wanted.get(name) != given.get(name)]
    if not wrong:
        return
    first, n = wrong[0], len(set(wrong))
    shapes = [
        "no such tensor" if shape is None else "x".join(map(str, shape)) or "a number"
        for shape in (given.get(first), wanted.get(first))
    ]
    raise TrainError(
        f"{path}: holds the weights of another network than {network.spec.name!r}: {first} is {shapes[0]} "
        f"there, {shapes[1]} in the network{f' (and {n - 1} more)' if n > 1 else ''}"
    )
