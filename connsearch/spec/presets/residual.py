"""Residual networks of any unit: blocks of units, each added to what it read.

The state runs, r_l = r_{l-1} + F_l(r_{l-1}), one join for each unit: a thousand layers have a few thousand
edges. Written as ResNet-v2's x_l = sum_{j<l} h_j (topology `dense`, aggregation `sum`) the same network would
have an edge for each pair of layers.

The first unit of a block changes resolution and width, so a carry, its shortcut, does the same to the state.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.graph.patterns import check_depths
from connsearch.registry import Ref, Scalar
from connsearch.spec.chains import HEADS, LINES, UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec, PartConfig


def post_activation(
    depths: Sequence[int],
    widths: Sequence[int],
    unit: Ref,
    *,
    widens: bool = False,
    shortcut: str = "projection",
    activation: str = "relu",
    **settings: Any,
) -> NetworkSpec:
    """Return a ResNet-v1: h_l = act(skip + F_l(h_{l-1})), a unit F_l without a last activation.

    Args:
        depths: Units of each block.
        widths: Width of each block.
        unit: A registered unit that takes a stride.
        widens: Whether block 1's first unit changes the number of channels.
        shortcut: `projection`: 1x1 - norm. `zero_pad`: every second pixel, channels of zeros.
        activation: What follows the sum; `none` for nothing.
        **settings: Other fields of the network.
    """
    parts = {
        "strided": {"unit": _with(unit, stride=2)},
        "shortcut": {"line": LINES.ref("projection", norm="batch")},
        "strided_shortcut": {
            "line": LINES.ref(shortcut, stride=2, **({"norm": "batch"} if shortcut == "projection" else {}))
        },
        "after": {"line": LINES.ref("norm_act", norm="none", activation=activation)},
    }
    graph = residual_graph(depths, widens=widens, after="" if activation == "none" else "after")
    head = HEADS.ref("pool", norm="none", activation="none")
    return _network(graph, parts, widths, unit, **{"head": head, **settings})


def pre_activation(
    depths: Sequence[int],
    widths: Sequence[int],
    unit: Ref,
    *,
    activated_stem: bool = False,
    stem_share: float = 1.0,
    **settings: Any,
) -> NetworkSpec:
    """Return a ResNet-v2: r_l = skip + F_l(r_{l-1}), a unit F_l that begins with norm and activation.

    The first unit of a block shares its norm and activation with its shortcut, a bare 1x1 convolution.

    Args:
        depths: Units of each block.
        widths: Width of each block.
        unit: A registered unit that takes a stride and can be `preactivated`.
        activated_stem: Whether the stem ends with norm and activation, so that block 1's first unit and
            its shortcut read it as it is.
        stem_share: Channels of the stem as a share of block 1's width, rounded to the nearest integer; below
            1, a bare 3x3 convolution.
        **settings: Other fields of the network.
    """
    parts: dict[str, dict[str, Any]] = {
        "stem": {"line": LINES.ref("projection", kernel=3), "ratio": stem_share, "multiple": 1},
        "preact": {"line": LINES.ref("norm_act")},
        "first": {"unit": _with(unit, preactivated=True)},
        "strided": {"unit": _with(unit, preactivated=True, stride=2)},
        "shortcut": {"line": LINES.ref("projection")},
        "strided_shortcut": {"line": LINES.ref("projection", stride=2)},
    }
    shared = range(1 + activated_stem, len(depths) + 1)
    stem = "stem" if stem_share < 1 else ""
    graph = residual_graph(depths, widens=True, stem=stem, first="first", shared=shared)
    return _network(graph, parts, widths, unit, **settings)


def _with(unit: Ref, **params: Scalar) -> Ref:
    return UNITS.ref(unit.name, **{**dict(unit.params), **params})


def _network(
    graph: ConnectivityGraph,
    parts: Mapping[str, Mapping[str, Any]],
    widths: Sequence[int],
    unit: Ref,
    **settings: Any,
) -> NetworkSpec:
    used = {node.part for node in graph.nodes}
    return NetworkSpec(
        own_graph=graph,
        blocks=tuple(BlockConfig(unit=unit, width=width) for width in widths),
        parts=tuple(PartConfig(name=name, **part) for name, part in parts.items() if name in used),
        **{"stem_ratio": 1, **settings},
    )


def residual_graph(
    depths: Sequence[int],
    *,
    widens: bool,
    stem: str = "",
    first: str = "",
    shared: Container[int] = (),
    after: str = "",
) -> ConnectivityGraph:
    """Return stem, units that are each joined with the state, head.

    Parts that a specification must describe: `strided` and `strided_shortcut` (first unit of block 2, 3,
    ... and its shortcut), `shortcut` (block 1's) if it widens, `preact` if any block shares one.

    Args:
        depths: Units of each block.
        widens: Whether block 1's first unit changes the number of channels, so that it has a shortcut.
        stem: Part of the stem.
        first: Part of the unit that widens.
        shared: Blocks, from 1, whose first unit shares a pre-activation with its shortcut.
        after: Part of the joins.

    Raises:
        SpecError: if a block has no unit.
    """
    check_depths(depths)
    builder = GraphBuilder()
    state = builder.add("stem", "stem", part=stem)
    for block, depth in enumerate(depths, start=1):
        name, entry, skip, part = f"block{block}.unit1", state, state, ""
        here: dict[str, Any] = {"block": block, "scale": block - 1}
        if block in shared:
            before: dict[str, Any] = {"block": block, "scale": max(block - 2, 0)}
            entry = builder.add(f"{name}_preact", "join", reads=[state], part="preact", **before)
        if block > 1 or widens:
            part, shortcut = ("strided", "strided_shortcut") if block > 1 else (first, "shortcut")
            skip = builder.add(f"{name}_shortcut", "carry", reads=[entry], part=shortcut, **here)
        for i in range(1, depth + 1):
            name = builder.add(f"block{block}.unit{i}", reads=[entry], part=part, **here)
            state = entry = skip = builder.add(f"{name}_sum", "join", reads=[skip, name], part=after, **here)
            part = ""
    builder.add("head", "head", reads=[state], block=len(depths), scale=len(depths) - 1)
    return builder.graph()
