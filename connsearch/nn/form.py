"""Form: on which device, in which type and memory format a network and its images are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from connsearch.nn.network import Network
from connsearch.spec.network import NetworkSpec


class Form(NamedTuple):
    """What networks and images are made as.

    Attributes:
        device: Where they are.
        dtype: Of parameters and images.
        channels_last: Whether images and convolutions have their channels last in memory.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def network(self, spec: NetworkSpec) -> Network:
        """Return a network with initial parameters, the same at each call."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Network(spec).to(device=self.device, dtype=self.dtype)
        return laid_out(network, self._memory_format)

    def images(self, spec: NetworkSpec, batch: int) -> Tensor:
        """Return images B C H W of random values, the same at each call."""
        shape = (batch, spec.input.channels, spec.input.height, spec.input.width)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return images.to(self.device, self.dtype).contiguous(memory_format=self._memory_format)

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def laid_out(network: Network, memory_format: torch.memory_format) -> Network:
    """Return the network, the weights of its convolutions laid out in a memory format."""
    network.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch documents it
    return network
