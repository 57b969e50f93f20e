"""Presets as networks: each fits together at its real size, runs, owns what is counted, keeps its state."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from connsearch.cost import network_cost
from connsearch.nn import Network
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import PRESETS, preset
from shrunken import macs_of, with_small_images

QUICK = 60_000_000  # multiply-accumulates


def cases() -> list[object]:
    """Return every preset; what takes long is marked slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if macs_of(name) > QUICK else []) for name in PRESETS]


def images_of(spec: NetworkSpec) -> Tensor:
    return torch.randn(1, spec.input.channels, spec.input.height, spec.input.width)


def logits_of(network: Network) -> list[Tensor]:
    logits = network.train().logits_by_head(images_of(network.spec))
    assert {found.shape[:2] for found in logits.values()} == {(1, network.spec.n_classes)}
    return [*logits.values()]


@pytest.mark.parametrize("name", cases())
def test_a_preset_runs_forward_and_backward(name: str) -> None:
    real = preset(name)
    spec = with_small_images(real)
    with torch.device("meta"):  # takes no time for values
        again = Network(real)
        if spec is not real:
            logits_of(again)
    network = Network(spec)
    owned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert owned == network_cost(real).params
    loss = torch.stack([logits.square().sum() for logits in logits_of(network)]).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    assert not unused
    state = network.state_dict()
    again.to_empty(device="cpu").load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    if macs_of(name) <= QUICK:
        images = images_of(spec)
        with torch.no_grad():
            assert torch.equal(again.eval()(images), network.eval()(images))
