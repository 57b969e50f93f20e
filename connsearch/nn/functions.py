"""Fused operations as functions of autograd: what they keep, and what they leave to the ports of sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch import kernels
from connsearch.kernels.fakes import sum_dtype
from connsearch.kernels.sums_ahead import finish_sum, finish_sum_norm_act
from connsearch.nn.ahead import begun_for
from connsearch.nn.shared import Port, Shared, Weights, first_order
from connsearch.nn.statistics import as_dtype, count_of, move


class NormState:
    """A batch norm in training with what follows it, for one forward pass.

    Attributes:
        ready: y, mean and variance, if they are computed already.
    """

    def __init__(self, norm: nn.BatchNorm2d, act: str, like: Tensor) -> None:
        self.module, self.act = norm, act
        self.count = count_of(like)
        self.eps = norm.eps
        self.ready: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """C."""
        return self.module.weight

    @property
    def bias(self) -> Tensor:
        """C."""
        return self.module.bias

    def rstd(self, var: Tensor) -> Tensor:
        """Return 1 / sqrt(var + eps), C."""
        return (var + self.eps).rsqrt_()

    def update(self, mean: Tensor, var: Tensor) -> None:
        """Move the norm's running statistics."""
        assert self.module.momentum is not None
        move(self.module, mean, var, self.count, self.module.momentum)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, mean and variance."""
        ready, self.ready = self.ready, None
        return ready or kernels.norm_act_train(x, weight, bias, self.eps, self.act)


class WeightedSum(torch.autograd.Function):
    """x = sum_i w_i h_i + b; with a norm given, what comes after it is computed in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        shared: Sequence[Shared],
        weights: Weights,
        norm: NormState | None,
        weight_LBC: Tensor,
        bias: Tensor | None,
        *values: Tensor,
    ) -> Tensor:
        """Return x, B C H W."""
        ctx.set_materialize_grads(False)
        ctx.ports, ctx.weights = [source.port for source in shared], weights
        needs_values = weights.collected is None and weight_LBC.requires_grad
        saved = values if needs_values else ()
        ctx.save_for_backward(weight_LBC, *saved)
        if weights.normalized:
            weight_LBC, bias = _coefficients(weight_LBC, bias, shared, weights.eps)
        begun = begun_for(weights, shared) if weights.collected is not None else None
        if begun is not None:
            n, C = len(begun.keys), values[0].shape[1]
            rest = begun.total, values[n:], weight_LBC[n:, 0].expand(-1, C), bias
            if norm is None:
                finish_sum(*rest)
            else:
                norm.ready = finish_sum_norm_act(*rest, norm.weight, norm.bias, norm.eps, norm.act)
            return begun.total
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
        """Return gradients where they are not left at ports."""
        weight_LBC, *values = ctx.saved_tensors
        nothing = [None] * (3 + len(ctx.ports))
        if grad is None:
            return None, None, *nothing
        for row, (port, weight) in enumerate(zip(ctx.ports, weight_LBC.unbind(), strict=True)):
            port.leave(grad, weight, ctx.weights, row)
        weight_grad = _gate_grads(grad, values, weight_LBC) if values else None
        own_bias = ctx.needs_input_grad[4] and not ctx.weights.normalized
        bias_grad = _sum_by_channel(grad) if own_bias else None
        return None, None, None, weight_grad, bias_grad, *[None] * len(ctx.ports)


def _coefficients(
    weight_LBC: Tensor, bias_LC: Tensor | None, shared: Sequence[Shared], eps: float
) -> tuple[Tensor, Tensor]:
    """Return a and b of sum_i a_i h_i + b that is sum_i (w_i BN_i(h_i) + b_i)."""
    assert bias_LC is not None
    stats = [source.port.stats for source in shared]
    mean_LC = torch.stack([s.mean for s in stats if s is not None])
    rstd_LC = torch.stack([s.rstd(eps) for s in stats if s is not None])
    scale_LC = as_dtype(weight_LBC[:, 0], mean_LC.dtype) * rstd_LC
    shift_LC = torch.addcmul(as_dtype(bias_LC, mean_LC.dtype), scale_LC, mean_LC, value=-1)
    return scale_LC[:, None], shift_LC.sum(dim=0)


def _sum_by_channel(grad: Tensor) -> Tensor:
    """Return the sum C over images and pixels; on a CPU over each plane first, which is twice as fast."""
    if not (grad.is_cpu and grad.is_contiguous()):
        return grad.sum(dim=(0, 2, 3))
    return grad.sum(dim=(2, 3), dtype=sum_dtype(grad.dtype)).sum(dim=0).to(grad.dtype)


def _gate_grads(grad: Tensor, values: Sequence[Tensor], weight_LBC: Tensor) -> Tensor:
    """Return sum(g h) over the image that each gate weighs: L B 1."""
    products = torch.stack([_dot_by_image(grad, value) for value in values])
    return products[:, :, None].to(weight_LBC.dtype)


def _dot_by_image(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product B of each image's values."""
    return torch.bmm(a.reshape(len(a), 1, -1), b.reshape(len(b), -1, 1)).flatten()


class NormActConv(torch.autograd.Function):
    """conv(act(norm(x))); backward makes act(norm(x)) again instead of keeping it."""

    @staticmethod
    def forward(
        ctx: Any,
        norm: NormState,
        conv: nn.Conv2d | None,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """Return what the last step gives out, B D H W."""
        y, mean, var = norm.apply(x, norm_weight, norm_bias)
        norm.update(mean, var)
        ctx.act, ctx.conv = norm.act, conv
        ctx.save_for_backward(x, mean, norm.rstd(var), norm_weight, norm_bias, weight)
        return y if conv is None else _convolved(y, conv, weight, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return gradients where they are not left at ports."""
        x, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        weight_grad = bias_grad = None
        if ctx.conv is not None:
            y = kernels.norm_act(x, *_affine(mean, rstd, norm_weight, norm_bias), ctx.act)
            grad, weight_grad, bias_grad = _conv_backward(
                grad, y, weight, ctx.conv, ctx.needs_input_grad[5:7]
            )
            del y
        grad_x, grad_w, grad_b = kernels.norm_act_backward(
            as_dtype(grad, x.dtype), x, mean, rstd, norm_weight, norm_bias, ctx.act
        )
        return (
            None,
            None,
            grad_x,
            as_dtype(grad_w, norm_weight.dtype),
            as_dtype(grad_b, norm_bias.dtype),
            weight_grad,
            bias_grad,
        )


class ConcatNormActConv(torch.autograd.Function):
    """conv(act(norm([h_1, ..., h_N]))); neither the concatenation nor what is made of it is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        shared: Sequence[Shared],
        norm: NormState,
        conv: nn.Conv2d | None,
        mean: Tensor,
        rstd: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        *values: Tensor,
    ) -> Tensor:
        """Return what the last step gives out, B D H W."""
        ctx.ports, ctx.act, ctx.conv = [source.port for source in shared], norm.act, conv
        ctx.in_products = _in_products(conv, values[0])
        ctx.save_for_backward(mean, rstd, norm_weight, norm_bias, weight, *values)
        affine = _affine(mean, rstd, norm_weight, norm_bias)
        if ctx.in_products:
            assert weight is not None
            return kernels.norm_act_conv(values, *affine, norm.act, weight[:, :, 0, 0])
        y = kernels.concat_norm_act(values, *affine, norm.act)
        return y if conv is None else _convolved(y, conv, weight, bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return gradients where they are not left at ports."""
        mean, rstd, norm_weight, norm_bias, weight, *values = ctx.saved_tensors
        params = (mean, rstd, norm_weight, norm_bias)
        weight_grad = bias_grad = None
        if ctx.in_products:
            sinks = _sinks(ctx.ports, values)
            dots, sums, weight_grad = kernels.norm_act_conv_backward(
                grad, values, *params, ctx.act, weight[:, :, 0, 0], sinks
            )
            weight_grad = as_dtype(weight_grad, weight.dtype)[:, :, None, None]
        else:
            if ctx.conv is not None:
                y = kernels.concat_norm_act(values, *_affine(*params), ctx.act)
                grad, weight_grad, bias_grad = _conv_backward(
                    grad, y, weight, ctx.conv, ctx.needs_input_grad[7:9]
                )
                del y
            sinks = _sinks(ctx.ports, values)
            dots, sums = kernels.concat_norm_act_backward(
                as_dtype(grad, values[0].dtype), values, *params, ctx.act, sinks
            )
        _add_up(ctx.ports, sinks)
        sizes = [value.shape[1] for value in values]
        scale = as_dtype(norm_weight, sums.dtype) * rstd
        through_mean = torch.split(scale * sums, sizes)
        through_deviation = torch.split(scale * rstd * dots, sizes)
        for port, s, d in zip(ctx.ports, through_mean, through_deviation, strict=True):
            port.through_stats(s, d)
        grads = (as_dtype(dots, norm_weight.dtype), as_dtype(sums, norm_bias.dtype), weight_grad, bias_grad)
        return None, None, None, None, None, *grads, *[None] * len(values)


def _in_products(conv: nn.Conv2d | None, like: Tensor) -> bool:
    """Return whether one kernel normalises, activates and multiplies: K channels between are never written.

    On a GPU, of a 1x1 convolution without a bias, in the type of the maps. Not on a CPU: there torch's
    convolution of what a kernel has written was measured to be faster than products that make their operand.
    """
    if conv is None or kernels.choose(like.device, like.dtype).backend != "triton":
        return False
    kind = like.device.type
    computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else conv.weight.dtype
    pointwise = conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
    return pointwise and conv.bias is None and computed == like.dtype


def _sinks(ports: Sequence[Port], values: Sequence[Tensor]) -> list[Tensor]:
    """Return where kernels add the gradient of each source: no map twice, as they add to all at once."""
    first = {port: i for i, port in reversed([*enumerate(ports)])}
    pairs = enumerate(zip(ports, values, strict=True))
    return [
        port.accumulate(value) if first[port] == i else torch.zeros_like(value) for i, (port, value) in pairs
    ]


def _add_up(ports: Sequence[Port], sinks: Sequence[Tensor]) -> None:
    """Add what a source got that was read twice to the map of its port."""
    for port, sink in zip(ports, sinks, strict=True):
        if port.sink is not sink:
            port.accumulate(sink).add_(sink)


def _affine(mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a norm, K: what it does to its input."""
    scale = as_dtype(weight, rstd.dtype) * rstd
    return scale, torch.addcmul(as_dtype(bias, rstd.dtype), mean, scale, value=-1)


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
        as_dtype(x, grad.dtype),
        as_dtype(weight, grad.dtype),
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
        grad_weight = as_dtype(grad_weight, weight.dtype)
    if grad_bias is not None:
        grad_bias = as_dtype(grad_bias, weight.dtype)
    return grad_x, grad_weight, grad_bias
