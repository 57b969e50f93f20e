"""What several readers of a source need of it is made once, at the source.

*Statistics.* Mean and variance of a source's channels do not depend on who reads it. A layer that
normalises its sources one by one (the normalised cross-layer convolution), or a norm over a concatenation,
finds them computed; in a block of n layers they are computed n times instead of n^2 / 2 times:

    %1 = conv(16, 64) <- %0
    %3 = aggregate.depthwise <- %1 %2          ->   %1 = conv(16, 64) | share(stats=True) <- %0

*Gradients.* The gradient of a source is the sum of what its readers send back. Left to itself, each reader
makes a map of its own, which is then added to what has come before: a read-modify-write for each reader.
Shared, it waits for all readers and is gathered from their gradients in one pass and one write.

    %1 = conv(16, 64) <- %0
    %3 = aggregate.depthwise(form=paper) <- %1 %2   ->   %1 = conv(16, 64) | share() <- %0
"""

from __future__ import annotations

from collections.abc import Collection

from connsearch.ir.passes.glue import is_normalized, is_weighted, norms_concat
from connsearch.ir.program import Op, Program, Share, Step


def share_statistics(program: Program) -> Program:
    """Compute statistics at the sources of what normalises them."""
    wanted = {s for op in program.ops if is_normalized(op) or norms_concat(op) for s in op.sources}
    return _shared(program, wanted, Share(stats=True))


def pull_backward(program: Program) -> Program:
    """Gather the gradients of sources of weighted sums once, from all of these."""
    wanted = {source for op in program.ops if is_weighted(op) for source in op.sources}
    return _shared(program, wanted, Share())


def _shared(program: Program, values: Collection[int], share: Share) -> Program:
    """Return the program with some values shared that are not yet; the image is no value of an operation."""
    ops = tuple(
        Op((*op.steps, Step(share)), op.reads, op.shape) if value in values and op.shared is None else op
        for value, op in enumerate(program.ops, start=1)
    )
    if ops == program.ops:
        return program
    return Program(program.name, program.image, ops, program.outputs, program.n_columns)
