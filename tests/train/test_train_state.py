"""The tensors of a training: captured, through a file, and restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load, save
from stopping import config
from torch import Tensor, nn
from torch.optim import Optimizer

from connsearch.train.optim import make_optimizer
from connsearch.train.state import DTYPES, capture, restore

MakeNet = Callable[..., nn.Sequential]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_moments_lie_in_memory_as_their_parameters_do(make_net: MakeNet, optimizer: str) -> None:
    """As fused kernels on a GPU want them."""

    def stepped() -> tuple[nn.Module, Optimizer]:
        model = make_net().to(memory_format=torch.channels_last)
        chosen = make_optimizer(model, config(optimizer=optimizer), torch.device("cpu"))
        model(torch.randn(4, 2, 6, 6)).sum().backward()
        chosen.step()
        return model, chosen

    (model, chosen), (other, restored) = stepped(), stepped()
    restore(load(save(capture(model, chosen, {}))), other, restored, {})
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, twin)
        assert restored.state[twin].keys() == chosen.state[parameter].keys()
        for key, value in restored.state[twin].items():
            assert torch.equal(value, chosen.state[parameter][key])
            assert value.stride() == (twin.stride() if value.ndim else ())


def through_a_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is left of a model's buffers after they were captured and saved."""
    model = nn.Module()
    for name, tensor in tensors.items():
        model.register_buffer(name, tensor)
    captured = capture(model, torch.optim.SGD([torch.zeros(1)]), {})
    return {name.removeprefix("model/"): value for name, value in load(save(captured)).items()}


def bits(tensor: Tensor) -> list[int]:
    """A tensor's numbers, row by row, as bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4), st.booleans()), max_size=5
    )
)
def test_tensors_of_any_kind_and_shape_round_trip_bit_for_bit(
    kinds: list[tuple[torch.dtype, list[int], bool]],
) -> None:
    tensors = {}
    for number, (dtype, shape, transposed) in enumerate(kinds):
        count = torch.Size(shape).numel()
        tensor = torch.randint(-9, 9, (count,)).to(dtype).reshape(shape)
        tensors[f"{number}/x y"] = tensor.transpose(0, -1) if transposed and shape else tensor
    found = through_a_file(tensors)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor)


def test_infinities_and_zeros_of_either_sign_keep_their_bits() -> None:
    values = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45])
    assert bits(through_a_file({"x": values})["x"]) == bits(values)


def test_tensors_that_share_memory_round_trip() -> None:
    x = torch.randn(4, 3)
    y = torch.randn(3, dtype=torch.complex64)
    views = {
        "all": x,
        "again": x,
        "row": x[1],
        "turned": x.T,
        "wide": x[:, :1].expand(4, 9),
        "y": y,
        "conj": y.conj(),
    }
    found = through_a_file(views)
    for name, view in views.items():
        assert torch.equal(found[name], view), name
