"""From operations to modules: one torch module for each primitive operation, named as `op_names` says."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.errors import SpecError
from connsearch.spec.ops import (
    Act,
    Attention,
    Chain,
    Conv,
    Deconv,
    DepthwiseConv,
    GlobalPool,
    Linear,
    Norm,
    Op,
    Pool,
    Position,
    Slice,
    Softmax,
    Subsample,
    Upsample,
    op_names,
)

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
}


class SpatialMean(nn.Module):
    """The mean over pixels: B C H W to B C."""

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B C."""
        return h_BCHW.mean(dim=(2, 3))


class Features(nn.Linear):
    """A linear layer of all features of an image: B C H W or B F to B K."""

    def forward(self, h: Tensor) -> Tensor:
        """Return B K."""
        return super().forward(h.flatten(1))


class Channels(nn.Module):
    """A copy of some channels: B C H W to B (stop - start) H W."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B (stop - start) H W."""
        return h_BCHW[:, self.start : self.stop].clone()


class Subsampled(nn.Module):
    """Every stride-th pixel, zeros in front of and behind the channels: B C H W to B D (H/s) (W/s)."""

    def __init__(self, op: Subsample) -> None:
        super().__init__()
        self.stride = op.stride
        added = op.out_channels - op.in_channels
        self.added = (added // 2, added - added // 2)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B D (H/s) (W/s), rounded up."""
        s = self.stride
        return F.pad(h_BCHW[:, :, ::s, ::s], (0, 0, 0, 0, *self.added))


class ChannelNorm(nn.LayerNorm):
    """The layer norm of transformers: over the channels, pixel by pixel. B C H W to B C H W."""

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B C H W."""
        normal_BHWC = super().forward(h_BCHW.permute(0, 2, 3, 1))
        return normal_BHWC.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


class LearnedPosition(nn.Module):
    """h + weight, a value for each channel and pixel: B C H W to B C H W. Weights start N(0, 0.02)."""

    def __init__(self, op: Position) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(op.channels, op.height, op.width))

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B C H W."""
        return h_BCHW + self.weight


class PixelAttention(nn.Module):
    """v softmax(k^T q / sqrt(d)) between N = H W pixels, in each of G heads: B 3C H W to B C H W.

    The channels that it reads are, head by head, d = C / G queries, d keys and d values.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, h_BCHW: Tensor) -> Tensor:
        """Return B C H W."""
        batch, channels, height, width = h_BCHW.shape
        d = channels // (3 * self.heads)
        q_MdN, k_MdN, v_MdN = h_BCHW.reshape(batch * self.heads, 3, d, height * width).unbind(1)
        weight_MNN = torch.bmm(q_MdN.transpose(1, 2), k_MdN).mul_(d**-0.5).softmax(dim=2)
        return torch.bmm(v_MdN, weight_MNN.transpose(1, 2)).view(batch, self.heads * d, height, width)


def build_chain(chain: Chain) -> nn.Sequential:
    """Return the modules of a line of operations, initialised."""
    modules = OrderedDict((name, build_op(op)) for name, op in zip(op_names(chain), chain, strict=True))
    return nn.Sequential(modules)


def build_op(op: Op) -> nn.Module:
    """Return one operation as a module.

    Raises:
        SpecError: if there is no module for it.
    """
    if isinstance(op, Conv):
        return _conv(op)
    if isinstance(op, DepthwiseConv):
        return _conv(Conv(op.channels, op.channels, op.kernel, op.stride, groups=op.channels))
    if isinstance(op, Deconv):
        return _deconv(op)
    if isinstance(op, Upsample):
        return nn.Upsample(scale_factor=op.scale, mode=op.kind)
    if isinstance(op, Subsample):
        return Subsampled(op)
    if isinstance(op, Slice):
        return Channels(op.start, op.stop)
    if isinstance(op, Norm):
        return _norm(op)
    if isinstance(op, Act):
        return _ACTIVATIONS[op.kind]()
    if isinstance(op, Pool):
        pool = nn.MaxPool2d if op.kind == "max" else nn.AvgPool2d
        return pool(op.kernel, op.stride, op.padding)
    if isinstance(op, GlobalPool):
        return SpatialMean()
    if isinstance(op, Linear):
        linear = Features(op.in_features, op.out_features)
        nn.init.zeros_(linear.bias)
        return linear
    if isinstance(op, Position):
        return LearnedPosition(op)
    if isinstance(op, Attention):
        return PixelAttention(op.heads)
    if isinstance(op, Softmax):
        return nn.Softmax(dim=1)
    raise SpecError(f"no module builds the operation {op}")


def _conv(op: Conv) -> nn.Conv2d:
    """Return a convolution, weights N(0, sqrt(2 / (k k out / groups))), bias 0."""
    padding = op.kernel // 2 if op.padding is None else op.padding
    conv = nn.Conv2d(
        op.in_channels, op.out_channels, op.kernel, op.stride, padding, groups=op.groups, bias=op.bias
    )
    nn.init.normal_(conv.weight, std=math.sqrt(2 * op.groups / (op.kernel * op.kernel * op.out_channels)))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _deconv(op: Deconv) -> nn.Module:
    """Return a transposed convolution, weights N(0, sqrt(2 / (k k out))), bias 0."""
    padding = op.kernel // 2
    rest = op.stride + 2 * padding - op.kernel  # so that the output is stride times as large
    conv = nn.ConvTranspose2d(
        op.in_channels, op.out_channels, op.kernel, op.stride, padding, output_padding=rest, bias=op.bias
    )
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (op.kernel * op.kernel * op.out_channels)))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _norm(op: Norm) -> nn.Module:
    if op.kind == "batch":
        return nn.BatchNorm2d(op.channels)
    if op.kind in ("layer", "instance"):
        return nn.GroupNorm(1 if op.kind == "layer" else op.channels, op.channels)
    if op.kind == "channel":
        return ChannelNorm(op.channels)
    raise SpecError(f"no module builds the norm {op.kind!r}")
