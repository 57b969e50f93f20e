"""Batch normalisation and activation, compiled for the CPU. The contract is in `reference.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from connsearch.kernels.maps import Job, act_code, form_of, new_map, vector


def batch_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean C and variance C. Reads the map once."""
    form = form_of(x)
    mean_C, var_C = (torch.empty(form.shape[1], dtype=form.sums) for _ in range(2))
    job = Job(form, 1)
    job.add("no outcome", None)
    job.add("the map", x)
    job.run("norm_act", "norm_act_train", None, None, 0.0, 0, mean_C, var_C)
    return mean_C, var_C


def norm_act(x: Tensor, scale_C: Tensor, shift_C: Tensor, act: str) -> Tensor:
    """Return act(scale x + shift), B C H W. Reads the map once."""
    form = form_of(x)
    C = form.shape[1]
    scale, shift = vector("the scale", scale_C, C, form), vector("the shift", shift_C, C, form)
    y = new_map(x, form)
    job = Job(form, 1)
    job.add_written("the outcome", y)
    job.add("the map", x)
    job.run("norm_act", "norm_act", scale, shift, act_code(act))
    return y


def norm_act_train(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y = act(BN(x)), B C H W, mean C and variance C of x. Reads the map once from memory."""
    form = form_of(x)
    C = form.shape[1]
    weight, bias = vector("the weight", weight_C, C, form), vector("the bias", bias_C, C, form)
    mean_C, var_C = (torch.empty(C, dtype=form.sums) for _ in range(2))
    y = new_map(x, form)
    job = Job(form, 1)
    job.add_written("the outcome", y)
    job.add("the map", x)
    job.run("norm_act", "norm_act_train", weight, bias, eps, act_code(act), mean_C, var_C)
    return y, mean_C, var_C


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B C H W, in its layout), weight C and bias C. Reads two maps."""
    form = form_of(x)
    C = form.shape[1]
    mean, rstd = vector("the mean", mean_C, C, form), vector("1 / deviation", rstd_C, C, form)
    weight, bias = vector("the weight", weight_C, C, form), vector("the bias", bias_C, C, form)
    grad_weight, grad_bias = (torch.empty(C, dtype=form.sums) for _ in range(2))
    grad_x = new_map(x, form)
    job = Job(form, 1)
    job.add_written("the outcome", grad_x)
    job.add("the gradient", grad_y)
    job.add("the map", x)
    job.run("norm_act", "norm_act_backward", mean, rstd, weight, bias, act_code(act), grad_weight, grad_bias)
    return grad_x, grad_weight, grad_bias
