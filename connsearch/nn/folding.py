"""Folding: what modules compute in evaluation, as functions of maps with constants made beforehand.

A batch norm is a x + b; it folds into the convolution or the weighted sum that it reads, and ReLU is done
in the same pass. Constants are made of a module's parameters once, not at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from connsearch import kernels
from connsearch.kernels.convolve.reference import Before
from connsearch.kernels.fakes import sum_dtype
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise, Weighted
from connsearch.nn.plain import is_plain

Run = Callable[..., Tensor]


class Affine(NamedTuple):
    """a x + b for each channel: scale C, shift C, float64."""

    scale: Tensor
    shift: Tensor


class Weighing(NamedTuple):
    """sum_i w_i h_i + b: weight L 1 (C or 1), bias C or None, float64."""

    weight: Tensor
    bias: Tensor | None

    def then(self, after: Affine) -> Weighing:
        """Return the sum followed by a x + b."""
        bias = after.shift if self.bias is None else after.scale * self.bias + after.shift
        return Weighing(self.weight * after.scale, bias)

    def before(self, act: str) -> Before:
        """Return the sum as a 1x1 convolution's kernel computes it, the bias not None."""
        assert self.bias is not None
        weight_LK = self.weight[:, 0].expand(-1, len(self.bias))
        return Before(weight_LK.float().contiguous(), self.bias.float(), act)

    @property
    def dead(self) -> frozenset[int]:
        """The sources whose weights are all 0; one is spared if all are."""
        rows = (self.weight == 0).flatten(1).all(dim=1).tolist()
        places = frozenset(place for place, zero in enumerate(rows) if zero)
        return places - {0} if len(places) == len(rows) else places

    def without(self, places: frozenset[int]) -> Weighing:
        """Return the sum of the other sources."""
        kept = [place for place in range(len(self.weight)) if place not in places]
        return Weighing(self.weight[kept], self.bias)


def is_constant(norm: nn.Module | None) -> bool:
    """Return whether a module is a batch norm that is a x + b now."""
    return is_plain(norm, nn.BatchNorm2d) and isinstance(norm, nn.BatchNorm2d) and _has_statistics(norm)


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    return not norm.training and norm.running_mean is not None


def affine(norm: nn.Module | None) -> Affine:
    """Return a and b of a batch norm in evaluation."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -scale * norm.running_mean.double()
    return Affine(scale, shift if norm.bias is None else shift + norm.bias.detach().double())


def weighing(module: nn.Module) -> Weighing | None:
    """Return the weights that an aggregation has of its own in evaluation, None if it has none."""
    if isinstance(module, Weighted):
        weight_L = module.weight.detach().double()
        return Weighing(
            (weight_L.sigmoid() if module.activation == "sigmoid" else weight_L)[:, None, None], None
        )
    if isinstance(module, Depthwise):
        return Weighing(module.weight.detach().double()[:, None], module.bias.detach().double())
    if isinstance(module, NormalizedDepthwise) and not module.training:
        scale_LC = module.weight.detach().double() * (module.running_var.double() + module.eps).rsqrt()
        bias_LC = module.bias.detach().double() - scale_LC * module.running_mean.double()
        return Weighing(scale_LC[:, None], bias_LC.sum(dim=0))
    return None


def sum_run(what: Weighing, act: str, dtype: torch.dtype) -> Run:
    """Return act(sum_i w_i h_i + b) as a function of the sources."""
    weight = what.weight.to(sum_dtype(dtype))
    bias = None if what.bias is None else what.bias.to(sum_dtype(dtype))
    if act == "none":
        return lambda *sources: kernels.weighted_sum(sources, weight, bias)
    return lambda *sources: kernels.weighted_sum(sources, weight, bias).relu_()


def gated_sum_run(
    slots: Sequence[tuple[int, int] | None], then: Affine | None, act: str, dtype: torch.dtype
) -> Run:
    """Return act(a sum_i g_i h_i + b) as a function of the sources and, after them, their gates.

    Args:
        slots: Per source, which operand holds its gate and in which column, or None for a gate of one.
        then: The a and b that follow, or None.
        act: The activation after that.
        dtype: Of the sources.
    """
    scale, shift = (t.to(sum_dtype(dtype)) for t in then) if then else (None, None)

    def run(*reads: Tensor) -> Tensor:
        one = reads[0].new_ones(len(reads[0]))
        gates = [one if slot is None else reads[slot[0]][:, slot[1]] for slot in slots]
        weight_LBC = torch.stack(gates)[:, :, None]
        if scale is not None:
            weight_LBC = weight_LBC * scale
        found = kernels.weighted_sum(reads[: len(slots)], weight_LBC, shift)
        return found.relu_() if act == "relu" else found

    return run


def norm_run(what: Affine, act: str, dtype: torch.dtype) -> Run:
    """Return act(a x + b) as a function of x."""
    scale, shift = (t.to(sum_dtype(dtype)) for t in what)
    return lambda x: kernels.norm_act(x, scale, shift, act)


def concat_run(what: Affine, act: str, dtype: torch.dtype) -> Run:
    """Return act(a [h_1, ..., h_N] + b) as a function of the sources."""
    scale, shift = (t.to(sum_dtype(dtype)) for t in what)
    return lambda *sources: kernels.concat_norm_act(sources, scale, shift, act)


def folded(conv: nn.Conv2d, then: Affine | None) -> tuple[Tensor, Tensor | None]:
    """Return weights and biases of a convolution that does a x + b too."""
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if then is None:
        return weight, bias
    wide = sum_dtype(weight.dtype)
    shift = then.shift if bias is None else then.shift + then.scale * bias.double()
    scaled = weight.to(wide) * then.scale.to(wide)[:, None, None, None]
    return scaled.to(weight.dtype), shift.to(weight.dtype)
