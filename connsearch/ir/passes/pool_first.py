"""Average before a 1x1 convolution, not after it: for inference.

A 1x1 convolution computes each pixel by itself, so that the mean over a window of its results is its result
for the mean over the window. Averaged first, there are fewer pixels to convolve (a quarter of them in the
transitions of DenseNets):

    %2: 32x8x8 = conv(64, 32, kernel=1) <- %1         %2: 64x4x4 = pool('avg') <- %1
    %3: 32x4x4 = pool('avg') <- %2              ->    %3: 32x4x4 = conv(64, 32, kernel=1) <- %2

Results differ by rounding.
"""

from __future__ import annotations

from connsearch.ir.program import Op, Program
from connsearch.spec.ops import Conv, Pool, output_shape


def pool_first(program: Program) -> Program:
    """Swap 1x1 convolutions and the average pools that alone read them."""
    ops = list(program.ops)
    for value, pool in enumerate(program.ops, start=1):
        read = pool.reads[0]
        alone = program.readers[read] == (value,) and read not in program.kept
        if read and alone and _shrinks(pool) and _is_pixelwise(ops[read - 1]):
            conv, what = ops[read - 1], pool.steps[0].what
            assert isinstance(what, Pool)
            shape = output_shape(what, program.shape(conv.reads[0]))
            ops[read - 1] = Op(pool.steps, conv.reads, shape)
            ops[value - 1] = Op(conv.steps, (read,), pool.shape)
    if tuple(ops) == program.ops:
        return program
    return Program(program.name, program.image, tuple(ops), program.outputs, program.n_columns)


def _shrinks(op: Op) -> bool:
    what = op.steps[0].what
    plain = isinstance(what, Pool) and what.kind == "avg" and not what.padding and what.stride > 1
    return plain and len(op.steps) == 1


def _is_pixelwise(op: Op) -> bool:
    what = op.steps[0].what
    pixelwise = isinstance(what, Conv) and what.kernel == what.stride == 1 and not what.padding
    return pixelwise and len(op.steps) == 1
