"""Gather the gradient of a source once, from all its readers.

It is the sum of what they send back. Left to itself, each reader makes a map of its own, which is then
added to what has come before: a read-modify-write for each reader. Shared, it waits for all readers and is
gathered from their gradients in one pass and one write.

    %1 = conv(16, 64) <- %0
    %3 = aggregate.depthwise(form=paper) <- %1 %2   ->   %1 = conv(16, 64) | share() <- %0

Sources that a reader normalises are left to `share_statistics`, which shares them with their statistics.
"""

from __future__ import annotations

from connsearch.ir.passes.glue import is_weighted
from connsearch.ir.passes.sharing import normalized_sources, shared
from connsearch.ir.program import Program, Share


def pull_backward(program: Program) -> Program:
    """Gather the gradients of sources of weighted sums once, from all of these."""
    weighed = {source for op in program.ops if is_weighted(op) for source in op.sources}
    return shared(program, weighed - normalized_sources(program), Share())
