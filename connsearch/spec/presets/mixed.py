"""Networks that both add and concatenate: dual path networks and mixed link networks.

Dual path networks (Chen et al., arXiv 1707.01629), as the authors' code has them: the state is a residual
path r and a dense path d. A unit F reads both; the first R channels that it gives out are added to r, the
others, its increment, are appended to d:

    a = F([r, d]),  r <- r + a[:R],  d <- [d, a[R:]]

The first unit of a block makes both paths anew, by a 1x1 convolution to R and twice the increment.

Mixed link networks (Wang et al., arXiv 1802.01808), as the authors' code has them: two bottlenecks read the
state x. The k1 channels of the inner one are added to the last k1 of x, the k2 of the outer one are appended:

    x <- [x[:-k1], x[-k1:] + inner(x), outer(x)]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.graph.patterns import check_depths
from connsearch.registry import Ref
from connsearch.spec.chains import LINES, UNITS
from connsearch.spec.network import BlockConfig, InputConfig, NetworkSpec, PartConfig
from connsearch.spec.presets.inputs import LARGE

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

# ---- dual path ------------------------------------------------------------------------------------------


def dual_path(
    depths: Sequence[int], increments: Sequence[int], *, inner: int, groups: int, stem_ratio: int
) -> NetworkSpec:
    """Return a dual path network; block b has 256 * 2^b residual channels, an eighth of which is its width.

    Args:
        depths: Units of each block.
        increments: Channels that a unit appends to the dense path, for each block.
        inner: Channels inside a unit, as a multiple of the block's width.
        groups: Groups of the convolution inside a unit.
        stem_ratio: Channels of the stem, as a multiple of block 1's width.

    Raises:
        SpecError: if a block has no unit.
    """
    check_depths(depths)
    units = [
        UNITS.ref("bottleneck", inner=inner, expansion=8, extra=increment, groups=groups)
        for increment in increments
    ]
    blocks = [
        BlockConfig(aggregation=Ref("concat"), unit=unit, width=32 << stage)
        for stage, unit in enumerate(units)
    ]
    parts = [PartConfig(name="add", aggregation=Ref("sum"))]
    for number, (unit, increment) in enumerate(zip(units, increments, strict=True), start=1):
        parts += _dual_path_parts(number, unit, increment)
    return NetworkSpec(
        input=LARGE,
        n_classes=1000,
        stem=Ref("imagenet"),
        stem_ratio=stem_ratio,
        blocks=tuple(blocks),
        parts=tuple(parts),
        own_graph=_dual_path_graph(depths),
    )


def _dual_path_parts(number: int, unit: Ref, increment: int) -> list[PartConfig]:
    """Return the first unit of a block, its shortcut, and how both give out their two paths."""
    stride = 1 if number == 1 else 2
    shortcut = LINES.ref(
        "projection", stride=stride, extra=increment, order="pre", norm="batch", activation="relu"
    )
    parts = [PartConfig(name=f"shortcut{number}", line=shortcut)]
    if stride > 1:
        first = UNITS.ref(unit.name, stride=stride, **dict(unit.params))
        parts.append(PartConfig(name=f"first{number}", unit=first))
    for prefix, channels in (("", increment), ("shortcut_", 2 * increment)):
        for path, start, stop in (("residual", 0, -channels), ("dense", -channels, 0)):
            line = LINES.ref("slice", start=start, stop=stop)
            parts.append(PartConfig(name=f"{prefix}{path}{number}", line=line))
    return parts


def _dual_path_graph(depths: Sequence[int]) -> ConnectivityGraph:
    graph = GraphBuilder()
    state = [graph.add("stem", "stem")]
    for number, depth in enumerate(depths, start=1):
        state = _add_dual_path_block(graph, number, depth, state)
    graph.add("head", "head", reads=state, block=len(depths), scale=len(depths) - 1)
    return graph.graph()


def _add_dual_path_block(graph: GraphBuilder, number: int, depth: int, state: list[str]) -> list[str]:
    """Add a block that reads `state`, and return its two paths."""
    place: dict[str, Any] = {"block": number, "scale": number - 1}

    def split(name: str, prefix: str = "") -> list[str]:
        return [
            graph.add(f"{name}_{path}", "join", reads=[name], part=f"{prefix}{path}{number}", **place)
            for path in ("residual", "dense")
        ]

    shortcut = graph.add(f"block{number}.shortcut", "carry", reads=state, part=f"shortcut{number}", **place)
    residual, dense = split(shortcut, "shortcut_")
    for index in range(1, depth + 1):
        part = f"first{number}" if index == 1 and number > 1 else ""
        reads = state if index == 1 else [residual, dense]
        added, appended = split(graph.add(f"block{number}.unit{index}", reads=reads, part=part, **place))
        reads = [residual, added]
        residual = graph.add(f"block{number}.residual{index}", "join", reads=reads, part="add", **place)
        dense = graph.add(f"block{number}.dense{index}", "join", reads=[dense, appended], **place)
    return [residual, dense]


PRESETS["dpn-92"] = partial(dual_path, (3, 4, 20, 3), (16, 32, 24, 128), inner=3, groups=32, stem_ratio=2)
PRESETS["dpn-98"] = partial(dual_path, (3, 6, 20, 3), (16, 32, 32, 128), inner=5, groups=40, stem_ratio=3)
PRESETS["dpn-131"] = partial(dual_path, (4, 8, 28, 3), (16, 32, 32, 128), inner=5, groups=40, stem_ratio=4)

# ---- mixed link -----------------------------------------------------------------------------------------


def mixed_link(depths: Sequence[int], inner: int, outer: int, *, large: bool = False) -> NetworkSpec:
    """Return a mixed link network; transitions halve, the stem has 2 k2 channels.

    Args:
        depths: Pairs of bottlenecks in each block.
        inner: k1, channels that a pair adds to the last ones.
        outer: k2, channels that a pair appends; the blocks' width.
        large: Whether it is for images of 224x224 pixels.

    Raises:
        SpecError: if a block has no pair.
    """
    check_depths(depths)
    share: dict[str, Any] = {"ratio": inner / outer, "multiple": 1}
    parts = (
        PartConfig(name="inner", unit=Ref("dense_bottleneck"), **share),
        PartConfig(name="kept", line=LINES.ref("slice", stop=-1, in_widths=True), **share),
        PartConfig(name="last", line=LINES.ref("slice", start=-1, stop=0, in_widths=True), **share),
        PartConfig(name="add", aggregation=Ref("sum")),
    )
    block = BlockConfig(aggregation=Ref("concat"), unit=Ref("dense_bottleneck"), width=outer)
    return NetworkSpec(
        input=LARGE if large else InputConfig(),
        n_classes=1000 if large else 10,
        stem=Ref("imagenet" if large else "conv"),
        stem_ratio=2,
        transition=Ref("pool"),
        compression=0.5,
        blocks=(block,) * len(depths),
        parts=parts,
        own_graph=_mixed_link_graph(depths),
    )


def _mixed_link_graph(depths: Sequence[int]) -> ConnectivityGraph:
    graph = GraphBuilder()
    state = graph.add("stem", "stem")
    for number, depth in enumerate(depths, start=1):
        place: dict[str, Any] = {"block": number, "scale": number - 1}
        if number > 1:
            state = graph.add(f"transition{number - 1}", "transition", reads=[state], **place)
        for index in range(1, depth + 1):
            name = f"block{number}.layer{index}"
            kept = graph.add(f"{name}_kept", "join", reads=[state], part="kept", **place)
            last = graph.add(f"{name}_last", "join", reads=[state], part="last", **place)
            inner = graph.add(f"{name}_inner", reads=[state], part="inner", **place)
            added = graph.add(f"{name}_added", "join", reads=[last, inner], part="add", **place)
            outer = graph.add(f"{name}_outer", reads=[state], **place)
            state = graph.add(name, "join", reads=[kept, added, outer], **place)
    graph.add("head", "head", reads=[state], block=len(depths), scale=len(depths) - 1)
    return graph.graph()


for _depth, _growth in ((100, 12), (250, 24), (190, 40)):
    PRESETS[f"mixnet-{_depth}"] = partial(mixed_link, [(_depth - 4) // 6] * 3, _growth, _growth)

for _depth, _depths, _growth in (
    (105, (6, 12, 20, 12), 32),
    (121, (6, 12, 24, 16), 40),
    (141, (6, 12, 30, 20), 48),
):
    PRESETS[f"mixnet-{_depth}"] = partial(mixed_link, _depths, _growth, _growth, large=True)
