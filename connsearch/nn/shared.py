"""Values that several fused readers share: statistics computed once, gradients gathered once.

In the forward pass a source becomes a `Shared` value. In the backward pass each fused reader leaves its own
gradient at the port of each source and returns none; autograd runs the source's `_Gather` when all readers
have, and that makes the source's gradient of what they left, in one pass. Gradients of weights that readers
give their sources fall out of the same pass; `_Collect` waits for the ports of all sources and returns them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from connsearch import kernels
from connsearch.errors import KernelError
from connsearch.kernels.fakes import sum_dtype
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise, Weighted
from connsearch.nn.per_pass import PerPass
from connsearch.nn.statistics import as_dtype


class Statistics:
    """Mean C and variance C of a map's channels over a batch."""

    def __init__(self, mean: Tensor, var: Tensor) -> None:
        self.mean, self.var = mean, var
        self._rstd: dict[float, Tensor] = {}

    def rstd(self, eps: float) -> Tensor:
        """Return 1 / sqrt(var + eps), C, the same tensor for all who ask."""
        found = self._rstd.get(eps)
        if found is None:
            found = self._rstd[eps] = (self.var + eps).rsqrt_()
        return found


class _Rows:
    """Gradients of a reader's weights and biases, by source."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}
        self.biases: dict[int, Tensor] = {}


class _Collected:
    """Gradients of one reader's weights, source by source, as the ports of the sources leave them.

    It holds no tensor of the forward pass: autograd's graph holds it, and must not be held by it in turn.
    """

    def __init__(self) -> None:
        self._left = PerPass(_Rows)

    def leave(self, row: int, grad: Tensor, bias_grad: Tensor | None = None) -> None:
        """Keep the gradient of the weight (and bias) of one source."""
        rows = self._left.now()
        rows.weights[row] = grad
        if bias_grad is not None:
            rows.biases[row] = bias_grad

    def take(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of weights and, where left, biases; zero for sources that left nothing."""
        rows = self._left.take()
        return _stacked(rows.weights, like), _stacked(rows.biases, like[:, 0]) if rows.biases else None


def _stacked(rows: dict[int, Tensor], like: Tensor) -> Tensor:
    if len(rows) < len(like):
        zero = torch.zeros_like(next(iter(rows.values())) if rows else like[0])
        rows = {row: rows.get(row, zero) for row in range(len(like))}
    return as_dtype(torch.stack([rows[row] for row in range(len(like))]).view_as(like), like.dtype)


class Begun(NamedTuple):
    """A part of a weighted sum: B C H W, and the keys of the sources in it."""

    total: Tensor
    keys: Sequence[object]


class Weights:
    """The weights that one reader gives its sources, and where their gradients are collected.

    Attributes:
        module: The aggregation that owns them; None for weights that are constants or gates.
        tensor: L (B or 1) (C or 1).
        bias: C, L C if each source has one, or None.
        eps: Of the variance, where each source is normalised before it is weighed; else 0.
        collected: Where the ports of the sources leave gradients of `tensor`; None if they do not.
        made: The keys of those of its sources that are made already, in the order in which they were.
        begun: The sum of its first sources, if that was made ahead.
    """

    def __init__(
        self,
        tensor: Tensor,
        bias: Tensor | None,
        module: nn.Module | None,
        collected: _Collected | None = None,
    ) -> None:
        self.tensor, self.bias, self.module, self.collected = tensor, bias, module, collected
        self.eps = module.eps if isinstance(module, NormalizedDepthwise) else 0.0
        self.made: list[object] = []
        self.begun: Begun | None = None

    @property
    def normalized(self) -> bool:
        """Whether each source is normalised before it is weighed."""
        return isinstance(self.module, NormalizedDepthwise)


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to be differentiated once more: gradients left at ports have no gradients themselves."""

    @wraps(backward)
    def run(*args: Any) -> Any:
        if torch.is_grad_enabled():
            raise KernelError(
                "fused operations have no second derivatives: build the network with pipeline='none'"
            )
        return backward(*args)

    return run


class _Collect(torch.autograd.Function):
    """The identity of weights; its backward returns what the ports of all sources have left."""

    @staticmethod
    def forward(ctx: Any, collected: _Collected, tensor: Tensor, bias: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        ctx.collected = collected
        ctx.save_for_backward(tensor)
        return tensor.view_as(tensor), None if bias is None else bias.view_as(bias)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor | None, bias_grad: Tensor | None) -> Any:
        (tensor,) = ctx.saved_tensors
        collected, biases = ctx.collected.take(tensor)
        return None, collected, biases if biases is not None else bias_grad


def weights_of(module: nn.Module) -> Weights:
    """Return the weights of a depthwise or weighted aggregation, to be given to its sources' `share` too."""
    bias = None
    if isinstance(module, Weighted):
        weight_L = module.weight.sigmoid() if module.activation == "sigmoid" else module.weight
        tensor = weight_L[:, None, None]
    else:
        assert isinstance(module, Depthwise | NormalizedDepthwise)
        tensor, bias = module.weight[:, None, :], module.bias
    collected = _Collected()
    tensor, bias = _Collect.apply(collected, tensor, bias)  # type: ignore[no-untyped-call]  # torch has no types
    return Weights(tensor, bias, module, collected)


def constant_weights(n: int, value: float, like: Tensor) -> Weights:
    """Return the same weight for each of n sources, in the type that sums are computed in."""
    weight_L11 = torch.full((n, 1, 1), value, dtype=sum_dtype(like.dtype), device=like.device)
    return Weights(weight_L11, None, None)


def gate_weights(gates: Sequence[Tensor | None], like: Tensor) -> Weights:
    """Return gates as weights, a column B for each source; None is a weight of one."""
    one = like.new_ones(len(like))
    columns = [one if gate is None else gate.to(like.dtype) for gate in gates]
    return Weights(torch.stack(columns)[:, :, None], None, None)


class _Left(NamedTuple):
    """What a reader left at a port: its gradient, its weight for the source, and its place there."""

    grad: Tensor
    weight: Tensor
    weights: Weights
    row: int

    def leave(self, grad: Tensor, bias_grad: Tensor | None = None) -> None:
        """Keep the gradient of the reader's weight (and bias) for the source."""
        assert self.weights.collected is not None
        self.weights.collected.leave(self.row, grad, bias_grad)


class AtPort:
    """What readers left at a port in one backward pass.

    Attributes:
        grads: Gradients of readers that weigh the source.
        sink: The map that other readers add gradients to.
        sums: What reaches the source's mean, C.
        dots: What reaches its deviation, C.
    """

    def __init__(self) -> None:
        self.grads: list[_Left] = []
        self.sink: Tensor | None = None
        self.sums: Tensor | None = None
        self.dots: Tensor | None = None


class Port:
    """Where readers leave gradients for one source, in one forward pass.

    Attributes:
        stats: The source's statistics, if they were computed.
        readers: The weights of those readers that weigh it by parameters of their own, in their order.
        key: By which these know the source without holding it.
    """

    def __init__(self, stats: Statistics | None, readers: Sequence[Weights] = ()) -> None:
        self.stats, self.readers, self.key = stats, readers, object()
        for weights in readers:
            weights.made.append(self.key)
        self._left = PerPass(AtPort)

    @property
    def sink(self) -> Tensor | None:
        """The map that readers add gradients to in place, if one does in this backward pass."""
        return self._left.now().sink

    def leave(self, grad: Tensor, weight: Tensor, weights: Weights, row: int) -> None:
        """Keep the gradient of a reader that weighs the source: weight (B or 1) (C or 1)."""
        self._left.now().grads.append(_Left(grad, weight, weights, row))

    def accumulate(self, like: Tensor) -> Tensor:
        """Return the map that readers add gradients to in place."""
        left = self._left.now()
        if left.sink is None:
            left.sink = torch.zeros_like(like)
        return left.sink

    def through_stats(self, sums_C: Tensor, dots_C: Tensor) -> None:
        """Add up what reaches the mean, sum(w rstd g), and the deviation, sum(w rstd^2 g n)."""
        left = self._left.now()
        left.sums = sums_C if left.sums is None else left.sums + sums_C
        left.dots = dots_C if left.dots is None else left.dots + dots_C

    def gather(self, source: Tensor | None, extra: Tensor | None) -> Tensor | None:
        """Return the gradient of the source, all in all; `extra` is that of readers that are not fused.

        The source is None where no reader needs it for the gradient of weights or statistics.
        """
        left = self._left.take()
        total = self._pulled(left.grads, source, extra)
        return total if left.sink is None or source is None else self._sunk(left, source, left.sink, total)

    def _pulled(self, grads: list[_Left], source: Tensor | None, total: Tensor | None) -> Tensor | None:
        groups: dict[tuple[float, bool, torch.Size], list[_Left]] = {}
        for left in grads:
            key = (left.weights.eps, left.weights.collected is not None, left.weight.shape)
            groups.setdefault(key, []).append(left)
        for (eps, collected, _), group in groups.items():
            if eps and source is not None:
                total = self._pull_normalized(source, group, eps, total)
            elif collected and source is not None:
                total = _pull(source, group, total)
            else:
                weights = torch.stack([left.weight for left in group])
                pulled = kernels.weighted_sum([left.grad for left in group], weights)
                total = pulled if total is None else total + pulled
        return total

    def _pull_normalized(
        self, source: Tensor, group: list[_Left], eps: float, extra: Tensor | None
    ) -> Tensor:
        assert self.stats is not None
        mean_C, rstd_C = self.stats.mean, self.stats.rstd(eps)
        weight_RC = torch.stack([left.weight for left in group])[:, 0]
        grads = [left.grad for left in group]
        total, dots_RC, sums_RC = kernels.pull_normalized(grads, weight_RC, source, mean_C, rstd_C, extra)
        for left, dots_C, sums_C in zip(group, dots_RC.unbind(), sums_RC.unbind(), strict=True):
            left.leave(dots_C, sums_C)
        return total

    def _sunk(self, left: AtPort, source: Tensor, sink: Tensor, total: Tensor | None) -> Tensor:
        assert self.stats is not None
        mean_C = self.stats.mean
        if left.sums is not None and left.dots is not None:
            count = source.numel() // source.shape[1]
            slope_C = -left.dots / count
            kernels.add_affine(sink, source, slope_C, -left.sums / count - slope_C * mean_C)
        return sink if total is None else sink.add_(total)


def _pull(source: Tensor, group: list[_Left], extra: Tensor | None) -> Tensor:
    grads = [left.grad for left in group]
    total, dots = kernels.pull(grads, torch.stack([left.weight for left in group]), source, extra)
    for left, dot in zip(group, dots.unbind(), strict=True):
        left.leave(dot)
    return total


class _Gather(torch.autograd.Function):
    """The identity of a source; its backward gathers what readers left. It waits for weights' `_Collect`."""

    @staticmethod
    def forward(ctx: Any, port: Port, source: Tensor, *weights: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.port, ctx.n_weights = port, len(weights)
        read = bool(weights) or port.stats is not None  # else backward only adds gradients up
        ctx.save_for_backward(source if read else None)
        return source.view_as(source)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        (source,) = ctx.saved_tensors
        return None, ctx.port.gather(source, grad), *[None] * ctx.n_weights


class Shared(NamedTuple):
    """A source as its readers see it.

    Attributes:
        value: B C H W.
        port: Where readers leave its gradient; its statistics.
    """

    value: Tensor
    port: Port


def share(source: Tensor, readers: Sequence[Weights] = (), *, stats: bool = False) -> Shared:
    """Return a source made ready for fused readers.

    Args:
        source: B C H W.
        readers: The weights of those readers that weigh it by parameters of their own.
        stats: Whether to compute its statistics.
    """
    found = Statistics(*kernels.batch_stats(source.detach())) if stats else None
    port = Port(found, readers)
    tensors = [weights.tensor for weights in readers if weights.collected is not None]
    value: Tensor = _Gather.apply(port, source, *tensors)  # type: ignore[no-untyped-call]  # torch has no types
    return Shared(value, port)
