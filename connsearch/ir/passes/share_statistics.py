"""Compute the statistics of a source once, for all who normalise it.

Mean and variance of a source's channels do not depend on who reads it. A layer that normalises its sources
one by one (the normalised cross-layer convolution), or a norm over a concatenation, finds them computed; in
a block of n layers they are computed n times instead of n^2 / 2 times:

    %1 = conv(16, 64) <- %0
    %3 = aggregate.depthwise <- %1 %2          ->   %1 = conv(16, 64) | share(stats=True) <- %0

Like every shared source it has its gradient gathered from all of these at once (`pull_backward`).
"""

from __future__ import annotations

from connsearch.ir.passes.sharing import normalized_sources, shared
from connsearch.ir.program import Program, Share


def share_statistics(program: Program) -> Program:
    """Compute statistics at the sources of what normalises them."""
    return shared(program, normalized_sources(program), Share(stats=True))
