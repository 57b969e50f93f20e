"""HarDNets (Chao et al., arXiv 1909.00948), as the authors' code has them.

Layer k of a block reads layers k - 2^n for every 2^n that divides k, concatenated, and has g m^v channels, v
the greatest with 2^v | k, rounded to an even number. A 1x1 convolution reads the last layer and all odd ones.
Norm and activation follow every convolution; the activation is ReLU here and ReLU6 in that code, which no
count can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connsearch.graph import ConnectivityGraph, predecessors
from connsearch.graph.build import GraphBuilder
from connsearch.graph.patterns import check_depths
from connsearch.registry import Ref
from connsearch.spec.chains import HEADS, LINES, UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec, PartConfig
from connsearch.spec.presets.inputs import LARGE

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

_HARMONIC = Ref("harmonic")
_LAYER = UNITS.ref("conv", order="post")
_MERGE = UNITS.ref("conv", order="post", kernel=1)


def hardnet(
    stem: tuple[int, int],
    depths: Sequence[int],
    growths: Sequence[int],
    outputs: Sequence[int],
    halved: Sequence[bool],
    *,
    weighting: float = 1.7,
) -> NetworkSpec:
    """Return a HarDNet for images of 224x224 pixels; all widths follow the blocks' growth rates.

    Args:
        stem: Channels of the two 3x3 convolutions before the first block.
        depths: Layers of each block.
        growths: g of each block, its width.
        outputs: Channels of the 1x1 convolution after each block.
        halved: Whether a maximum over 2x2 pixels follows that.
        weighting: m.

    Raises:
        SpecError: if a block has no layer.
    """
    check_depths(depths)
    project = LINES.ref("projection", kernel=3, stride=2, norm="batch", activation="relu")
    parts = [
        PartConfig(name="stem1", line=project, **_share(stem[0], growths[0])),
        PartConfig(name="stem2", unit=_LAYER, **_share(stem[1], growths[0])),
        PartConfig(name="stem_pool", line=LINES.ref("pool", kernel=3, padding=1)),
        PartConfig(name="pool", line=Ref("pool")),
    ]
    parts += harmonic_parts(depths, weighting)
    parts += [
        PartConfig(name=f"merge{number}", unit=_MERGE, **_share(output, growth))
        for number, (output, growth) in enumerate(zip(outputs, growths, strict=True), start=1)
    ]
    return NetworkSpec(
        input=LARGE,
        n_classes=1000,
        head=HEADS.ref("pool", norm="none", activation="none"),
        blocks=tuple(BlockConfig(aggregation=Ref("concat"), unit=_LAYER, width=growth) for growth in growths),
        parts=tuple(parts),
        own_graph=_graph(depths, halved),
    )


def harmonic_parts(depths: Sequence[int], weighting: float) -> list[PartConfig]:
    """Return the parts `width0`, `width1`, .. that layers are: the block's unit, m^v times as wide, even.

    Args:
        depths: Layers of each block.
        weighting: m.
    """
    n_weights = max(depth.bit_length() for depth in depths)
    return [PartConfig(name=f"width{v}", ratio=round(weighting**v, 6), multiple=2) for v in range(n_weights)]


def harmonic_width(k: int) -> int:
    """Return the greatest v with 2^v | k.

    >>> [harmonic_width(k) for k in (1, 2, 6, 8)]
    [0, 1, 1, 3]
    """
    return (k & -k).bit_length() - 1


def _share(channels: int, growth: int) -> dict[str, Any]:
    """Return what makes of a growth rate this even number of channels."""
    return {"ratio": round(channels / growth, 4), "multiple": 2}


def _graph(depths: Sequence[int], halved: Sequence[bool]) -> ConnectivityGraph:
    graph = GraphBuilder()
    graph.add("stem", "stem", part="stem1")
    state = graph.add("stem_conv", reads=["stem"], part="stem2")
    state = graph.add("stem_pool", "transition", reads=[state], part="stem_pool", scale=1)
    scale = 1
    for number, (depth, halves) in enumerate(zip(depths, halved, strict=True), start=1):
        state = _add_block(graph, number, depth, state, scale)
        if halves:
            scale += 1
            place: dict[str, Any] = {"block": min(number + 1, len(depths)), "scale": scale}
            state = graph.add(f"transition{number}", "transition", reads=[state], part="pool", **place)
    graph.add("head", "head", reads=[state], block=len(depths), scale=scale)
    return graph.graph()


def _add_block(graph: GraphBuilder, number: int, depth: int, state: str, scale: int) -> str:
    """Add a block that reads `state`, and return the 1x1 convolution that merges it."""
    rule = predecessors(_HARMONIC, depth)
    nodes = [state]
    for k, sources in enumerate(rule, start=1):
        reads = [nodes[source] for source in sources]
        if k > depth:
            part, name = f"merge{number}", f"block{number}.merge"
        else:
            part, name = f"width{harmonic_width(k)}", f"block{number}.layer{k}"
        nodes.append(graph.add(name, reads=reads, part=part, block=number, scale=scale))
    return nodes[-1]


PRESETS["hardnet-68"] = partial(
    hardnet,
    (32, 64),
    depths=(8, 16, 16, 16, 4),
    growths=(14, 16, 20, 40, 160),
    outputs=(128, 256, 320, 640, 1024),
    halved=(True, False, True, True, False),
)
PRESETS["hardnet-85"] = partial(
    hardnet,
    (48, 96),
    depths=(8, 16, 16, 16, 16, 4),
    growths=(24, 24, 28, 36, 48, 256),
    outputs=(192, 256, 320, 480, 720, 1280),
    halved=(True, False, True, False, True, False),
)
