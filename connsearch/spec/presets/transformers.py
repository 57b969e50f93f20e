"""A small transformer on images, and the same with DenseFormer's depth-weighted averages.

Tokens are the pixels of a C x H x W map, patches of the image. Block i: x <- x + attention(norm(x)), then
X_i = x + mlp(norm(x)). DenseFormer (Pagliardini et al., arXiv 2402.02622): block i + 1 reads sum_j a_ij X_j
over the patches X_0 and the outputs X_1 .. X_i, scalars that start at 1 on X_i and at 0 elsewhere; dilation d
keeps j = i (mod d), period p averages after every p-th block only. Source: github.com/epfml/DenseFormer,
`denseformer/denseformer.py`. The sizes are this project's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.registry import Ref
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import HEADS, LINES, UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec, PartConfig

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def transformer_graph(depth: int, *, dilation: int = 0, period: int = 1) -> ConnectivityGraph:
    """Return the graph of a transformer of `depth` blocks, averaged over depth unless dilation is 0.

    >>> transformer_graph(2).n_edges, transformer_graph(2, dilation=1).n_edges
    (13, 18)

    Raises:
        SpecError: if depth or period is below 1, or dilation below 0.
    """
    if depth < 1 or period < 1 or dilation < 0:
        raise SpecError(
            f"need depth >= 1, period >= 1 and dilation >= 0, got {depth}, {period} and {dilation}"
        )
    builder = GraphBuilder()
    last = builder.add("stem", "stem", part="patches")
    outputs = [last]
    for i in range(1, depth + 1):
        attention = builder.add(f"block{i}.attention", reads=[last])
        attended = builder.add(f"block{i}.attended", "join", reads=[last, attention])
        mlp = builder.add(f"block{i}.mlp", reads=[attended], part="mlp")
        last = builder.add(f"block{i}.output", "join", reads=[attended, mlp])
        outputs.append(last)
        if dilation and i % period == 0:
            reads = outputs[i % dilation :: dilation]
            last = builder.add(f"block{i}.average", "join", reads=reads, part="average")
    builder.add("head", "head", reads=[last])
    return builder.graph()


def transformer(
    depth: int,
    width: int,
    heads: int,
    *,
    patch: int = 4,
    dilation: int = 0,
    period: int = 1,
    **settings: Any,
) -> NetworkSpec:
    """Return a transformer for 3 x 32 x 32 images; with a dilation of at least 1, a DenseFormer.

    Args:
        depth: Number of blocks, each attention and a two-layer perceptron.
        width: Channels.
        heads: Heads of attention; they divide the width.
        patch: Side of a patch, a divisor of 32.
        dilation: Every how many outputs an average reads; 0 for no averages.
        period: Every how many blocks one is taken.
        **settings: Other fields, such as `n_classes`.

    Raises:
        SpecError: if a number is out of its range, or a setting is wrong.
    """
    if patch < 1 or 32 % patch:
        raise SpecError(f"patch must divide 32, got {patch}")
    side = 32 // patch
    parts = (
        PartConfig(name="patches", line=LINES.ref("patches", size=patch, rows=side, columns=side)),
        PartConfig(name="mlp", unit=Ref("mlp")),
        PartConfig(name="average", aggregation=AGGREGATIONS.ref("weighted", single=True)),
    )
    given: dict[str, Any] = {
        "own_graph": transformer_graph(depth, dilation=dilation, period=period),
        "blocks": (BlockConfig(unit=UNITS.ref("attention", heads=heads), width=width),),
        "parts": parts if dilation else parts[:2],
        "head": HEADS.ref("pool", norm="channel", activation="none"),
    }
    return NetworkSpec(**given, **settings)


PRESETS["transformer-small"] = partial(transformer, 6, 96, 3)
PRESETS["denseformer-small"] = partial(transformer, 6, 96, 3, dilation=1)
PRESETS["denseformer-small-2x2"] = partial(transformer, 6, 96, 3, dilation=2, period=2)
