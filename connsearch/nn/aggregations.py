"""Aggregations as modules: the definition, in plain PyTorch, of how sources become one input.

Each is the module of the rule of the same name in `connsearch.spec.aggregations`. Shapes: L sources of
B C H W, oldest first, as many as the rule applies to; weights are named by their axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.errors import SpecError
from connsearch.nn.chain import build_op
from connsearch.registry import Ref, Registry
from connsearch.spec import aggregations as rules
from connsearch.spec.aggregations import AGGREGATIONS, aggregation_rule
from connsearch.spec.ops import Conv

Sources = Sequence[Tensor]
Gates = Sequence[Tensor | None]
Builder = Callable[[Any, Sequence[int]], nn.Module]

MODULES: Registry[Builder] = Registry("aggregation module")


def implement_aggregation(name: str) -> Callable[[Builder], Builder]:
    """Register `build(rule, source_channels) -> nn.Module` for the aggregation of that name.

    The module's `forward(sources)` returns B C H W; with `rule.routes`, `forward(sources, gates)`, where
    a gate is B 1 1 1, or None for a source that gives this reader everything. With a method
    `source_weights()`, which returns what it multiplies each source by, L x anything, its connections have
    strengths in `connsearch.nn.connectivity`.

    Raises:
        SpecError: if no such aggregation is registered, or it has a module already.
    """
    AGGREGATIONS[name]
    return MODULES.register(name)


def build_aggregation(ref: Ref, source_channels: Sequence[int]) -> nn.Module:
    """Return the module of an aggregation, for sources that it applies to.

    Raises:
        SpecError: if the aggregation has no module.
    """
    if ref.name in AGGREGATIONS and ref.name not in MODULES:
        raise SpecError(f"aggregation {ref.name!r} has no module: register one with implement_aggregation")
    return MODULES[ref.name](aggregation_rule(ref), source_channels)


@implement_aggregation("sum")
def _sum(rule: rules.Sum, source_channels: Sequence[int]) -> nn.Module:
    return Sum()


@implement_aggregation("mean")
def _mean(rule: rules.Mean, source_channels: Sequence[int]) -> nn.Module:
    return Mean()


@implement_aggregation("concat")
def _concat(rule: rules.Concat, source_channels: Sequence[int]) -> nn.Module:
    return Concat()


@implement_aggregation("weighted")
def _weighted(rule: rules.Weighted, source_channels: Sequence[int]) -> nn.Module:
    return Weighted(len(source_channels), rule.activation, newest=rule.newest, older=rule.older)


@implement_aggregation("depthwise")
def _depthwise(rule: rules.Depthwise, source_channels: Sequence[int]) -> nn.Module:
    form = Depthwise if rule.form == "paper" else NormalizedDepthwise
    return form(len(source_channels), source_channels[0])


@implement_aggregation("gated")
def _gated(rule: rules.Gated, source_channels: Sequence[int]) -> nn.Module:
    return Gated(len(source_channels), source_channels[0], rule.bias)


@implement_aggregation("routed")
def _routed(rule: rules.Routed, source_channels: Sequence[int]) -> nn.Module:
    return Routed()


def add_up(sources: Sources) -> Tensor:
    """Return sum_i h_i, B C H W, oldest first."""
    total = sources[0] + sources[1]
    for h_BCHW in sources[2:]:
        total += h_BCHW
    return total


class Sum(nn.Module):
    """x = sum_i h_i."""

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        return add_up(sources)


class Mean(Sum):
    """x = 1/L sum_i h_i."""

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        return super().forward(sources).div_(len(sources))


class Concat(nn.Module):
    """x = [h_1, ..., h_L] along the channels."""

    def forward(self, sources: Sources) -> Tensor:
        """Return B (sum of C) H W."""
        return torch.cat(list(sources), dim=1)


class Weighted(nn.Module):
    """x = sum_i a(w_i) h_i, a the identity or a sigmoid: one scalar for each source."""

    def __init__(self, n_sources: int, activation: str, *, newest: float, older: float) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.full((n_sources,), older))
        with torch.no_grad():
            self.weight[-1] = newest

    def source_weights(self) -> Tensor:
        """Return what each source is multiplied by, L 1."""
        weight_L = self.weight.sigmoid() if self.activation == "sigmoid" else self.weight
        return weight_L[:, None]

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        weight_L = self.weight.sigmoid() if self.activation == "sigmoid" else self.weight
        total = sources[0] * weight_L[0]
        for w, h_BCHW in zip(weight_L[1:], sources[1:], strict=True):
            total.addcmul_(h_BCHW, w)
        return total


class Depthwise(nn.Module):
    """x[c] = sum_i w[i, c] h_i[c] + b[c]: equation 1 of DelugeNets (arXiv 1611.05552).

    Weights start at 1/L, the bias at 0.
    """

    def __init__(self, n_sources: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n_sources, channels), 1 / n_sources))
        self.bias = nn.Parameter(torch.zeros(channels))

    def source_weights(self) -> Tensor:
        """Return what each channel of each source is multiplied by, L C."""
        return self.weight

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        weight_LC11 = self.weight[:, :, None, None]
        total = sources[0] * weight_LC11[0]
        for w_C11, h_BCHW in zip(weight_LC11[1:], sources[1:], strict=True):
            total.addcmul_(h_BCHW, w_C11)
        return total.add_(self.bias[:, None, None])


class NormalizedDepthwise(nn.Module):
    """x[c] = sum_i (g[i, c] BN_i(h_i)[c] + b[i, c]): DelugeNets as its authors' code has it.

    Every source has statistics of its own: of the batch in training, running averages in evaluation
    (eps 1e-5, momentum 0.1). Weights start at 1/L, biases at 0.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, n_sources: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.full((n_sources, channels), 1 / n_sources))
        self.bias = nn.Parameter(torch.zeros(n_sources, channels))
        self.register_buffer("running_mean", torch.zeros(n_sources, channels))
        self.register_buffer("running_var", torch.ones(n_sources, channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def source_weights(self) -> Tensor:
        """Return what each channel of each normalised source is multiplied by, L C."""
        return self.weight

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W; in training, update the running statistics."""
        if self.training:
            self.num_batches_tracked += 1
        total = self._normalized(0, sources[0])
        for i, h_BCHW in enumerate(sources[1:], start=1):
            total += self._normalized(i, h_BCHW)
        return total

    def _normalized(self, i: int, h_BCHW: Tensor) -> Tensor:
        mean, var, weight, bias = self.running_mean[i], self.running_var[i], self.weight[i], self.bias[i]
        return F.batch_norm(h_BCHW, mean, var, weight, bias, self.training, self.momentum, self.eps)


class Gated(nn.Module):
    """x_1 = h_1; x_i = x_{i-1} + T_i (h_i - x_{i-1}), T_i = sigmoid(W_i x_{i-1} + b_i), W_i a 1x1 conv."""

    def __init__(self, n_sources: int, channels: int, bias: float) -> None:
        super().__init__()
        self.gates = nn.ModuleList(
            build_op(Conv(channels, channels, 1, bias=True)) for _ in range(n_sources - 1)
        )
        for gate in self.gates:
            nn.init.constant_(gate.bias, bias)  # type: ignore[arg-type]  # a Conv2d's bias is a parameter

    def forward(self, sources: Sources) -> Tensor:
        """Return B C H W."""
        carried = sources[0]
        for gate, h_BCHW in zip(self.gates, sources[1:], strict=True):
            t_BCHW = gate(carried).sigmoid_()
            carried = torch.lerp(carried, h_BCHW, t_BCHW)
        return carried

    def shares(self, sources: Sources) -> list[Tensor]:
        """Return how much of the output each source is, L of B C H W that add up to one."""
        carried, shares = sources[0], [torch.ones_like(sources[0])]
        for gate, h_BCHW in zip(self.gates, sources[1:], strict=True):
            t_BCHW = gate(carried).sigmoid_()
            carried = torch.lerp(carried, h_BCHW, t_BCHW)
            shares = [*(share * (1 - t_BCHW) for share in shares), t_BCHW]
        return shares


class Routed(nn.Module):
    """x = sum_i g_i h_i, with gates that the sources computed."""

    def forward(self, sources: Sources, gates: Gates) -> Tensor:
        """Return B C H W; a gate is B 1 1 1, or None for a weight of one; a single source has a gate."""
        if len(sources) == 1:
            return sources[0] * gates[0]  # type: ignore[operator]  # else it is read as it is
        total = _first_two(sources, gates)
        for h_BCHW, gate in zip(sources[2:], gates[2:], strict=True):
            if gate is None:
                total += h_BCHW
            else:
                total.addcmul_(h_BCHW, gate)
        return total


def _first_two(sources: Sources, gates: Gates) -> Tensor:
    (a, b), (gate_a, gate_b) = sources[:2], gates[:2]
    if gate_a is not None:
        total = a * gate_a
        return total.add_(b) if gate_b is None else total.addcmul_(b, gate_b)
    return a + b if gate_b is None else torch.addcmul(a, b, gate_b)
