"""What do others count? Quantities of published tables that are no part of `Cost`, each by its own rule.

They are for comparing with figures as printed. Each walks over the operations of a network and names no
network; the sources of the rules are in `docs/architectures.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from connsearch.cost.model import network_cost
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import (
    Act,
    Conv,
    Deconv,
    DepthwiseConv,
    GlobalPool,
    Op,
    Pool,
    Shape,
    Upsample,
    is_batch_norm,
    output_shape,
)
from connsearch.spec.resolve import resolve

_BYTES = 4  # of a float32
_CONVOLUTIONS = (Conv, Deconv, DepthwiseConv)
_PTFLOPS_ACTIVATIONS = ("relu", "elu", "leaky_relu")


def ptflops(spec: NetworkSpec) -> int:
    """Return the "MACs" that ptflops prints (sovrasov/flops-counter.pytorch, version of 2019), for one image.

    Multiply-accumulates of convolutions and linear layers; 1 for each output of a convolution with a bias,
    2 for each element of a batch norm, 1 for each of an activation of the ReLU family, 1 for each
    element that a pooling reads, 1 for each that an upsampling writes.

    Raises:
        SpecError: if the specification describes no network.
    """
    cost = network_cost(spec)
    return cost.conv_macs + cost.linear_macs + sum(_elementwise(*step) for step in _steps(spec))


def _elementwise(op: Op, before: Shape, after: Shape) -> int:
    """Return what ptflops adds for an operation beside multiply-accumulates."""
    if isinstance(op, Conv | Deconv):
        return after.size if op.bias else 0
    if is_batch_norm(op):
        return 2 * before.size
    if isinstance(op, Act):
        return before.size if op.kind in _PTFLOPS_ACTIVATIONS else 0
    if isinstance(op, Pool | GlobalPool):
        return before.size
    return after.size if isinstance(op, Upsample) else 0


def conv_traffic(spec: NetworkSpec) -> int:
    """Return CIO in bytes: what all convolutions read and write, in float32, for one image.

    A feature that several convolutions read counts each time (HarDNet, arXiv 1909.00948, equation 1).

    Raises:
        SpecError: if the specification describes no network.
    """
    sizes = (before.size + after.size for op, before, after in _steps(spec) if isinstance(op, _CONVOLUTIONS))
    return _BYTES * sum(sizes)


def params_and_statistics(spec: NetworkSpec) -> int:
    """Return parameters and, of each batch norm among the operations, running means and variances.

    Raises:
        SpecError: if the specification describes no network.
    """
    norms = (op for op, *_ in _steps(spec) if is_batch_norm(op))
    return network_cost(spec).params + sum(2 * op.channels for op in norms)


def params_and_biases(spec: NetworkSpec) -> int:
    """Return parameters and one for each output channel of a convolution that has no bias.

    Raises:
        SpecError: if the specification describes no network.
    """
    bare = (op for op, *_ in _steps(spec) if isinstance(op, Conv) and not op.bias)
    return network_cost(spec).params + sum(op.out_channels for op in bare)


def _steps(spec: NetworkSpec) -> Iterator[tuple[Op, Shape, Shape]]:
    """Yield every operation with the shapes that it reads and gives out."""
    for node in resolve(spec).nodes:
        for line in (node.line, node.gate_line):
            if line is None:
                continue
            shape = line.in_shape
            for op in line.chain:
                before, shape = shape, output_shape(op, shape)
                yield op, before, shape


COUNTERS: dict[str, Callable[[NetworkSpec], int]] = {
    "ptflops": ptflops,
    "cio": conv_traffic,
    "params+statistics": params_and_statistics,
    "params+biases": params_and_biases,
}
