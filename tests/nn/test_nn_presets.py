"""Presets as networks: each runs at its real size, owns what is counted, and keeps its state."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from connsearch.cost import network_cost
from connsearch.nn import Network
from connsearch.spec.presets import PRESETS, preset

QUICK, LARGE = 60_000_000, 2_000_000_000  # multiply-accumulates


def cases() -> list[object]:
    """Return every preset; what takes long is marked slow, what takes very long large."""
    return [pytest.param(name, marks=_marks(network_cost(preset(name)).macs)) for name in PRESETS]


def _marks(macs: int) -> list[pytest.MarkDecorator]:
    if macs > LARGE:
        return [pytest.mark.large]
    return [pytest.mark.slow] if macs > QUICK else []


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """The largest presets are worth it."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("name", cases())
def test_a_preset_runs_forward_and_backward(name: str) -> None:
    spec = preset(name)
    network = Network(spec)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == network_cost(spec).params
    images = torch.randn(1, spec.input.channels, spec.input.height, spec.input.width)
    logits = network.train().logits_by_head(images)
    assert {found.shape[:2] for found in logits.values()} == {(1, spec.n_classes)}
    loss = torch.stack([found.square().sum() for found in logits.values()]).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    assert not unused
    state = network.state_dict()
    with torch.device("meta"):  # no time for initial weights that are not used
        again = Network(spec)
    again.to_empty(device="cpu").load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    if network_cost(spec).macs <= QUICK:
        with torch.no_grad():
            assert torch.equal(again.eval()(images), network.eval()(images))
