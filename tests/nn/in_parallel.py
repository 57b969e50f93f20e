"""One of two processes that train a compiled network together."""

from __future__ import annotations

import torch
from pairs import blocks
from torch import distributed, nn

from connsearch.nn import Network, build


def gradients_of(rank: int, store: str, aggregation: str, images: torch.Tensor, out: str) -> None:
    """Leave the gradients that a process has after two steps on its half of the images."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(0)
    model = build(Network(blocks("dense", aggregation)).double())
    parallel = nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        model.zero_grad()
        parallel(images[rank::2]).square().mean().backward()
    torch.save([p.grad for p in model.parameters()], f"{out}{rank}")
    distributed.destroy_process_group()
