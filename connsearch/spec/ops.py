"""Primitive operations: what a stem, a unit, a transition or a head is a straight line of.

Operations are plain values. Counting, building and compiling all read the same line, so what is
counted is what is built. The last field says which operation it is: as tuples, two of them would else be
equal with equal numbers. Shapes: C channels, H W pixels.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple, TypeGuard, get_args

ACTIVATIONS = ("relu", "elu", "silu", "gelu", "leaky_relu", "mish")
NORMS = ("batch", "layer", "instance", "channel", "none")


class Conv(NamedTuple):
    """A k x k convolution with padding k // 2, unless another padding is given."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False
    padding: int | None = None
    op: Literal["conv"] = "conv"


class DepthwiseConv(NamedTuple):
    """A k x k convolution of each channel on its own, padding k // 2, no bias."""

    channels: int
    kernel: int = 3
    stride: int = 1
    op: Literal["depthwise_conv"] = "depthwise_conv"


class Norm(NamedTuple):
    """A normalisation with a weight and a bias for each channel.

    Kinds: batch, layer (over C H W), instance (over H W), channel (over C, pixel by pixel).
    """

    kind: str
    channels: int
    op: Literal["norm"] = "norm"


class Act(NamedTuple):
    """A pointwise activation function."""

    kind: str
    op: Literal["act"] = "act"


class Deconv(NamedTuple):
    """A transposed k x k convolution, k odd, that makes maps `stride` times as large."""

    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 2
    bias: bool = False
    op: Literal["deconv"] = "deconv"


class Upsample(NamedTuple):
    """Maps `scale` times as large, without weights: `nearest` or `bilinear`."""

    kind: str
    scale: int = 2
    op: Literal["upsample"] = "upsample"


class Subsample(NamedTuple):
    """Every `stride`-th pixel, then channels of zeros: a shortcut without weights (option A of ResNet)."""

    in_channels: int
    out_channels: int
    stride: int = 2
    op: Literal["subsample"] = "subsample"


class Slice(NamedTuple):
    """A copy of the channels start .. stop - 1."""

    start: int
    stop: int
    op: Literal["slice"] = "slice"


class Pool(NamedTuple):
    """An average or maximum over windows of k x k pixels."""

    kind: str
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    op: Literal["pool"] = "pool"


class GlobalPool(NamedTuple):
    """The mean over all pixels: C H W to C."""

    op: Literal["global_pool"] = "global_pool"


class Linear(NamedTuple):
    """A matrix product with a bias, of all that it reads: C H W, flattened."""

    in_features: int
    out_features: int
    op: Literal["linear"] = "linear"


class Position(NamedTuple):
    """A learned map that is added to what is read: what tells one pixel from another."""

    channels: int
    height: int
    width: int
    op: Literal["position"] = "position"


class Attention(NamedTuple):
    """Scaled dot-product attention between all pixels: 3 C channels of queries, keys, values to C."""

    channels: int
    heads: int = 1
    op: Literal["attention"] = "attention"


class Softmax(NamedTuple):
    """exp(x) / sum(exp(x)) over the features."""

    op: Literal["softmax"] = "softmax"


Op = (
    Conv
    | DepthwiseConv
    | Deconv
    | Upsample
    | Subsample
    | Slice
    | Norm
    | Act
    | Pool
    | GlobalPool
    | Linear
    | Position
    | Attention
    | Softmax
)
Chain = tuple[Op, ...]
OPERATIONS = frozenset(get_args(Op))


def is_batch_norm(op: object) -> TypeGuard[Norm]:
    """Return whether something is a batch norm: in evaluation a x + b, with constants for each channel."""
    return isinstance(op, Norm) and op.kind == "batch"


def is_relu(op: object) -> TypeGuard[Act]:
    """Return whether something is a ReLU, whose backward needs what it gives out alone."""
    return isinstance(op, Act) and op.kind == "relu"


class Shape(NamedTuple):
    """The shape of one image's feature; a vector of features has height = width = 1."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Number of scalars."""
        return self.channels * (self.height * self.width)


def output_shape(op: Op, shape: Shape) -> Shape:
    """Return the shape that an operation gives out; a height below 1 means the input is too small."""
    if isinstance(op, (Norm, Act)):
        return shape
    if isinstance(op, Conv):
        padding = op.kernel // 2 if op.padding is None else op.padding
        return Shape(op.out_channels, *_window(shape, op.kernel, op.stride, padding))
    if isinstance(op, DepthwiseConv):
        return Shape(op.channels, *_window(shape, op.kernel, op.stride, op.kernel // 2))
    if isinstance(op, Deconv):
        return Shape(op.out_channels, shape.height * op.stride, shape.width * op.stride)
    if isinstance(op, Upsample):
        return Shape(shape.channels, shape.height * op.scale, shape.width * op.scale)
    if isinstance(op, Subsample):
        return Shape(op.out_channels, *_window(shape, 1, op.stride, 0))
    if isinstance(op, Slice):
        return Shape(op.stop - op.start, shape.height, shape.width)
    if isinstance(op, Pool):
        return Shape(shape.channels, *_window(shape, op.kernel, op.stride, op.padding))
    if isinstance(op, GlobalPool):
        return Shape(shape.channels, 1, 1)
    if isinstance(op, Linear):
        return Shape(op.out_features, 1, 1)
    if isinstance(op, Attention):
        return Shape(op.channels, shape.height, shape.width)
    return shape


def _window(shape: Shape, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    rest = 2 * padding - kernel
    return (shape.height + rest) // stride + 1, (shape.width + rest) // stride + 1


_WORDS: dict[type, str] = {
    Conv: "conv",
    DepthwiseConv: "conv",
    Deconv: "deconv",
    Upsample: "upsample",
    Subsample: "subsample",
    Slice: "slice",
    Norm: "norm",
    Act: "act",
    Pool: "pool",
    GlobalPool: "pool",
    Linear: "linear",
    Position: "position",
    Attention: "attention",
    Softmax: "softmax",
}


def op_names(chain: Chain) -> list[str]:
    """Return a name for each operation, numbered within its sort: the keys of a state dict.

    >>> op_names((Norm("batch", 4), Act("relu"), Conv(4, 8), Norm("batch", 8)))
    ['norm1', 'act1', 'conv1', 'norm2']
    """
    seen: Counter[str] = Counter()
    names = []
    for op in chain:
        word = _WORDS[type(op)]
        seen[word] += 1
        names.append(f"{word}{seen[word]}")
    return names
