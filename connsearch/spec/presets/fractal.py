"""FractalNets (Larsson et al., arXiv 1605.07648), wired as the authors' generator does it.

f_1(z) = conv(z), f_{C+1}(z) = mean of f_C(f_C(z)) and conv(z), conv = convolution - batch norm - ReLU. Joins
that meet are one: the mean is over all columns that end at a depth. A block's columns are pooled one by one,
then joined. Source: github.com/gustavla/fractalnet, `generation/fractalnet.py`.

The generator's network has 33.7M parameters, the paper prints 38.6M: as many as if 1x1 convolutions changed
the width before a block (`widen`), which is inferred from the figure alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.registry import Ref
from connsearch.spec.chains import HEADS, LINES, UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec, PartConfig

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def fractal_graph(n_blocks: int, n_columns: int, *, widened: Collection[int] = ()) -> ConnectivityGraph:
    """Return the graph of a fractal network; a node's `path` is its column, 0 the shallowest.

    A join stands in the deepest of the columns that it joins.

    Column c of C has 2^c convolutions, one every 2^(C-1-c) steps; a block is 2^(C-1) convolutions deep.
    Blocks in `widened`, from 1, read what one node made wider.

    >>> [name for name, n in fractal_graph(1, 3).in_degrees().items() if n > 1]
    ['block1.join2', 'block1.join4']
    """
    builder = GraphBuilder()
    last = builder.add("stem", "stem", part="widen" if 1 in widened else "image")
    for block in range(1, n_blocks + 1):
        if block > 1 and block in widened:
            here: dict[str, Any] = {"block": block, "scale": block - 1}
            last = builder.add(f"block{block}.widened", "carry", reads=[last], part="widen", **here)
        last = _fractal_block(builder, last, block, n_columns)
    builder.add("head", "head", reads=[last], block=n_blocks, scale=n_blocks)
    return builder.graph()


def _fractal_block(builder: GraphBuilder, entry: str, block: int, n_columns: int) -> str:
    """Add a block that reads `entry`, and return its last node."""
    lasts = [entry] * n_columns
    depth = 2 ** (n_columns - 1)
    for step in range(1, depth + 1):
        ending = [c for c in range(n_columns) if step % (depth >> c) == 0]
        for column in ending:
            name = f"block{block}.column{column}.conv{step * 2**column // depth}"
            lasts[column] = builder.add(
                name, reads=[lasts[column]], block=block, scale=block - 1, path=column
            )
        if step == depth:
            lasts = _pooled(builder, lasts, block)
        if len(ending) > 1:
            reads = [lasts[column] for column in ending]
            joined = builder.add(
                f"block{block}.join{step}",
                "join",
                reads=reads,
                block=block,
                scale=block - (step < depth),
                path=ending[-1],
            )
            for column in ending:
                lasts[column] = joined
    return lasts[-1]


def _pooled(builder: GraphBuilder, lasts: Sequence[str], block: int) -> list[str]:
    return [
        builder.add(
            f"block{block}.column{column}.pool",
            "carry",
            reads=[last],
            block=block,
            scale=block,
            path=column,
            part="pool",
        )
        for column, last in enumerate(lasts)
    ]


def fractal(n_columns: int, widths: Sequence[int], *, widen: bool = False, **settings: Any) -> NetworkSpec:
    """Return a fractal network.

    Args:
        n_columns: Columns of each block.
        widths: Width of each block; each halves the resolution.
        widen: Whether a 1x1 convolution gives a block its width where that changes, in place of the first
            convolution of every column.
        **settings: Other fields, such as `n_classes`, `input` and `drop`.

    Raises:
        SpecError: if there is no column or no block, or a setting is wrong.
    """
    if n_columns < 1 or not widths:
        raise SpecError(f"need one column and one block at least, got {n_columns} and {len(widths)}")
    unit = UNITS.ref("conv", order="post")
    changes = {1, *(block for block in range(2, len(widths) + 1) if widths[block - 1] != widths[block - 2])}
    first = (
        PartConfig(name="widen", unit=UNITS.ref("conv", kernel=1, order="post"))
        if widen
        else PartConfig(name="image", line=Ref("identity"))
    )
    given: dict[str, Any] = {
        "own_graph": fractal_graph(len(widths), n_columns, widened=changes if widen else ()),
        "blocks": tuple(BlockConfig(aggregation=Ref("mean"), unit=unit, width=width) for width in widths),
        "parts": (first, PartConfig(name="pool", line=LINES.ref("pool", kind="max"))),
        "head": HEADS.ref("pool", norm="none", activation="none"),
    }
    return NetworkSpec(**given, **settings)


_WIDTHS = (64, 128, 256, 512, 512)

for _n_columns, _depth in ((3, 20), (4, 40)):
    PRESETS[f"fractalnet-{_depth}"] = partial(fractal, _n_columns, _WIDTHS)
    PRESETS[f"fractalnet-{_depth}-drop-path"] = partial(fractal, _n_columns, _WIDTHS, drop=Ref("drop_path"))
PRESETS["fractalnet-20-widened"] = partial(fractal, 3, _WIDTHS, widen=True)
