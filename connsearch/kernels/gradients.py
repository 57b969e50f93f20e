"""Gradients of kernels that are called as operators, each by kernels again. There are no second derivatives.

A network does without them: its fused operations gather gradients of all readers of a source at once
(`connsearch.nn.shared`), while an operator knows one reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from connsearch.kernels.concat_norm_act import concat_norm_act_backward
from connsearch.kernels.fakes import sum_dtype
from connsearch.kernels.norm_act import norm_act, norm_act_backward
from connsearch.kernels.norm_act_conv import norm_act_conv_backward
from connsearch.kernels.operators import OPERATORS
from connsearch.kernels.weighted_sum import pull


def _gradient(name: str, backward: Any, keep: Any, outputs_kept: Sequence[int] = ()) -> None:
    """Register the gradients of an operator.

    Args:
        name: The operator's.
        backward: Takes what autograd keeps and gradients of outcomes; returns one for each argument.
        keep: Returns, of arguments and outcomes, the tensors to keep and other values.
        outputs_kept: Outcomes that have no gradients: statistics.
    """

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        tensors, ctx.values = keep(inputs, output)
        ctx.save_for_backward(*tensors)
        if outputs_kept:
            ctx.mark_non_differentiable(*(output[i] for i in outputs_kept))

    OPERATORS[name].definition.register_autograd(backward, setup_context=setup)


def _through_sum(
    grad: Tensor, sources: Sequence[Tensor], weight_LBC: Tensor, bias_C: Tensor | None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Return the gradients of sum_i w_i h_i + b."""
    pulled = [pull([grad], w_BC[None], h) for w_BC, h in zip(weight_LBC, sources, strict=True)]
    weight_grad = torch.cat([dots for _, dots in pulled]).to(weight_LBC.dtype)
    bias_grad = None if bias_C is None else grad.sum(dim=(0, 2, 3), dtype=weight_grad.dtype).to(bias_C.dtype)
    return [grad_h for grad_h, _ in pulled], weight_grad, bias_grad


def _weighted_sum(ctx: Any, grad: Tensor) -> Any:
    weight_LBC, bias_C, *sources = ctx.saved_tensors
    return _through_sum(grad, sources, weight_LBC, bias_C)


_gradient(
    "weighted_sum",
    _weighted_sum,
    lambda inputs, _: ((inputs[1], inputs[2], *inputs[0]), None),
)


def _weighted_sum_norm_act(ctx: Any, grad_x: Tensor, grad_y: Tensor, *_: Any) -> Any:
    x, mean, var, norm_weight, norm_bias, weight_LBC, bias_C, *sources = ctx.saved_tensors
    eps, act = ctx.values
    rstd = (var + eps).rsqrt()
    through, norm_weight_grad, norm_bias_grad = norm_act_backward(
        grad_y, x, mean, rstd, norm_weight, norm_bias, act
    )
    of_norm = norm_weight_grad.to(norm_weight.dtype), norm_bias_grad.to(norm_bias.dtype)
    return *_through_sum(through + grad_x, sources, weight_LBC, bias_C), *of_norm, None, None


_gradient(
    "weighted_sum_norm_act",
    _weighted_sum_norm_act,
    lambda i, found: ((found[0], found[2], found[3], i[3], i[4], i[1], i[2], *i[0]), i[5:7]),
    outputs_kept=(2, 3),
)


def _batch_stats(ctx: Any, grad_mean_C: Tensor, grad_var_C: Tensor) -> Any:
    x, mean_C = ctx.saved_tensors
    count = x.numel() // x.shape[1]
    slope_C = 2 * grad_var_C / count
    return norm_act(x, slope_C, grad_mean_C / count - slope_C * mean_C, "none")


_gradient("batch_stats", _batch_stats, lambda inputs, found: ((inputs[0], found[0]), None))


def _norm_act_train(ctx: Any, grad_y: Tensor, *_: Any) -> Any:
    x, weight, bias, mean, var = ctx.saved_tensors
    eps, act = ctx.values
    found = norm_act_backward(grad_y, x, mean, (var + eps).rsqrt(), weight, bias, act)
    return found[0], found[1].to(weight.dtype), found[2].to(bias.dtype), None, None


_gradient(
    "norm_act_train",
    _norm_act_train,
    lambda inputs, found: ((*inputs[:3], *found[1:]), inputs[3:5]),
    outputs_kept=(1, 2),
)


def _unit(scale_K: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean 0 and deviation 1, with which a scale and a shift are a norm's weight and bias."""
    one = torch.ones(scale_K.shape, dtype=sum_dtype(like.dtype), device=like.device)
    return torch.zeros_like(one), one


def _concat_norm_act(ctx: Any, grad_y: Tensor) -> Any:
    scale, shift, *sources = ctx.saved_tensors
    sinks = [torch.zeros_like(h) for h in sources]
    dots, sums = concat_norm_act_backward(
        grad_y, sources, *_unit(scale, grad_y), scale, shift, ctx.values, sinks
    )
    return sinks, dots.to(scale.dtype), sums.to(shift.dtype), None


def _norm_act(ctx: Any, grad_y: Tensor) -> Any:
    sinks, *others = _concat_norm_act(ctx, grad_y)
    return sinks[0], *others


_gradient("concat_norm_act", _concat_norm_act, lambda i, _: ((i[1], i[2], *i[0]), i[3]))
_gradient("norm_act", _norm_act, lambda i, _: ((i[1], i[2], i[0]), i[3]))


def _norm_act_conv(ctx: Any, grad_y: Tensor) -> Any:
    scale, shift, weight, *sources = ctx.saved_tensors
    sinks = [torch.zeros_like(h) for h in sources]
    dots, sums, weight_grad = norm_act_conv_backward(
        grad_y, sources, *_unit(scale, grad_y), scale, shift, ctx.values, weight, sinks
    )
    return sinks, dots.to(scale.dtype), sums.to(shift.dtype), None, weight_grad.to(weight.dtype)


_gradient("norm_act_conv", _norm_act_conv, lambda i, _: ((i[1], i[2], i[4], *i[0]), i[3]))
