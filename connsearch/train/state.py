"""What a training consists of between two epochs, as tensors by name.

Everything else follows from the configuration and the number of epochs: the learning rate from the step,
the optimizer's settings from the configuration. Gradients do not outlive a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from connsearch.errors import TrainError

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
"""What a tensor of a training may be of, as safetensors holds it."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what a model's state dict holds, and the buffers that it leaves out, by name.

    Raises:
        TrainError: if a module keeps a state that is no ordinary tensor, or one of a type not in `DTYPES`.
    """
    state = {f"model/{name}": value for name, value in model.state_dict().items()}
    state |= {f"buffer/{name}": x for name, x in model.named_buffers() if f"model/{name}" not in state}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.dtype not in DTYPES:
            tensor = isinstance(value, Tensor)
            kind = f"{value.dtype} laid out as {value.layout}" if tensor else type(value).__name__
            raise TrainError(
                f"{name.partition('/')[2]} of {type(model).__name__} is {kind}, no ordinary tensor, which a "
                "checkpoint cannot hold: train without one"
            )
    return state


def capture(model: nn.Module, optimizer: Optimizer, generators: Mapping[str, Generator]) -> dict[str, Tensor]:
    """Return everything that the next epoch depends on, by name.

    As safetensors wants it: row by row, on the CPU, and each in memory of its own, so that parameters
    that are one tensor under two names are two.
    """
    moments = {
        f"optimizer/{index}/{key}": value
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None  # the momentum of an optimizer without one
    }
    states = {f"generator/{name}": generator.get_state() for name, generator in generators.items()}
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in (model_tensors(model) | moments | states).items()
    }


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
        for name, buffer in model.named_buffers():
            if name not in state:
                buffer.copy_(tensors[f"buffer/{name}"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _moments(tensors, optimizer)})
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator/{name}"])


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
