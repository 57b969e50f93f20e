"""What a compiled network calls for operations of several steps, with gradients.

Each function does what the modules it is given would do one after the other, in training, and reads their
parameters and updates their running statistics as they would. A norm that was put into evaluation on its
own is left to torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch import kernels
from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.shared import Shared, Weights, first_order, share

Sources = Sequence[Shared | Tensor]


def add_up(sources: Sequence[Tensor]) -> Tensor:
    """Return the sum of several maps."""
    total = sources[0] + sources[1]
    for h_BCHW in sources[2:]:
        total += h_BCHW
    return total


def layer(x: Tensor, norm: nn.BatchNorm2d, act: str, conv: nn.Conv2d | None = None) -> Tensor:
    """Return conv(act(norm(x))), or without a convolution act(norm(x))."""
    if conv is not None and not _fuses(conv):
        return conv(layer(x, norm, act))  # type: ignore[no-any-return]
    if not _computes_stats(norm):
        return _plain(norm(x), act, conv)
    return _norm_act_conv(x, _Norm(norm, act, x), conv)


def weighted_layer(
    sources: Sources,
    weights: Weights,
    norm: nn.BatchNorm2d | None = None,
    act: str = "none",
    conv: nn.Conv2d | None = None,
) -> Tensor:
    """Return conv(act(norm(x))) of x = sum_i w_i h_i + b, or as much of it as is given."""
    if conv is not None and not _fuses(conv):
        return conv(weighted_layer(sources, weights, norm, act))  # type: ignore[no-any-return]
    if weights.module is not None and not weights.module.training:
        plain = weights.module([_value(source) for source in sources])
        return plain if norm is None else layer(plain, norm, act, conv)
    shared = [_shared(source, weights) for source in sources]
    fused = _Norm(norm, act, shared[0].value) if norm is not None and _computes_stats(norm) else None
    if weights.normalized:
        _update_sources(weights.module, shared)
    values = [source.value for source in shared]
    x = _apply(_WeightedSum, shared, weights, fused, weights.tensor, weights.bias, *values)
    if norm is None:
        return x
    return _norm_act_conv(x, fused, conv) if fused is not None else _plain(norm(x), act, conv)


def concat_layer(sources: Sources, norm: nn.BatchNorm2d, act: str, conv: nn.Conv2d | None = None) -> Tensor:
    """Return conv(act(norm(x))) of the concatenation x of the sources, which is not made."""
    if conv is not None and not _fuses(conv):
        return conv(concat_layer(sources, norm, act))  # type: ignore[no-any-return]
    if not _computes_stats(norm):
        return _plain(norm(torch.cat([_value(source) for source in sources], dim=1)), act, conv)
    shared = [_shared(source) for source in sources]
    stats = [source.port.stats for source in shared]
    mean = torch.cat([s.mean for s in stats if s is not None])
    var = torch.cat([s.var for s in stats if s is not None])
    fused = _Norm(norm, act, shared[0].value)
    fused.update(mean, var)
    values = [source.value for source in shared]
    weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return _apply(
        _ConcatNormActConv,
        *(shared, fused, conv, mean, fused.rstd(var), fused.weight, fused.bias, weight, bias),
        *values,
    )


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    found: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return found


def _value(source: Shared | Tensor) -> Tensor:
    return source.value if isinstance(source, Shared) else source


def _shared(source: Shared | Tensor, weights: Weights | None = None) -> Shared:
    """Return a source with a port; with statistics, unless it is weighed as it is."""
    if isinstance(source, Shared):
        return source
    stats = weights is None or weights.normalized
    return share(source, [weights] if weights is not None else (), stats=stats)


def _computes_stats(norm: nn.BatchNorm2d) -> bool:
    """Return whether a norm is one whose statistics are those of the batch, kept as running averages."""
    return (
        _is_plain(norm, nn.BatchNorm2d)
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def _is_plain(module: nn.Module, sort: type[nn.Module]) -> bool:
    """Return whether a module is what it was built as: no subclass, nothing else in its place, no hooks."""
    return type(module) is sort and not module._forward_pre_hooks and not module._forward_hooks


def _fuses(conv: nn.Conv2d | None) -> bool:
    """Return whether a convolution may run inside a fused operation."""
    return conv is None or (_is_plain(conv, nn.Conv2d) and conv.padding_mode == "zeros")


def _plain(x: Tensor, act: str, conv: nn.Conv2d | None) -> Tensor:
    x = F.relu(x) if act == "relu" else x
    return x if conv is None else conv(x)


def _update_sources(module: nn.Module | None, sources: Sequence[Shared]) -> None:
    """Move the running statistics that a reader keeps of its sources."""
    assert isinstance(module, NormalizedDepthwise)
    stats = [source.port.stats for source in sources]
    mean = torch.stack([s.mean for s in stats if s is not None])
    var = torch.stack([s.var for s in stats if s is not None])
    _move(module, mean, var, _count(sources[0].value), module.momentum)


def _count(x: Tensor) -> int:
    """Return the number of values of each channel."""
    return x.numel() // x.shape[1]


class Move(NamedTuple):
    """Running statistics, and those of a batch that they are to move towards."""

    module: Any
    mean: Tensor
    var: Tensor
    n_values: int
    momentum: float


class _Moves(threading.local):
    """What a forward pass has put off: a few operations for all norms cost less than a few for each."""

    def __init__(self) -> None:
        self.pending: list[Move] | None = None


_moves = _Moves()


@contextmanager
def statistics_moved_at_the_end() -> Iterator[None]:
    """Move the running statistics of all norms that run inside together, after they have."""
    outer, _moves.pending = _moves.pending, []
    try:
        yield
        _move_all(_moves.pending)
    finally:
        _moves.pending = outer


def _move(module: Any, mean: Tensor, var: Tensor, count: int, momentum: float) -> None:
    """Move running statistics towards those of a batch, as torch does: the variance unbiased."""
    if count < 2:
        raise ValueError("Expected more than 1 value per channel when training")
    move = Move(module, mean, var, count, momentum)
    if _moves.pending is None:
        _move_all([move])
    else:
        _moves.pending.append(move)


def _move_all(moves: Sequence[Move]) -> None:
    groups: dict[tuple[float, torch.dtype, torch.device], list[Move]] = {}
    for move in moves:
        running = move.module.running_mean
        groups.setdefault((move.momentum, running.dtype, running.device), []).append(move)
    for (momentum, dtype, _), group in groups.items():
        torch._foreach_add_([move.module.num_batches_tracked for move in group], 1)
        unbiased = torch._foreach_mul(
            [_as(move.var, dtype) for move in group], [move.n_values / (move.n_values - 1) for move in group]
        )
        running = [m.module.running_mean for m in group] + [m.module.running_var for m in group]
        torch._foreach_lerp_(running, [*(_as(m.mean, dtype) for m in group), *unbiased], momentum)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of a type; asked so often that it looks first."""
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


class _Norm:
    """A batch norm in training with what follows it, for one forward pass.

    Attributes:
        ready: y, mean and variance, if they are computed already.
    """

    def __init__(self, norm: nn.BatchNorm2d, act: str, like: Tensor) -> None:
        self.module, self.act = norm, act
        self.count = _count(like)
        self.eps = norm.eps
        self.ready: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def bias(self) -> Tensor:
        return self.module.bias

    def rstd(self, var: Tensor) -> Tensor:
        return (var + self.eps).rsqrt()

    def update(self, mean: Tensor, var: Tensor) -> None:
        assert self.module.momentum is not None
        _move(self.module, mean, var, self.count, self.module.momentum)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, mean and variance."""
        ready, self.ready = self.ready, None
        return ready or kernels.norm_act_train(x, weight, bias, self.eps, self.act)


class _WeightedSum(torch.autograd.Function):
    """x = sum_i w_i h_i + b; with a norm given, what comes after it is computed in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        shared: Sequence[Shared],
        weights: Weights,
        norm: _Norm | None,
        weight_LBC: Tensor,
        bias: Tensor | None,
        *values: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.ports, ctx.weights = [source.port for source in shared], weights
        needs_values = weights.collected is None and weight_LBC.requires_grad
        saved = values if needs_values else ()
        ctx.save_for_backward(weight_LBC, *saved)
        if weights.normalized:
            weight_LBC, bias = _coefficients(weight_LBC, bias, shared, weights.eps)
        if norm is None:
            return kernels.weighted_sum(values, weight_LBC, bias)
        x, y, mean, var = kernels.weighted_sum_norm_act(
            values, weight_LBC, bias, norm.weight, norm.bias, norm.eps, norm.act
        )
        norm.ready = y, mean, var
        return x

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        weight_LBC, *values = ctx.saved_tensors
        nothing = [None] * (3 + len(ctx.ports))
        if grad is None:
            return None, None, *nothing
        for row, port in enumerate(ctx.ports):
            port.leave(grad, weight_LBC[row], ctx.weights, row)
        weight_grad = _gate_grads(grad, values, weight_LBC) if values else None
        own_bias = ctx.needs_input_grad[4] and not ctx.weights.normalized
        bias_grad = grad.sum(dim=(0, 2, 3)) if own_bias else None
        return None, None, None, weight_grad, bias_grad, *[None] * len(ctx.ports)


def _coefficients(
    weight_LBC: Tensor, bias_LC: Tensor | None, shared: Sequence[Shared], eps: float
) -> tuple[Tensor, Tensor]:
    """Return a and b of sum_i a_i h_i + b that is sum_i (w_i BN_i(h_i) + b_i)."""
    assert bias_LC is not None
    stats = [source.port.stats for source in shared]
    mean_LC = torch.stack([s.mean for s in stats if s is not None])
    rstd_LC = (torch.stack([s.var for s in stats if s is not None]) + eps).rsqrt()
    scale_LC = weight_LBC[:, 0].to(mean_LC.dtype) * rstd_LC
    return scale_LC[:, None], (bias_LC.to(mean_LC.dtype) - scale_LC * mean_LC).sum(dim=0)


def _gate_grads(grad: Tensor, values: Sequence[Tensor], weight_LBC: Tensor) -> Tensor:
    """Return sum(g h) over what each weight weighs: L (B or 1) 1."""
    products = torch.stack([_dot_by_image(grad, value) for value in values])
    if weight_LBC.shape[1] == 1:
        products = products.sum(dim=1, keepdim=True)
    return products[:, :, None].to(weight_LBC.dtype)


def _dot_by_image(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product B of each image's values."""
    return torch.bmm(a.reshape(len(a), 1, -1), b.reshape(len(b), -1, 1)).flatten()


def _norm_act_conv(x: Tensor, norm: _Norm, conv: nn.Conv2d | None) -> Tensor:
    weight, bias = (None, None) if conv is None else (conv.weight, conv.bias)
    return _apply(_NormActConv, norm, conv, x, norm.weight, norm.bias, weight, bias)


class _NormActConv(torch.autograd.Function):
    """conv(act(norm(x))); backward makes act(norm(x)) again instead of keeping it."""

    @staticmethod
    def forward(
        ctx: Any,
        norm: _Norm,
        conv: nn.Conv2d | None,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        y, mean, var = norm.apply(x, norm_weight, norm_bias)
        norm.update(mean, var)
        ctx.act, ctx.conv = norm.act, conv
        ctx.save_for_backward(x, mean, norm.rstd(var), norm_weight, norm_bias, weight)
        return y if conv is None else _convolved(y, conv, weight, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        weight_grad = bias_grad = None
        if ctx.conv is not None:
            scale = _as(norm_weight, rstd.dtype) * rstd
            y = kernels.norm_act(x, scale, _as(norm_bias, rstd.dtype) - mean * scale, ctx.act)
            grad, weight_grad, bias_grad = _conv_backward(
                grad, y, weight, ctx.conv, ctx.needs_input_grad[5:7]
            )
            del y
        grad_x, grad_w, grad_b = kernels.norm_act_backward(
            _as(grad, x.dtype), x, mean, rstd, norm_weight, norm_bias, ctx.act
        )
        return (
            None,
            None,
            grad_x,
            _as(grad_w, norm_weight.dtype),
            _as(grad_b, norm_bias.dtype),
            weight_grad,
            bias_grad,
        )


class _ConcatNormActConv(torch.autograd.Function):
    """conv(act(norm([h_1, ..., h_N]))); neither the concatenation nor what is made of it is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        shared: Sequence[Shared],
        norm: _Norm,
        conv: nn.Conv2d | None,
        mean: Tensor,
        rstd: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        *values: Tensor,
    ) -> Tensor:
        ctx.ports, ctx.act, ctx.conv = [source.port for source in shared], norm.act, conv
        ctx.save_for_backward(mean, rstd, norm_weight, norm_bias, weight, *values)
        y = _concat_norm_act(values, mean, rstd, norm_weight, norm_bias, norm.act)
        return y if conv is None else _convolved(y, conv, weight, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Any:
        mean, rstd, norm_weight, norm_bias, weight, *values = ctx.saved_tensors
        weight_grad = bias_grad = None
        if ctx.conv is not None:
            y = _concat_norm_act(values, mean, rstd, norm_weight, norm_bias, ctx.act)
            grad, weight_grad, bias_grad = _conv_backward(
                grad, y, weight, ctx.conv, ctx.needs_input_grad[7:9]
            )
            del y
        sinks = [port.accumulate(value) for port, value in zip(ctx.ports, values, strict=True)]
        dots, sums = kernels.concat_norm_act_backward(
            _as(grad, values[0].dtype), values, mean, rstd, norm_weight, norm_bias, ctx.act, sinks
        )
        sizes = [value.shape[1] for value in values]
        scale = _as(norm_weight, sums.dtype) * rstd
        through_mean = torch.split(scale * sums, sizes)
        through_deviation = torch.split(scale * rstd * dots, sizes)
        for port, s, d in zip(ctx.ports, through_mean, through_deviation, strict=True):
            port.through_stats(s, d)
        grads = (_as(dots, norm_weight.dtype), _as(sums, norm_bias.dtype), weight_grad, bias_grad)
        return None, None, None, None, None, *grads, *[None] * len(values)


def _concat_norm_act(
    values: Sequence[Tensor], mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, act: str
) -> Tensor:
    scale = _as(weight, rstd.dtype) * rstd
    return kernels.concat_norm_act(values, scale, _as(bias, rstd.dtype) - mean * scale, act)


def _convolved(x: Tensor, conv: nn.Conv2d, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    assert weight is not None
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: nn.Conv2d, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of a convolution's input, weight and bias; the last two only where wanted."""
    sizes = None if conv.bias is None else list(conv.bias.shape)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad,
        _as(x, grad.dtype),
        _as(weight, grad.dtype),
        sizes,
        conv.stride,
        conv.padding,
        conv.dilation,
        False,
        [0, 0],
        conv.groups,
        [True, *wanted],
    )
    if grad_weight is not None:
        grad_weight = _as(grad_weight, weight.dtype)
    if grad_bias is not None:
        grad_bias = _as(grad_bias, weight.dtype)
    return grad_x, grad_weight, grad_bias
