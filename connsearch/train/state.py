"""What a training consists of between two epochs: tensors by name, and those as bytes and back.

Everything else follows from the configuration and the number of epochs: the learning rate from the step,
the optimizer's settings from the configuration. Gradients do not outlive a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from connsearch.errors import TrainError

Entry = list[Any]
"""[name, dtype, shape] of a tensor, as JSON holds it."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what a model's state dict holds, and the buffers that it leaves out, by name.

    Raises:
        TrainError: if a module keeps a state that is no ordinary tensor.
    """
    persistent = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, value in persistent.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise TrainError(
                f"{name.removeprefix('model/')} of {type(model).__name__} is {type(value).__name__}, no "
                "ordinary tensor, which a checkpoint cannot hold: train without one"
            )
    return persistent | {f"buffer/{name}": value for name, value in _passing_buffers(model)}


def capture(model: nn.Module, optimizer: Optimizer, generators: Mapping[str, Generator]) -> dict[str, Tensor]:
    """Return everything that the next epoch depends on, by name; tensors of the model are not copied."""
    moments = {
        f"optimizer/{index}/{key}": value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None  # the momentum of an optimizer without one
    }
    states = {f"generator/{name}": generator.get_state() for name, generator in generators.items()}
    return model_tensors(model) | moments | states


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, Generator],
) -> None:
    """Give everything the values that `capture` found."""
    state = model.state_dict()
    for name in state:
        state[name] = tensors[f"model/{name}"]
    model.load_state_dict(state)
    with torch.no_grad():
        for name, buffer in _passing_buffers(model):
            buffer.copy_(tensors[f"buffer/{name}"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _moments(tensors, optimizer)})
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator/{name}"])


def to_bytes(tensors: Mapping[str, Tensor]) -> tuple[list[Entry], list[memoryview]]:
    """Return what the tensors are called and look like, and their numbers, row by row."""
    entries = [[name, str(x.dtype).removeprefix("torch."), list(x.shape)] for name, x in tensors.items()]
    flat = (x.detach().cpu().contiguous().reshape(-1) for x in tensors.values())
    return entries, [x.view(torch.uint8).numpy().data for x in flat]


def from_bytes(entries: list[Entry], numbers: memoryview) -> dict[str, Tensor]:
    """Return the tensors that `to_bytes` was given, on the CPU, in memory of their own.

    Raises:
        ValueError: if there are more numbers or fewer.
    """
    tensors, start = {}, 0
    for name, dtype_name, shape in entries:
        dtype: torch.dtype = getattr(torch, dtype_name)
        end = start + math.prod(shape) * dtype.itemsize
        if end > len(numbers):
            raise ValueError(f"{name} ends at byte {end} of {len(numbers)}")
        raw = torch.empty(end - start, dtype=torch.uint8)
        raw.numpy().data[:] = numbers[start:end]
        tensors[name] = raw.view(dtype).reshape(shape)
        start = end
    if start < len(numbers):
        raise ValueError(f"{len(numbers) - start} bytes are left over")
    return tensors


def _passing_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that are not persistent."""
    kept = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name not in kept)


def _moments(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state by parameter, each tensor laid out in memory as its parameter is."""
    parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[key] = value
    return state
