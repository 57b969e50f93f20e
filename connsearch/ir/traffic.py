"""How many elements a program moves between memory and processor: what passes are for, before anything runs.

The model counts, for one image, each map that a loop over memory reads or writes, as if no cache kept a map
from one loop to the next. Parameters and what is one figure for each channel are not counted. x is what a
step reads, y what it gives out, n its number of sources. A step of the definition moves, forward + backward:

| step | reads | writes |
|---|---|---|
| convolution, linear | x + (2y + x) | y + x |
| norm (statistics, then values) | 2x + 4x | x + x |
| activation | x + 2x | x + x |
| pool, upsample, slice | x + y | y + x |
| sum of n (backward hands its gradient on) | 2(n - 1)x + 0 | (n - 1)x + 0 |
| concatenation (likewise) | y + 0 | y + 0 |
| weighted sum (a loop over sources) | (2n - 1)x + 4nx | nx + 2nx |
| the same of normalised sources | (4n - 2)x + 4nx | (2n - 1)x + nx |

and a value that m operands read has its gradient added up from m, 2(m - 1) read and m - 1 written. A fused
operation reads each source once and writes what it gives out, and what it keeps, once:

| step | reads | writes |
|---|---|---|
| weighted sum | nx + 0, and 2x for each gate | x + 0 |
| norm and activation | x + 2x, after a weighted sum 0 + 2x | x + x |
| concatenation, norm and activation | y + 3y | y + y |
| a convolution after them: what it reads is made, for backward again | x + (2y + x) + x | y + x + x |

That a norm reads a map once means NCHW, and a channel of the batch that fits the cache: it is read there as
often as it must be, before the next one. With channels last, in which training on a CPU runs, all channels
are read together: a map that is larger than the cache is read twice, forward and backward, of which one is
counted here.

The gradients of the sources are moved where they are gathered: a shared source is read with the R gradients
that fused readers left (of a plain sum they alone are read; a single one is handed on), and written once.
The norms of concatenations add theirs to one map. A fused reader of a source that is not shared computes
statistics and a gradient for itself. The image has no gradient.

That is what a program says. When it runs, several readers of large maps have their sums begun in one pass
over the sources that they have in common, which is not counted here: it depends on the batch. `saved_ahead`
says what it saves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from connsearch.errors import SpecError
from connsearch.ir.passes.glue import is_fused, is_normalized, is_weighted, norms_concat
from connsearch.ir.program import Aggregate, Op, Program, Scale
from connsearch.ir.text import op_text
from connsearch.ir.verify import CONVOLUTIONS
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.ops import (
    Act,
    Attention,
    Conv,
    Deconv,
    DepthwiseConv,
    Linear,
    Norm,
    Pool,
    Position,
    Shape,
    Slice,
    Softmax,
    Subsample,
)


@dataclass(frozen=True)
class Traffic:
    """Elements moved for one image. Traffic adds.

    Attributes:
        read: Read in the forward pass.
        written: Written in it.
        back_read: Read in the backward pass.
        back_written: Written in it.
    """

    read: int = 0
    written: int = 0
    back_read: int = 0
    back_written: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            self.back_read + other.back_read,
            self.back_written + other.back_written,
        )

    def __mul__(self, size: int) -> Traffic:
        return Traffic(self.read * size, self.written * size, self.back_read * size, self.back_written * size)

    @property
    def forward(self) -> int:
        """Moved in the forward pass."""
        return self.read + self.written

    @property
    def total(self) -> int:
        """Moved in a training step."""
        return self.forward + self.back_read + self.back_written


def bytes_moved(program: Program, *, batch: int, bytes_per_element: int = 4, training: bool = True) -> int:
    """Return the bytes that a training step moves, or its forward pass alone.

    Args:
        program: A program of training: lowered, or made by a pipeline of training.
        batch: Images in a batch.
        bytes_per_element: Of a map.
        training: Whether to count the backward pass.

    Raises:
        SpecError: if the program is of the pipeline "inference", where norms are folded into convolutions.
    """
    moved = [op_traffic(program, value) for value in range(1, len(program.ops) + 1)]
    return sum(t.total if training else t.forward for t in moved) * batch * bytes_per_element


def op_traffic(program: Program, value: int) -> Traffic:
    """Return what the operation that defines a value moves, and the gathering of that value's gradient.

    Raises:
        SpecError: if a norm or an activation is folded into a convolution.
    """
    op = program.op(value)
    if _folds(op):
        raise SpecError(
            f"%{value}: {op_text(op)}: what is folded into a convolution has no training step: "
            "ask moved_in_evaluation(program, folded=True)"
        )
    if is_fused(program, op):
        moved = _fused(program, op)
    else:
        shapes = [program.shape(source) for source in op.sources]
        moved = _step(op, shapes, into_image=op.reads == (0,))
    return moved + _gradient(program, value)


def _folds(op: Op) -> bool:
    kinds = op.kinds[:-1] if op.shared else op.kinds
    return any(kind in CONVOLUTIONS for kind in kinds[:-1])


def saved_ahead(n_sources: int, n_readers: int) -> int:
    """Return how many maps fewer are moved if one pass over common sources begins the sums of all readers.

    Each reader would read each source. Together they read it once, and a map is written and read again for
    each reader: what was begun. Below 1 it does not pay.

    >>> saved_ahead(n_sources=12, n_readers=4), saved_ahead(n_sources=2, n_readers=4)
    (28, -2)
    """
    return (n_readers - 1) * n_sources - 2 * n_readers


# ---- the definition ------------------------------------------------------------------------------------


def _step(op: Op, shapes: list[Shape], *, into_image: bool) -> Traffic:
    what, x, y = op.steps[0].what, shapes[0].size, op.shape.size
    if isinstance(what, Aggregate):
        return _aggregated(op, what, y)
    if isinstance(what, Conv | DepthwiseConv | Deconv | Linear):
        return Traffic(x, y, x + y) if into_image else Traffic(x, y, x + 2 * y, x)
    if isinstance(what, Norm):
        copied = int(what.kind == "channel")  # into the order of channels, and back
        return Traffic(2 + copied, 1 + copied, 4 + copied, 1 + copied) * x
    if isinstance(what, Act | Softmax):
        return Traffic(1, 1, 2, 1) * x
    if isinstance(what, Scale):
        return Traffic(1, 1, 1, 1) * x
    if isinstance(what, Position):
        return Traffic(1, 1, 1) * x
    if isinstance(what, Attention):
        pairs = what.heads * (op.shape.height * op.shape.width) ** 2
        return Traffic(4, 1, 8, 6) * y + Traffic(3, 3, 6, 3) * pairs  # scores, scaled, softmax, values
    if isinstance(what, Slice):
        return Traffic(y, y, y, x)
    if isinstance(what, Subsample):
        kept = y * what.in_channels // what.out_channels
        return Traffic(kept, y, kept, x)
    if isinstance(what, Pool) and what.kind == "max":  # with positions of 8 bytes
        return Traffic(x, 3 * y, 3 * y, x)
    return Traffic(x, y, y, x)


def _aggregated(op: Op, what: Aggregate, y: int) -> Traffic:
    """Return what an aggregation moves that runs source by source."""
    n, name = len(op.sources), what.ref.name
    dropped = sum((_dropped(drop) for drop in what.drops if drop is not None), Traffic()) * y
    if name == "concat":
        return Traffic(1, 1) * y
    if name in ("sum", "mean"):
        divided = Traffic(1, 1, 1, 1) * int(name == "mean")
        return (Traffic(2 * (n - 1), n - 1) + divided) * y + dropped
    if name == "routed":
        n_gated = sum(slot is not None for slot in what.slots)
        alone = int(what.slots[0] is not None)  # the first product has a loop of its own
        return Traffic(2 * (n - 1) + alone, n - 1 + alone, 4 * n_gated, 2 * n_gated) * y
    if name == "gated":  # per gate: a convolution, a sigmoid, an interpolation
        return Traffic(5, 3, 15, 7) * (n - 1) * y
    if is_normalized(op):
        return Traffic(4 * n - 2, 2 * n - 1, 4 * n, n) * y
    if name in ("depthwise", "weighted"):
        bias = int(name == "depthwise")
        return Traffic(2 * n - 1 + bias, n + bias, 4 * n + bias, 2 * n) * y
    return Traffic(n, 1, 1, n) * y  # one of the user's own: as if it took one loop


def _dropped(drop: EdgeDrop) -> Traffic:
    """Return what training moves to drop a source, in maps."""
    if drop.survival == 1:
        return Traffic()
    return Traffic(2, 2, 2, 1) if drop.kind == "element" else Traffic(1, 1, 1, 1)


# ---- fused operations ----------------------------------------------------------------------------------


def _fused(program: Program, op: Op) -> Traffic:
    sizes = [program.shape(source).size for source in op.sources]
    convolves = op.kinds[-1 - (op.shared is not None)] == "conv"
    own = [source for source in op.sources if not (source and program.op(source).shared)]
    moved = sum((_own_port(op, program.shape(source).size, source) for source in own), Traffic())
    x = sizes[0]
    if norms_concat(op):
        x = sum(sizes)
        moved += Traffic(1, 1, 3, 1) * x
    else:
        moved += _weighed(op, x) if op.aggregate is not None else Traffic(1) * x
        moved += Traffic(0, 1, 2, 1) * x if "norm" in op.kinds else Traffic()
    y = op.shape.size
    return moved + Traffic(x, y, 2 * y + 2 * x, 2 * x) if convolves else moved


def _weighed(op: Op, x: int) -> Traffic:
    """Return what a weighted sum moves in one pass, the gradients of its sources apart."""
    what = op.aggregate
    assert what is not None
    n_gated = sum(slot is not None for slot in what.slots)
    bias = int(what.ref.name == "depthwise" and not is_normalized(op))
    return Traffic(len(op.sources), 1, 2 * n_gated + bias) * x


def _own_port(op: Op, size: int, source: int) -> Traffic:
    """Return what a fused reader moves for a source that is not shared: statistics and a gradient."""
    if not (is_weighted(op) or norms_concat(op)):
        return Traffic()
    stats = Traffic(int(is_normalized(op) or norms_concat(op)))
    return (stats + _gathered(Counter({_way(op, source): 1}), n_plain=0) if source else stats) * size


# ---- gradients -----------------------------------------------------------------------------------------


def _gradient(program: Program, value: int) -> Traffic:
    """Return what it takes to share a value, and to make its gradient of what its readers make."""
    ways: Counter[str] = Counter()
    for reader in program.readers[value]:
        op = program.op(reader)
        fused = is_fused(program, op) and (is_weighted(op) or norms_concat(op))
        n = op.sources.count(value)
        ways[_way(op, value) if fused and n else "plain"] += n
        ways["plain"] += op.reads.count(value) - n  # it holds gates, too
    shared, size = program.op(value).shared, program.shape(value).size
    if shared is None:
        return Traffic(0, 0, 2, 1) * max(0, ways.total() - 1) * size
    n_plain = ways.pop("plain", 0)
    return (Traffic(int(shared.stats)) + _gathered(ways, n_plain)) * size


def _way(op: Op, source: int) -> str:
    """Return how the gradient that an operation makes for a source is gathered."""
    what = op.aggregate
    assert what is not None
    if what.slots and what.slots[op.sources.index(source)] is None:
        return "sum"  # it is added as it is
    if what.ref.name in ("sum", "mean", "routed", "concat"):
        return what.ref.name
    return "normalized" if is_normalized(op) else what.ref.name


def _gathered(ways: Counter[str], n_plain: int) -> Traffic:
    """Return what gathering a source's gradient moves, in maps.

    Args:
        ways: How many fused readers there are of each kind.
        n_plain: How many others there are; what they make is added up first.
    """
    moved = Traffic(0, 0, 2, 1) * max(0, n_plain - 1)
    there = int(n_plain > 0)  # whether a part of the gradient exists
    for way, n in ways.items():
        if way == "concat":
            moved += Traffic(0, 0, 2, 2 + there) + Traffic(0, 0, 2) * there
        elif way in ("sum", "mean", "routed"):
            added = Traffic(0, 0, 2, 1) * there
            moved += added if (way, n) == ("sum", 1) else Traffic(0, 0, n, 1) + added
        else:
            moved += Traffic(0, 0, n + 1 + there, 1)
        there = 1
    return moved
