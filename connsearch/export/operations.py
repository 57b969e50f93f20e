"""How each primitive operation is written in plain PyTorch: the module that it needs, the call in `forward`.

An operation has a *form*, which two layers of one class share, and *values* (channels, stride, groups) that
may differ between them and then become arguments of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from connsearch.errors import SpecError
from connsearch.export.layout import code
from connsearch.spec.ops import (
    Act,
    Attention,
    Conv,
    Deconv,
    DepthwiseConv,
    GlobalPool,
    Linear,
    Norm,
    Op,
    Pool,
    Position,
    Shape,
    Slice,
    Softmax,
    Subsample,
    Upsample,
)

WORDS = {"relu": "ReLU", "elu": "ELU", "silu": "SiLU", "gelu": "GELU", "leaky_relu": "leaky ReLU"}


class Value(NamedTuple):
    """A number of an operation.

    Attributes:
        role: What it is, such as `in_channels`.
        number: Its value.
    """

    role: str
    number: int


class Form(NamedTuple):
    """An operation without its numbers.

    Attributes:
        words: What it is, for people.
        module: From the expressions of its values to that of its module; None if it needs none.
        call: From the expressions of the module and of what it reads to that of what it gives out.
    """

    words: str
    module: Callable[[Sequence[str]], str] | None
    call: Callable[[str, str], str]


def as_convolution(op: Op) -> Op:
    """Return a depthwise convolution as one in groups, others as they are."""
    if isinstance(op, DepthwiseConv):
        return Conv(op.channels, op.channels, op.kernel, op.stride, groups=op.channels)
    return op


def values(op: Op) -> tuple[Value, ...]:
    """Return the numbers that may differ between layers of one class."""
    op = as_convolution(op)
    if isinstance(op, Conv):
        return (
            Value("in_channels", op.in_channels),
            Value("out_channels", op.out_channels),
            Value("stride", op.stride),
            Value("groups", op.groups),
        )
    if isinstance(op, Deconv):
        return (Value("in_channels", op.in_channels), Value("out_channels", op.out_channels))
    if isinstance(op, Norm):
        return (Value("channels", op.channels),)
    if isinstance(op, Linear):
        return (Value("in_features", op.in_features), Value("out_features", op.out_features))
    if isinstance(op, Position):
        return (Value("channels", op.channels), Value("height", op.height), Value("width", op.width))
    return ()


def signature(op: Op, shape: Shape) -> tuple[object, ...]:
    """Return what two operations must share to be written in one class, `shape` being what it reads."""
    op = as_convolution(op)
    if isinstance(op, Conv):
        return ("conv", op.kernel, op.bias, op.padding)
    if isinstance(op, Deconv):
        return ("deconv", op.kernel, op.stride, op.bias)
    if isinstance(op, Norm):
        return ("norm", op.kind)
    if isinstance(op, Slice):
        return ("slice", _bounds(op, shape))
    if isinstance(op, Subsample):
        return ("subsample", op.stride, op.out_channels - op.in_channels)
    if isinstance(op, Linear | Position):
        return (op.op,)
    return tuple(op)


def form(op: Op, shape: Shape, *, flat: bool = False) -> Form:
    """Return how an operation is written.

    Args:
        op: The operation.
        shape: The shape that it reads.
        flat: Whether what it reads is B F already.

    Raises:
        SpecError: if there is no way to write it.
    """
    op = as_convolution(op)
    if isinstance(op, Conv):
        padding = op.kernel // 2 if op.padding is None else op.padding
        words = f"{op.kernel}x{op.kernel} convolution"
        return Form(words, lambda v: _conv(v, op.kernel, padding, op.bias), _call)
    if isinstance(op, Deconv):
        return Form(f"transposed {op.kernel}x{op.kernel} convolution", lambda v: _deconv(v, op), _call)
    if isinstance(op, Norm):
        return _norm(op)
    if isinstance(op, Act):
        return Form(WORDS.get(op.kind, op.kind.capitalize()), None, lambda _, x: f"F.{op.kind}({x})")
    if isinstance(op, Pool):
        words = "maximum" if op.kind == "max" else "average"
        return Form(f"{op.kernel}x{op.kernel} {words}", None, lambda _, x: _pool(op, x))
    if isinstance(op, GlobalPool):
        return Form("mean over all pixels", None, lambda _, x: f"{bracketed(x)}.mean(dim=(2, 3))")
    if isinstance(op, Linear):
        call = _call if flat else lambda m, x: f"{m}({bracketed(x)}.flatten(1))"
        return Form("linear", lambda v: f"nn.Linear({', '.join(v)})", call)
    return _rarer(op, shape)


def _rarer(op: Op, shape: Shape) -> Form:
    if isinstance(op, Slice):
        bounds = _bounds(op, shape)
        return Form("some channels", None, lambda _, x: f"{bracketed(x)}[:, {bounds}]")
    if isinstance(op, Subsample):
        added = op.out_channels - op.in_channels
        s, before, behind = op.stride, added // 2, added - added // 2
        cut = f"[:, :, ::{s}, ::{s}]" if s > 1 else ""
        return Form(
            "subsample, channels of zeros",
            None,
            lambda _, x: f"F.pad({bracketed(x)}{cut}, (0, 0, 0, 0, {before}, {behind}))",
        )
    if isinstance(op, Upsample):
        how = f'scale_factor={op.scale}, mode="{op.kind}"'
        return Form(f"{op.kind} x{op.scale}", None, lambda _, x: f"F.interpolate({x}, {how})")
    if isinstance(op, Position):
        return Form("learned positions", lambda v: f"Position({', '.join(v)})", _call)
    if isinstance(op, Attention):
        return Form("attention", None, lambda _, x: f"attention({x}, heads={op.heads})")
    if isinstance(op, Softmax):
        return Form("softmax", None, lambda _, x: f"{bracketed(x)}.softmax(dim=1)")
    raise SpecError(f"the operation {op} cannot be written as Python: export it as torch or onnx")


def bracketed(x: str) -> str:
    """Return an expression as a method of it can be called.

    >>> bracketed("a + b"), bracketed("sum(h)"), bracketed("(a) + (b)")
    ('(a + b)', 'sum(h)', '((a) + (b))')
    """
    depth = 0
    for _, letter in code(x):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and letter == " ":
            return f"({x})"
    return x


def _call(module: str, x: str) -> str:
    return f"{module}({x})"


def _conv(v: Sequence[str], kernel: int, padding: int, bias: bool) -> str:
    inside, outside, stride, groups = v
    words = [inside, outside, str(kernel)]
    words += [] if stride == "1" else [f"stride={stride}"]
    words += [f"padding={padding}"] if padding else []
    words += [] if groups == "1" else [f"groups={groups}"]
    return f"nn.Conv2d({', '.join(words + ([] if bias else ['bias=False']))})"


def _deconv(v: Sequence[str], op: Deconv) -> str:
    padding = op.kernel // 2
    rest = op.stride + 2 * padding - op.kernel
    words = [*v, str(op.kernel), f"stride={op.stride}"]
    words += [f"padding={padding}"] if padding else []
    words += [f"output_padding={rest}"] if rest else []
    return f"nn.ConvTranspose2d({', '.join(words + ([] if op.bias else ['bias=False']))})"


def _norm(op: Norm) -> Form:
    if op.kind == "batch":
        return Form("batch norm", lambda v: f"nn.BatchNorm2d({v[0]})", _call)
    if op.kind == "channel":
        return Form("channel norm", lambda v: f"ChannelNorm({v[0]})", _call)
    if op.kind == "layer":
        return Form("layer norm", lambda v: f"nn.GroupNorm(1, {v[0]})", _call)
    return Form("instance norm", lambda v: f"nn.GroupNorm({v[0]}, {v[0]})", _call)


def _pool(op: Pool, x: str) -> str:
    words = [x, str(op.kernel)]
    words += [f"stride={op.stride}"] if op.stride != op.kernel else []
    words += [f"padding={op.padding}"] if op.padding else []
    return f"F.{op.kind}_pool2d({', '.join(words)})"


def _bounds(op: Slice, shape: Shape) -> str:
    """Return start and stop, counted from the end where they reach it."""
    if op.stop == shape.channels:
        return f"{op.start - op.stop}:" if op.start else ":"
    return f":{op.stop - shape.channels}" if not op.start else f"{op.start}:{op.stop}"
