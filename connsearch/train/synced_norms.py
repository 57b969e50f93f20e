"""Batch normalisation over the images of all processes, on every device.

torch's `SyncBatchNorm` needs a GPU. Here a model's own batch norms get another forward pass for a while:
parameters, statistics, names and order stay, and other code that asks for the exact class of a norm, to do
its work in a faster way, finds that it must not.

Shapes: B images of this process, C channels, * any, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name
from torch.nn.modules.batchnorm import _BatchNorm

from connsearch.errors import TrainError
from connsearch.nn.aggregations import NormalizedDepthwise


class Statistics(NamedTuple):
    """Of the values of each channel in all processes.

    Attributes:
        mean: C.
        var: C, biased.
        n_values: Of each channel, 1.
    """

    mean: Tensor
    var: Tensor
    n_values: Tensor

    def move(self, running_mean: Tensor, running_var: Tensor, momentum: float | Tensor) -> None:
        """Move running statistics towards these, as torch does: the variance unbiased."""
        unbiased = self.var * (self.n_values / (self.n_values - 1))
        running_mean.lerp_(self.mean.to(running_mean.dtype), momentum)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Statistics]:
    """Return weight (x - mean) / sqrt(var + eps) + bias with the statistics of all processes, B C *."""
    y, *found = _Normalise.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]  # torch has no types
    return y, Statistics(*found)


class _Normalise(torch.autograd.Function):
    """Each process's gradient is of the sum of all processes' losses, for x; of its own loss for the rest.

    Gradients of weight and bias are added up with those of all parameters.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        mean, var, count = _statistics(x)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        """g_x = w / s (g - mean(g) - n mean(g n)) with n = (x - m) / s and the means of all processes."""
        x, weight, mean, var, count = ctx.saved_tensors
        rstd = (var + ctx.eps).rsqrt()
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, mean, rstd, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([grad_weight, grad_bias]).to(mean.dtype)
        dist.all_reduce(sums)
        scale = rstd if weight is None else rstd * weight
        slope = -scale * rstd * sums[0] / count
        offset = -scale * sums[1] / count - slope * mean
        shape = (1, -1, *[1] * (x.ndim - 2))
        grad_x += (x * slope.view(shape) + offset.view(shape)).to(grad_x.dtype)
        if weight is None:
            return grad_x, None, None, None
        return grad_x, grad_weight, grad_bias, None


def _statistics(x: Tensor) -> Statistics:
    """Merge the statistics of all processes: exact sums of squares about the means, whatever their counts."""
    values = x if x.dtype == torch.float64 else x.float()
    var_C, mean_C = torch.var_mean(values, [d for d in range(x.ndim) if d != 1], correction=0)
    count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
    own = torch.cat([mean_C.double(), var_C.double(), count])
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    mean_WC, var_WC, count_W1 = torch.split(torch.stack(everyone), [len(mean_C), len(mean_C), 1], dim=1)
    share_W1 = count_W1 / count_W1.sum()
    mean = (share_W1 * mean_WC).sum(0)
    var = (share_W1 * (var_WC + (mean_WC - mean).square())).sum(0)
    return Statistics(*(found.to(values.dtype) for found in (mean, var, count_W1.sum(0))))


class _Norm(_BatchNorm):
    """A batch norm with the statistics of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch has no types there
        y, found = normalised(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = 1 / self.num_batches_tracked.double() if self.momentum is None else self.momentum
            found.move(self.running_mean, self.running_var, momentum)
        return y


class _Norm1d(_Norm, nn.BatchNorm1d):
    pass


class _Norm2d(_Norm, nn.BatchNorm2d):
    pass


class _Norm3d(_Norm, nn.BatchNorm3d):
    pass


class _Depthwise(NormalizedDepthwise):
    """A depthwise aggregation whose sources are normalised with the statistics of all processes."""

    def _normalized(self, i: int, h_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super()._normalized(i, h_BCHW)
        y, found = normalised(h_BCHW, self.weight[i], self.bias[i], self.eps)
        found.move(self.running_mean[i], self.running_var[i], self.momentum)
        return y


SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Norm1d,
    nn.BatchNorm2d: _Norm2d,
    nn.BatchNorm3d: _Norm3d,
    NormalizedDepthwise: _Depthwise,
}
"""What each module with batch statistics becomes."""


def has_batch_statistics(model: nn.Module) -> bool:
    """Return whether a model normalises with the statistics of each batch."""
    return any(isinstance(module, _BatchNorm | NormalizedDepthwise) for module in model.modules())


@contextmanager
def synced_norms(model: nn.Module) -> Iterator[None]:
    """Have a model's batch norms use the statistics of all processes; at the end they are what they were.

    Raises:
        TrainError: if one of them is of another class than those in `SYNCED`, which may do anything.
    """
    own = [(m, type(m)) for m in model.modules() if isinstance(m, _BatchNorm | NormalizedDepthwise)]
    for _, kind in own:
        if kind not in SYNCED and kind is not nn.SyncBatchNorm:  # which does it by itself, on GPUs
            known = ", ".join(sorted(known.__name__ for known in SYNCED))
            raise TrainError(f"sync_norms knows {known}, not {kind.__qualname__}: set sync_norms = false")
    try:
        for module, kind in own:
            module.__class__ = SYNCED.get(kind, kind)  # type: ignore[assignment]  # of the same kind
        yield
    finally:
        for module, kind in own:
            module.__class__ = kind
