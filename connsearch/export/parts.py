"""What an exported model needs besides torch's own modules: each is copied into the file as it stands here.

Nothing here reads the rest of connsearch. Shapes: B images, C channels, H W pixels, L sources.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor, nn


class Weighted(nn.Module):
    """x = sum_i w_i h_i: one scalar for each source, through a sigmoid if asked."""

    def __init__(self, n_sources: int, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.weight = nn.Parameter(torch.zeros(n_sources))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        """Return B C H W."""
        weight = self.weight.sigmoid() if self.sigmoid else self.weight
        x = sources[0] * weight[0]
        for w, h in zip(weight[1:], sources[1:], strict=True):
            x = torch.addcmul(x, h, w)
        return x


class Depthwise(nn.Module):
    """x[c] = sum_i w[i, c] h_i[c] + b[c]: one weight for each source and channel."""

    def __init__(self, n_sources: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n_sources, channels), 1 / n_sources))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        """Return B C H W."""
        weight = self.weight[:, :, None, None]
        x = sources[0] * weight[0]
        for w, h in zip(weight[1:], sources[1:], strict=True):
            x = torch.addcmul(x, h, w)
        return x + self.bias[:, None, None]


class NormalizedDepthwise(nn.Module):
    """x[c] = sum_i (w[i, c] batch_norm(h_i)[c] + b[i, c]): every source has statistics of its own."""

    def __init__(self, n_sources: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n_sources, channels), 1 / n_sources))
        self.bias = nn.Parameter(torch.zeros(n_sources, channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(n_sources, channels))
        self.register_buffer("running_var", torch.ones(n_sources, channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        """Return B C H W; in training, update the running statistics."""
        if self.training:
            self.num_batches_tracked += 1
        x = self.normalized(0, sources[0])
        for i, h in enumerate(sources[1:], start=1):
            x = x + self.normalized(i, h)
        return x

    def normalized(self, i: int, h: Tensor) -> Tensor:
        """Return w batch_norm(h) + b of one source, B C H W."""
        mean, var = self.running_mean[i], self.running_var[i]
        return F.batch_norm(h, mean, var, self.weight[i], self.bias[i], self.training)


class Gated(nn.Module):
    """A highway: x_1 = h_1, x_i = x_{i-1} + t_i (h_i - x_{i-1}), t_i = sigmoid(conv(x_{i-1}))."""

    def __init__(self, n_sources: int, channels: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(n_sources - 1))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        """Return B C H W."""
        x = sources[0]
        for gate, h in zip(self.gates, sources[1:], strict=True):
            x = torch.lerp(x, h, gate(x).sigmoid())
        return x


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels, pixel by pixel."""

    def forward(self, h: Tensor) -> Tensor:
        """Return B C H W."""
        return super().forward(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class Position(nn.Module):
    """h + weight: a learned value for each channel and pixel."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(channels, height, width))

    def forward(self, h: Tensor) -> Tensor:
        """Return B C H W."""
        return h + self.weight


class Layers(nn.Module):
    """Modules by name, for names that a ModuleDict has taken."""

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)


def route(sources: Sequence[Tensor], gates: Sequence[Tensor | None]) -> Tensor:
    """Return sum_i g_i h_i, B C H W: a gate B weights its source image by image; None is a weight of 1."""
    maps = [None if gate is None else gate[:, None, None, None] for gate in gates]
    x = sources[0] if maps[0] is None else sources[0] * maps[0]
    for h, g in zip(sources[1:], maps[1:], strict=True):
        x = x + h if g is None else torch.addcmul(x, h, g)
    return x


def attention(h: Tensor, heads: int) -> Tensor:
    """Return v softmax(k^T q / sqrt(d)) between all pixels: B 3C H W to B C H W.

    What it reads is, head by head, d = C / heads queries, d keys and d values.
    """
    batch, channels, height, width = h.shape
    d = channels // (3 * heads)
    q, k, v = h.reshape(batch * heads, 3, d, height * width).unbind(1)
    weight = (torch.bmm(q.transpose(1, 2), k) * d**-0.5).softmax(dim=2)
    return torch.bmm(v, weight.transpose(1, 2)).reshape(batch, heads * d, height, width)


def drop_source(h: Tensor, survival: float, training: bool) -> Tensor:
    """Return h or zeros in training, survival * h in evaluation (stochastic depth)."""
    return h * (float(torch.rand(()).item() < survival) if training else survival)


def drop_elements(h: Tensor, survival: float, training: bool) -> Tensor:
    """Return h with elements zeroed at random in training, survival * h in evaluation (Swapout)."""
    return h * (torch.empty_like(h).bernoulli_(survival) if training else survival)


def draw_column(n_columns: int, share: float, training: bool) -> int | None:
    """Return the one column that this forward pass keeps, in a share of them; None if every join draws."""
    if training and torch.rand(()).item() < share:
        return int(torch.randint(n_columns, ()).item())
    return None


def drop_paths(
    sources: Sequence[Tensor], columns: Sequence[int], column: int | None, survival: float, training: bool
) -> list[Tensor]:
    """Return sources so that their mean is that of those that survive, one at least (drop-path)."""
    if not training:
        return list(sources)
    kept = [c == column for c in columns]
    if column is None:
        kept = [bool(torch.rand(()).item() < survival) for _ in columns]
        if not any(kept):
            kept[int(torch.randint(len(columns), ()).item())] = True
    elif not any(kept):
        kept = [True] * len(columns)
    return [h * (len(kept) / sum(kept) if keep else 0.0) for h, keep in zip(sources, kept, strict=True)]


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, as `safetensors.torch.load_file` does."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    types = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, about in header.items():
        dtype, shape, (begin, end) = types[about["dtype"]], about["shape"], about["data_offsets"]
        count = (end - begin) // dtype.itemsize
        values = torch.frombuffer(content, dtype=dtype, count=count, offset=start + begin)
        tensors[name] = values.view(shape)
    return tensors
